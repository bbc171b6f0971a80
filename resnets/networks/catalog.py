"""The named networks, one row each, with what was published of it. No torch here."""

import difflib
from collections.abc import Iterable
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


HE_2015 = "He et al. 2015, arXiv:1512.03385"
PLAIN = f"{HE_2015}, figure 6; as many parameters as the residual ones of table 6"
HE_2016 = "He et al. 2016, arXiv:1603.05027"
ZAGORUYKO = "Zagoruyko and Komodakis 2016, arXiv:1605.07146"
XIE = "Xie et al. 2017, arXiv:1611.05431"
HE_2019 = "He et al. 2019, arXiv:1812.01187"
HU = "Hu et al. 2018, arXiv:1709.01507"
WANG = "Wang et al. 2020, arXiv:1910.03151"
ZHANG = "Zhang 2019, arXiv:1904.11486"
BELLO = "Bello et al. 2021, arXiv:2103.07579"
TIMM = "timm's model cards"
TORCHVISION = "torchvision's documentation"

IMAGENET: dict[int, tuple[Block, tuple[int, ...]]] = {  # arXiv:1512.03385, table 1
    18: ("residual", (2, 2, 2, 2)),
    34: ("residual", (3, 4, 6, 3)),
    26: ("bottleneck", (2, 2, 2, 2)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
}

DEEPEST = 1202  # arXiv:1512.03385, section 4.2


def imagenet(depth: int, **choices: Any) -> Architecture:
    """The network for ImageNet with so many layers, as published or with other choices."""
    block, depths = IMAGENET[depth]
    return Architecture(block, depths, **choices)


def small(block: Block, depth: int, **choices: Any) -> Architecture:
    """The network for 32 x 32 images with so many layers (arXiv:1512.03385, section 4.2)."""
    layers = 9 if block.endswith("bottleneck") else 6
    defaults: dict[str, Any] = {"width": 16, "stem": "cifar", "num_classes": 10}
    return Architecture(block, ((depth - 2) // layers,) * 3, **defaults | choices)


def resnet_v2(depth: int) -> Architecture:
    """A network for ImageNet with pre-activation, its stride in the 3x3 (timm's resnetv2)."""
    return replace(imagenet(depth), block="preact_bottleneck")


plain = partial(small, "residual", shortcut="none")
option_a = partial(small, "residual", shortcut="padding")
preact = partial(small, "preact_bottleneck", strided_conv=1)
wide = partial(small, "preact_residual", stem_width=16, dropout=0.3)  # 6n + 4 layers in the paper
resnet_c = partial(imagenet, stem="deep")
resnet_d = partial(imagenet, stem="deep", shortcut="pooled")
resnet_t = partial(imagenet, stem="tiered", shortcut="pooled")
resnet_rs = partial(imagenet, stem="deep_strided", shortcut="pooled", attention="se", reduction=4)

small_entry = partial(Entry, size=32)

SMALL = {  # networks for 32 x 32 images
    "plain20": small_entry(plain(20), PLAIN, 0.27),
    "plain32": small_entry(plain(32), PLAIN, 0.46),
    "plain44": small_entry(plain(44), PLAIN, 0.66),
    "plain56": small_entry(plain(56), PLAIN, 0.85),
    "resnet14": small_entry(
        small("residual", 14, shortcut="projection3x3"), "this project's, with 3x3 projections"
    ),
    "resnet20": small_entry(option_a(20), f"{HE_2015}, table 6", 0.27),
    "resnet32": small_entry(option_a(32), f"{HE_2015}, table 6", 0.46),
    "resnet44": small_entry(option_a(44), f"{HE_2015}, table 6", 0.66),
    "resnet56": small_entry(option_a(56), f"{HE_2015}, table 6", 0.85),
    "resnet110": small_entry(option_a(110), f"{HE_2015}, table 6", 1.7),
    "resnet1202": small_entry(option_a(1202), f"{HE_2015}, table 6", 19.4),
    "preact_resnet110": small_entry(
        small("preact_residual", 110, shortcut="padding"), f"{HE_2016}, table 4", 1.7
    ),
    "preact_resnet164": small_entry(preact(164), f"{HE_2016}, table 4", 1.7),
    "preact_resnet1001": small_entry(preact(1001), f"{HE_2016}, table 4", 10.2),
    "wide_resnet16_8": small_entry(wide(14, width=128), ZAGORUYKO, 11.0),
    "wide_resnet28_10": small_entry(wide(26, width=160), ZAGORUYKO, 36.5),
    "wide_resnet40_10": small_entry(wide(38, width=160), ZAGORUYKO, 55.8),
}

LARGE = {  # networks for ImageNet
    "resnet18": Entry(imagenet(18), f"{HE_2015}, table 1; {TORCHVISION}", 11.69, 1.8),
    "resnet34": Entry(imagenet(34), f"{HE_2015}, table 1; {TORCHVISION}", 21.80, 3.6),
    "resnet26": Entry(imagenet(26), TIMM, 16.0, 2.4),
    "resnet50": Entry(imagenet(50), f"{HE_2019}, table 5; {TORCHVISION}", 25.56, 4.1),
    "resnet101": Entry(imagenet(101), TORCHVISION, 44.55, 7.80),
    "resnet152": Entry(imagenet(152), TORCHVISION, 60.19, 11.51),
    "resnet200": Entry(imagenet(200), TIMM, 64.7, 15.1),
    "resnet26_v1": Entry(imagenet(26, strided_conv=1), HE_2015),
    "resnet50_v1": Entry(imagenet(50, strided_conv=1), f"{HE_2015}, table 1", None, 3.8),
    "resnet101_v1": Entry(imagenet(101, strided_conv=1), f"{HE_2015}, table 1", None, 7.6),
    "resnet152_v1": Entry(imagenet(152, strided_conv=1), f"{HE_2015}, table 1", None, 11.3),
    "resnet200_v1": Entry(imagenet(200, strided_conv=1), HE_2015),
    "resnet50c": Entry(resnet_c(50), f"{HE_2019}, table 5; {TIMM}", 25.6, 4.3),
    "resnet101c": Entry(resnet_c(101), TIMM, 44.6, 8.1),
    "resnet152c": Entry(resnet_c(152), TIMM, 60.2, 11.8),
    "resnet18d": Entry(resnet_d(18), TIMM, 11.7, 2.1),
    "resnet34d": Entry(resnet_d(34), TIMM, 21.8, 3.9),
    "resnet26d": Entry(resnet_d(26), TIMM, 16.0, 2.6),
    "resnet50d": Entry(resnet_d(50), f"{HE_2019}, table 5; {TIMM}", 25.6, 4.3),
    "resnet101d": Entry(resnet_d(101), TIMM, 44.6, 10.6, 256),
    "resnet152d": Entry(resnet_d(152), TIMM, 60.2, 15.4, 256),
    "resnet200d": Entry(resnet_d(200), TIMM, 64.7, 20.0, 256),
    "resnet50s": Entry(resnet_c(50, stem_width=128), TIMM, 25.7, 5.5),
    "resnet101s": Entry(resnet_c(101, stem_width=128), TIMM, 44.7, 9.2),
    "resnet152s": Entry(resnet_c(152, stem_width=128), TIMM, 60.3, 12.9),
    "resnet26t": Entry(resnet_t(26), TIMM, 16.0, 3.3, 256),
    "resnet50t": Entry(resnet_t(50), TIMM, 25.6, 4.3),
    "resnext50_32x4d": Entry(imagenet(50, groups=32, base_width=4), f"{XIE}, table 1", 25.0, 4.2),
    "resnext50_32x8d": Entry(imagenet(50, groups=32, base_width=8), f"after {XIE}"),
    "resnext50_64x4d": Entry(imagenet(50, groups=64, base_width=4), f"after {XIE}"),
    "resnext101_32x4d": Entry(imagenet(101, groups=32, base_width=4), f"{XIE}, figure 5", 44, 7.8),
    "resnext101_32x8d": Entry(imagenet(101, groups=32, base_width=8), TORCHVISION, 88.79, 16.41),
    "resnext101_64x4d": Entry(imagenet(101, groups=64, base_width=4), TORCHVISION, 83.46, 15.46),
    "wide_resnet50_2": Entry(
        imagenet(50, base_width=128), f"{ZAGORUYKO}; {TORCHVISION}", 68.9, 11.4
    ),
    "wide_resnet101_2": Entry(imagenet(101, base_width=128), TORCHVISION, 126.89, 22.75),
    "seresnet50": Entry(imagenet(50, attention="se"), f"{HU}, table 10; {TIMM}", 28.1, 4.1),
    "seresnet101": Entry(imagenet(101, attention="se"), TIMM, 49.3, 7.8),
    "seresnet152": Entry(imagenet(152, attention="se"), TIMM, 66.8, 11.6),
    "ecaresnet50": Entry(imagenet(50, attention="eca"), f"{WANG}"),
    "ecaresnet50d": Entry(resnet_d(50, attention="eca"), TIMM, 25.6, 4.4),
    "ecaresnet50t": Entry(resnet_t(50, attention="eca"), TIMM, 25.6, 4.3),
    "resnetblur50": Entry(imagenet(50, blur=True), f"{ZHANG}; {TIMM}", 25.6, 5.2),
    "resnetrs50": Entry(resnet_rs(50), f"{BELLO}; {TIMM}", 35.7, 2.3, 160),
    "resnetrs101": Entry(resnet_rs(101), f"{BELLO}; {TIMM}", 63.6, 6.0, 192),
    "resnetrs152": Entry(resnet_rs(152), f"{BELLO}; {TIMM}", 86.6, 15.6, 256),
    "resnetrs200": Entry(resnet_rs(200), f"{BELLO}; {TIMM}", 93.2, 20.2, 256),
    "resnetv2_50": Entry(resnet_v2(50), TIMM, 25.5, 4.1),
    "resnetv2_101": Entry(resnet_v2(101), TIMM, 44.5, 7.8),
    "resnetv2_152": Entry(resnet_v2(152), TIMM, 60.2, 11.5),
    "resnetv2_200": Entry(resnet_v2(200), HE_2016),
}

CATALOG: dict[str, Entry] = SMALL | LARGE

OPTIONS = {  # fields of an architecture that every row can be given, and keeps its name
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
            by_depth(depth, changes.get("block"), changes.get("stem") == "cifar"), **changes
        )
    if isinstance(name, Architecture):
        return replace(name, **changes)
    if name not in CATALOG:
        raise UsageError(f"no network {name!r}{nearest(str(name), CATALOG)}")
    return replace(CATALOG[name].architecture, **changes)


def name_of(architecture: Architecture) -> str | None:
    """The network's name in the catalog, whatever its `OPTIONS`; None if it has none.

    >>> name_of(select("resnet14", num_classes=3, stochastic_depth=0.1))
    'resnet14'
    """
    wanted = _without_options(architecture)
    return next(
        (n for n, row in CATALOG.items() if _without_options(row.architecture) == wanted), None
    )


def display_name(architecture: Architecture) -> str:
    """What screens, reports and files call a network: its name, or its blocks and its depth.

    >>> display_name(Architecture("residual", (1, 1), width=4))
    'residual, 6 layers'
    """
    return name_of(architecture) or f"{architecture.block}, {architecture.depth} layers"


def _without_options(architecture: Architecture) -> dict[str, Any]:
    return {k: v for k, v in architecture.to_dict().items() if k not in OPTIONS}


def nearest(word: str, words: Iterable[str]) -> str:
    """What a message says of the words that ``word`` may have meant."""
    return "; nearest: " + ", ".join(difflib.get_close_matches(word, list(words), n=3, cutoff=0))


def by_depth(depth: int, block: Block | None, small_images: bool) -> Architecture:
    """The network with so many layers.

    Raises:
        UsageError: if there is none; it names the nearest depths.
    """
    if isinstance(depth, int) and (found := candidates(depth, block, small_images)):
        return found[0]
    number = depth if isinstance(depth, int | float) else 0
    middle = int(min(DEEPEST, max(3, number)))
    around = range(middle - 40, middle + 40)
    known = (near for near in around if candidates(near, block, small_images))
    near = sorted(sorted(known, key=lambda near: abs(near - number))[:3])
    kind = f" of {block} blocks" if block else ""
    raise UsageError(f"no network{kind} has depth {depth!r}; nearest: {', '.join(map(str, near))}")


def candidates(depth: int, block: Block | None, small_images: bool) -> list[Architecture]:
    """The networks with so many layers, best known first."""
    rows = [SMALL[name] for name in (f"resnet{depth}", f"preact_resnet{depth}") if name in SMALL]
    found = [imagenet(depth)] if depth in IMAGENET and not small_images else []
    found += [row.architecture for row in rows]
    found += [option_a(depth)] if 2 < depth <= DEEPEST and depth % 6 == 2 else []
    found += [preact(depth)] if 2 < depth <= DEEPEST and depth % 9 == 2 else []
    wanted = block and str(block).endswith("bottleneck")
    return [network for network in found if wanted in (None, network.is_bottleneck)]
