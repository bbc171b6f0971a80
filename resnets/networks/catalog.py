"""The named networks, one row each, with published figures. Imports no torch."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from resnets.errors import UsageError
from resnets.networks.architecture import Architecture, Block


@dataclass(frozen=True)
class Entry:
    """A named network.

    Attributes:
        architecture: what it is.
        source: where its figures were published.
        parameters: published number, in millions.
        multiply_adds: published number for one image, in billions.
        size: height and width of that image, in pixels.
    """

    architecture: Architecture
    source: str
    parameters: float | None = None
    multiply_adds: float | None = None
    size: int = 224


_HE_2015 = "He et al. 2015, arXiv:1512.03385"
_PLAIN = f"{_HE_2015}, figure 6; as many parameters as the residual ones of table 6"
_HE_2016 = "He et al. 2016, arXiv:1603.05027"
_ZAGORUYKO = "Zagoruyko and Komodakis 2016, arXiv:1605.07146"
_XIE = "Xie et al. 2017, arXiv:1611.05431"
_HE_2019 = "He et al. 2019, arXiv:1812.01187"
_HU = "Hu et al. 2018, arXiv:1709.01507"
_WANG = "Wang et al. 2020, arXiv:1910.03151"
_ZHANG = "Zhang 2019, arXiv:1904.11486"
_BELLO = "Bello et al. 2021, arXiv:2103.07579"
_KOLESNIKOV = "Kolesnikov et al. 2020, arXiv:1912.11370"
_WU = "Wu and He 2018, arXiv:1803.08494"
_TIMM = "timm's model cards"
_TORCHVISION = "torchvision's documentation"

_IMAGENET: dict[int, tuple[Block, tuple[int, ...]]] = {  # arXiv:1512.03385, table 1
    18: ("residual", (2, 2, 2, 2)),
    34: ("residual", (3, 4, 6, 3)),
    26: ("bottleneck", (2, 2, 2, 2)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}

_DEEPEST = 1202  # arXiv:1512.03385, section 4.2


def _imagenet(depth: int, **choices: Any) -> Architecture:
    """The network for ImageNet with ``depth`` layers, as published or with other choices."""
    block, depths = _IMAGENET[depth]
    return Architecture(block, depths, **choices)


def _small(block: Block, depth: int, **choices: Any) -> Architecture:
    """The network for 32 x 32 images with ``depth`` layers (arXiv:1512.03385, section 4.2)."""
    layers = 9 if block.endswith("bottleneck") else 6
    defaults: dict[str, Any] = {"width": 16, "stem": "cifar", "num_classes": 10}
    return Architecture(block, ((depth - 2) // layers,) * 3, **defaults | choices)


def _resnet_v2(depth: int, **choices: Any) -> Architecture:
    """A network for ImageNet with pre-activation, its stride in the 3x3 (timm's resnetv2)."""
    ordinary = _imagenet(depth)
    block: Block = "preact_bottleneck" if ordinary.is_bottleneck else "preact_residual"
    return replace(ordinary, block=block, activated_start=False, **choices)


def _bit(depth: int, times: int) -> Architecture:
    """A Big Transfer network, so many times as wide (arXiv:1912.11370): no batch statistics."""
    return _resnet_v2(
        depth, width=64 * times, stem="padded", norm="group", weight_standardisation=True
    )


_plain = partial(_small, "residual", shortcut="none")
_option_a = partial(_small, "residual", shortcut="padding")
_preact = partial(_small, "preact_bottleneck", strided_conv=1)
_wide = partial(_small, "preact_residual", stem_width=16, dropout=0.3)  # 6n + 4 layers in the paper
_resnet_c = partial(_imagenet, stem="deep")
_resnet_d = partial(_imagenet, stem="deep", shortcut="pooled")
_resnet_t = partial(_imagenet, stem="tiered", shortcut="pooled")
_resnet_v2_d = partial(_resnet_v2, stem="deep", shortcut="pooled")
_resnet_rs = partial(_imagenet, stem="deep_strided", shortcut="pooled", attention="se", reduction=4)

_small_entry = partial(Entry, size=32)

_SMALL = {  # networks for 32 x 32 images
    "plain20": _small_entry(_plain(20), _PLAIN, 0.27),
    "plain32": _small_entry(_plain(32), _PLAIN, 0.46),
    "plain44": _small_entry(_plain(44), _PLAIN, 0.66),
    "plain56": _small_entry(_plain(56), _PLAIN, 0.85),
    "resnet14": _small_entry(
        _small("residual", 14, shortcut="projection3x3"), "this project's, with 3x3 projections"
    ),
    "resnet20": _small_entry(_option_a(20), f"{_HE_2015}, table 6", 0.27),
    "resnet32": _small_entry(_option_a(32), f"{_HE_2015}, table 6", 0.46),
    "resnet44": _small_entry(_option_a(44), f"{_HE_2015}, table 6", 0.66),
    "resnet56": _small_entry(_option_a(56), f"{_HE_2015}, table 6", 0.85),
    "resnet110": _small_entry(_option_a(110), f"{_HE_2015}, table 6", 1.7),
    "resnet1202": _small_entry(_option_a(1202), f"{_HE_2015}, table 6", 19.4),
    "preact_resnet110": _small_entry(
        _small("preact_residual", 110, shortcut="padding"), f"{_HE_2016}, table 4", 1.7
    ),
    "preact_resnet164": _small_entry(_preact(164), f"{_HE_2016}, table 4", 1.7),
    "preact_resnet1001": _small_entry(_preact(1001), f"{_HE_2016}, table 4", 10.2),
    "wide_resnet16_8": _small_entry(_wide(14, width=128), _ZAGORUYKO, 11.0),
    "wide_resnet28_10": _small_entry(_wide(26, width=160), _ZAGORUYKO, 36.5),
    "wide_resnet40_10": _small_entry(_wide(38, width=160), _ZAGORUYKO, 55.8),
    "resnet18_cifar": _small_entry(
        _imagenet(18, stem="cifar", num_classes=10), "ResNet-18 as often trained on CIFAR-10"
    ),
}

_LARGE = {  # networks for ImageNet
    "resnet18": Entry(_imagenet(18), f"{_HE_2015}, table 1; {_TORCHVISION}", 11.69, 1.8),
    "resnet34": Entry(_imagenet(34), f"{_HE_2015}, table 1; {_TORCHVISION}", 21.80, 3.6),
    "resnet26": Entry(_imagenet(26), _TIMM, 16.0, 2.4),
    "resnet50": Entry(_imagenet(50), f"{_HE_2019}, table 5; {_TORCHVISION}", 25.56, 4.1),
    "resnet101": Entry(_imagenet(101), _TORCHVISION, 44.55, 7.80),
    "resnet152": Entry(_imagenet(152), _TORCHVISION, 60.19, 11.51),
    "resnet200": Entry(_imagenet(200), _TIMM, 64.7, 15.1),
    "resnet26_v1": Entry(_imagenet(26, strided_conv=1), _HE_2015),
    "resnet50_v1": Entry(_imagenet(50, strided_conv=1), f"{_HE_2015}, table 1", None, 3.8),
    "resnet101_v1": Entry(_imagenet(101, strided_conv=1), f"{_HE_2015}, table 1", None, 7.6),
    "resnet152_v1": Entry(_imagenet(152, strided_conv=1), f"{_HE_2015}, table 1", None, 11.3),
    "resnet200_v1": Entry(_imagenet(200, strided_conv=1), _HE_2015),
    "resnet50c": Entry(_resnet_c(50), f"{_HE_2019}, table 5; {_TIMM}", 25.6, 4.3),
    "resnet101c": Entry(_resnet_c(101), _TIMM, 44.6, 8.1),
    "resnet152c": Entry(_resnet_c(152), _TIMM, 60.2, 11.8),
    "resnet18d": Entry(_resnet_d(18), _TIMM, 11.7, 2.1),
    "resnet34d": Entry(_resnet_d(34), _TIMM, 21.8, 3.9),
    "resnet26d": Entry(_resnet_d(26), _TIMM, 16.0, 2.6),
    "resnet50d": Entry(_resnet_d(50), f"{_HE_2019}, table 5; {_TIMM}", 25.6, 4.3),
    "resnet101d": Entry(_resnet_d(101), _TIMM, 44.6, 10.6, 256),
    "resnet152d": Entry(_resnet_d(152), _TIMM, 60.2, 15.4, 256),
    "resnet200d": Entry(_resnet_d(200), _TIMM, 64.7, 20.0, 256),
    "resnet50s": Entry(_resnet_c(50, stem_width=128), _TIMM, 25.7, 5.5),
    "resnet101s": Entry(_resnet_c(101, stem_width=128), _TIMM, 44.7, 9.2),
    "resnet152s": Entry(_resnet_c(152, stem_width=128), _TIMM, 60.3, 12.9),
    "resnet10t": Entry(
        Architecture("residual", (1, 1, 1, 1), stem="tiered", shortcut="pooled"), _TIMM, 5.44, 1.1
    ),
    "resnet14t": Entry(
        Architecture("bottleneck", (1, 1, 1, 1), stem="tiered", shortcut="pooled"), _TIMM, 10.1, 1.7
    ),
    "resnet26t": Entry(_resnet_t(26), _TIMM, 16.0, 3.3, 256),
    "resnet50t": Entry(_resnet_t(50), _TIMM, 25.6, 4.3),
    "resnext50_32x4d": Entry(_imagenet(50, groups=32, base_width=4), f"{_XIE}, table 1", 25.0, 4.2),
    "resnext50_32x8d": Entry(_imagenet(50, groups=32, base_width=8), f"after {_XIE}"),
    "resnext50_64x4d": Entry(_imagenet(50, groups=64, base_width=4), f"after {_XIE}"),
    "resnext50d_32x4d": Entry(_resnet_d(50, groups=32, base_width=4), _TIMM, 25.05, 4.5),
    "resnext101_32x4d": Entry(
        _imagenet(101, groups=32, base_width=4), f"{_XIE}, figure 5", 44, 7.8
    ),
    "resnext101_32x8d": Entry(_imagenet(101, groups=32, base_width=8), _TORCHVISION, 88.79, 16.41),
    "resnext101_32x16d": Entry(_imagenet(101, groups=32, base_width=16), _TIMM, 194.03, 36.27),
    "resnext101_32x32d": Entry(_imagenet(101, groups=32, base_width=32), _TIMM, 468.53, 87.29),
    "resnext101_64x4d": Entry(_imagenet(101, groups=64, base_width=4), _TORCHVISION, 83.46, 15.46),
    "wide_resnet50_2": Entry(
        _imagenet(50, base_width=128), f"{_ZAGORUYKO}; {_TORCHVISION}", 68.9, 11.4
    ),
    "wide_resnet101_2": Entry(_imagenet(101, base_width=128), _TORCHVISION, 126.89, 22.75),
    "seresnet50": Entry(_imagenet(50, attention="se"), f"{_HU}, table 10; {_TIMM}", 28.1, 4.1),
    "seresnet101": Entry(_imagenet(101, attention="se"), _TIMM, 49.3, 7.8),
    "seresnet152": Entry(_imagenet(152, attention="se"), _TIMM, 66.8, 11.6),
    "seresnet152d": Entry(_resnet_d(152, attention="se"), _TIMM, 66.84, 15.4, 256),
    "seresnext50_32x4d": Entry(
        _imagenet(50, groups=32, base_width=4, attention="se"), f"{_HU}; {_TIMM}", 27.56, 4.26
    ),
    "seresnext101_32x8d": Entry(
        _imagenet(101, groups=32, base_width=8, attention="se"), _TIMM, 93.57, 16.48
    ),
    "seresnext101_32x4d": Entry(
        _imagenet(101, groups=32, base_width=4, attention="se"), _TIMM, 48.96, 8.02
    ),
    "seresnext101_64x4d": Entry(
        _imagenet(101, groups=64, base_width=4, attention="se"), _TIMM, 88.23, 15.53
    ),
    "seresnext26d_32x4d": Entry(
        _resnet_d(26, groups=32, base_width=4, attention="se"), _TIMM, 16.81, 2.73
    ),
    "seresnext26t_32x4d": Entry(
        _resnet_t(26, groups=32, base_width=4, attention="se"), _TIMM, 16.81, 2.7
    ),
    "seresnext101d_32x8d": Entry(
        _resnet_d(101, groups=32, base_width=8, attention="se"), _TIMM, 93.59, 16.72
    ),
    "seresnextaa101d_32x8d": Entry(
        _resnet_d(101, groups=32, base_width=8, attention="se", blur="average"), _TIMM, 93.59, 17.25
    ),
    "seresnextaa201d_32x8d": Entry(
        Architecture(
            "bottleneck",
            (3, 24, 36, 4),
            stem="deep",
            stem_width=128,
            shortcut="pooled",
            groups=32,
            base_width=8,
            attention="se",
            blur="average",
        ),
        _TIMM,
        149.39,
        70.22,
        320,
    ),
    "ecaresnet50": Entry(_imagenet(50, attention="eca"), f"{_WANG}"),
    "ecaresnet26t": Entry(_resnet_t(26, attention="eca"), _TIMM, 16.01, 3.35, 256),
    "ecaresnetlight": Entry(
        Architecture("bottleneck", (1, 1, 11, 3), shortcut="pooled", attention="eca"),
        _TIMM,
        30.16,
        4.11,
    ),
    "ecaresnet50d": Entry(_resnet_d(50, attention="eca"), _TIMM, 25.6, 4.4),
    "ecaresnet50t": Entry(_resnet_t(50, attention="eca"), _TIMM, 25.6, 4.3),
    "ecaresnet101d": Entry(_resnet_d(101, attention="eca"), _TIMM, 44.57, 8.08),
    "ecaresnet269d": Entry(
        Architecture("bottleneck", (3, 30, 48, 8), stem="deep", shortcut="pooled", attention="eca"),
        _TIMM,
        102.09,
        41.53,
        320,
    ),
    "resnet50_gn": Entry(_imagenet(50, norm="group"), f"{_WU}; {_TIMM}", 25.56, 4.14),
    "resnetaa50": Entry(_imagenet(50, blur="average"), _TIMM, 25.56, 5.15),
    "resnetaa50d": Entry(_resnet_d(50, blur="average"), _TIMM, 25.58, 5.39),
    "resnetaa101d": Entry(_resnet_d(101, blur="average"), _TIMM, 44.57, 9.12),
    "resnetblur50": Entry(_imagenet(50, blur=True), f"{_ZHANG}; {_TIMM}", 25.6, 5.2),
    "resnetrs50": Entry(_resnet_rs(50), f"{_BELLO}; {_TIMM}", 35.7, 2.3, 160),
    "resnetrs101": Entry(_resnet_rs(101), f"{_BELLO}; {_TIMM}", 63.6, 6.0, 192),
    "resnetrs152": Entry(_resnet_rs(152), f"{_BELLO}; {_TIMM}", 86.6, 15.6, 256),
    "resnetrs200": Entry(_resnet_rs(200), f"{_BELLO}; {_TIMM}", 93.2, 20.2, 256),
    "resnetrs270": Entry(
        replace(_resnet_rs(200), depths=(4, 29, 53, 4)), f"{_BELLO}; {_TIMM}", 129.86, 27.06, 256
    ),
    "resnetrs350": Entry(
        replace(_resnet_rs(200), depths=(4, 36, 72, 4)), f"{_BELLO}; {_TIMM}", 163.96, 43.67, 288
    ),
    "resnetrs420": Entry(
        replace(_resnet_rs(200), depths=(4, 44, 87, 4)), f"{_BELLO}; {_TIMM}", 191.89, 64.2, 320
    ),
    "resnetv2_18": Entry(_resnet_v2(18), _TIMM, 11.69, 1.82),
    "resnetv2_34": Entry(_resnet_v2(34), _TIMM, 21.8, 3.67),
    "resnetv2_18d": Entry(_resnet_v2_d(18), _TIMM, 11.71, 2.06),
    "resnetv2_34d": Entry(_resnet_v2_d(34), _TIMM, 21.82, 3.91),
    "resnetv2_50d": Entry(_resnet_v2_d(50), _TIMM, 25.57, 4.35),
    "resnetv2_50": Entry(_resnet_v2(50), _TIMM, 25.5, 4.1),
    "resnetv2_101": Entry(_resnet_v2(101), _TIMM, 44.5, 7.8),
    "resnetv2_152": Entry(_resnet_v2(152), _TIMM, 60.2, 11.5),
    "resnetv2_200": Entry(_resnet_v2(200), _HE_2016),
    # timm's multiply-adds of these count more than convolutions
    "resnetv2_50x1_bit": Entry(_bit(50, 1), f"{_KOLESNIKOV}; {_TIMM}", 25.55),
    "resnetv2_50x3_bit": Entry(_bit(50, 3), f"{_KOLESNIKOV}; {_TIMM}", 217.32),
    "resnetv2_101x1_bit": Entry(_bit(101, 1), f"{_KOLESNIKOV}; {_TIMM}", 44.54),
    "resnetv2_101x3_bit": Entry(_bit(101, 3), f"{_KOLESNIKOV}; {_TIMM}", 387.93),
    "resnetv2_152x2_bit": Entry(_bit(152, 2), f"{_KOLESNIKOV}; {_TIMM}", 236.34),
    "resnetv2_152x4_bit": Entry(_bit(152, 4), f"{_KOLESNIKOV}; {_TIMM}", 936.53),
}

CATALOG: dict[str, Entry] = _SMALL | _LARGE

_NEAREST = 3  # names that an error suggests

_OPTIONS = {  # fields that may be changed without changing the network's name
    *("num_classes", "in_channels", "dropout", "stochastic_depth", "zero_init", "norm"),
}


def select(
    name: str | Architecture | None = None, *, depth: int | None = None, **changes: Any
) -> Architecture:
    """The architecture of a name, of a depth, or the given one with changes.

    Args:
        name: a row of the catalog, or an architecture.
        depth: number of layers, if there is no name; see `resnet.build`.
        changes: fields of the `Architecture`; those that are None stay as they are.

    Raises:
        UsageError: for a name, depth or change that no network has; it names the nearest ones.
    """
    changes = {field: value for field, value in changes.items() if value is not None}
    if (name is None) == (depth is None):
        raise UsageError(f"give a name or a depth, and not both (name={name!r}, depth={depth!r})")
    allowed = [field.name for field in fields(Architecture)]
    for field in changes:
        if field not in allowed:
            raise UsageError(f"no field {field!r} to change{nearest(field, allowed)}")
    if depth is not None:
        return replace(
            _by_depth(depth, changes.get("block"), changes.get("stem") == "cifar"), **changes
        )
    if isinstance(name, Architecture):
        return replace(name, **changes)
    if name not in CATALOG:
        raise UsageError(f"no network {name!r}{nearest(str(name), CATALOG)}")
    return replace(CATALOG[name].architecture, **changes)


def name_of(architecture: Architecture) -> str | None:
    """The network's name in the catalog, whatever its `_OPTIONS`; None if it has none.

    Of two rows that differ in their norm, it is the one with the network's.

    >>> name_of(select("resnet14", num_classes=3, stochastic_depth=0.1))
    'resnet14'
    """
    fixed = _without_options(architecture)
    same = [n for n, row in CATALOG.items() if _without_options(row.architecture) == fixed]
    norm = [n for n in same if CATALOG[n].architecture.norm == architecture.norm]
    return next(iter(norm + same), None)


def display_name(architecture: Architecture) -> str:
    """What screens, reports and files call a network: its name, or its blocks and its depth.

    >>> display_name(Architecture("residual", (1, 1), width=4))
    'residual, 6 layers'
    """
    return name_of(architecture) or f"{architecture.block}, {architecture.depth} layers"


def _without_options(architecture: Architecture) -> dict[str, Any]:
    return {k: v for k, v in architecture.to_dict().items() if k not in _OPTIONS}


def nearest(word: str, words: Iterable[str]) -> str:
    """The end of an error message: the words most like ``word``, the nearest by number first.

    >>> nearest("resnet15", CATALOG)
    '; nearest: resnet14, resnet18, resnet152'
    """
    choices = list(words)
    near = _nearest_by_number(word, choices)
    like = difflib.get_close_matches(word, choices, n=3, cutoff=0)
    return "; nearest: " + ", ".join(dict.fromkeys([*near, *like][:_NEAREST]))


def _nearest_by_number(word: str, choices: Sequence[str]) -> list[str]:
    """Two of the words that differ from ``word`` in its first number only, the nearest first."""
    match = re.fullmatch(r"(\D*)(\d{1,9})(.*)", word)
    if match is None:
        return []
    before, number, after = match.groups()
    pattern = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    matches = {int(m[1]): choice for choice in choices if (m := pattern.fullmatch(choice))}
    return [matches[n] for n in sorted(matches, key=lambda n: abs(n - int(number)))[:2]]


def _by_depth(depth: int, block: Block | None, small_images: bool) -> Architecture:
    """The network with ``depth`` layers.

    Raises:
        UsageError: if there is none; it names the nearest depths.
    """
    if isinstance(depth, int) and (networks := _candidates(depth, block, small_images)):
        return networks[0]
    number = depth if isinstance(depth, int | float) else 0
    middle = int(min(_DEEPEST, max(3, number)))
    around = range(middle - 40, middle + 40)
    depths = (near for near in around if _candidates(near, block, small_images))
    near = sorted(sorted(depths, key=lambda near: abs(near - number))[:3])
    kind = f" of {block} blocks" if block else ""
    raise UsageError(f"no network{kind} has depth {depth!r}; nearest: {', '.join(map(str, near))}")


def _candidates(depth: int, block: Block | None, small_images: bool) -> list[Architecture]:
    """The networks with ``depth`` layers, best known first."""
    rows = [_SMALL[name] for name in (f"resnet{depth}", f"preact_resnet{depth}") if name in _SMALL]
    networks = [_imagenet(depth)] if depth in _IMAGENET and not small_images else []
    networks += [row.architecture for row in rows]
    networks += [_option_a(depth)] if 2 < depth <= _DEEPEST and depth % 6 == 2 else []
    networks += [_preact(depth)] if 2 < depth <= _DEEPEST and depth % 9 == 2 else []
    bottleneck = block and str(block).endswith("bottleneck")
    return [network for network in networks if bottleneck in (None, network.is_bottleneck)]
