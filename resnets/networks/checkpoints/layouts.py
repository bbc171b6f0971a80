"""How other projects name the weights: one table of renamings per project.

This project's names are torchvision's, with ``conv`` and ``bn`` in the stem for small images. A
renaming is a pair of templates; in them, ``{s}`` is a stage and ``{b}`` a block, both counted as
that project counts, ``{c}`` a block counted from the stage's second one on, and ``{p}`` is what
follows: ``weight``, ``bias``, ``running_mean`` ...
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from torch import Tensor

Weights = Mapping[str, Tensor]
_Rename = tuple[str, str]  # another project's template, this project's


@dataclass(frozen=True)
class Layout:
    """How one project names the weights of a residual network.

    Attributes:
        name: of the project.
        anchor: a name that every network in this layout has, and no other layout.
        renames: from its names to this project's; a name that no template fits is left over.
        first_stage: what it calls this project's ``layer1``.
        implied: choices of the `Architecture` that no weight shows, but whoever has these names
            has made.
        unused: names of layers that its networks have and do not use, as a regular expression.
        bare: convolutions of this project that have a norm, and there have none.
    """

    name: str
    anchor: str
    renames: tuple[_Rename, ...]
    first_stage: int = 1
    implied: tuple[tuple[str, str | bool], ...] = ()
    unused: str = ""
    bare: str = ""

    def ours(self, name: str) -> str | None:
        """Translate one of their names to this project's; None if it has none."""
        for pattern, template in _patterns(self.renames):
            match = pattern.fullmatch(name)
            if match:
                parts = match.groupdict()
                if "s" in parts:
                    parts["s"] = str(int(parts["s"]) - self.first_stage + 1)
                if "c" in parts:
                    parts["c"] = str(int(parts["c"]) + 1)
                return template.format(**parts)
        return None

    def theirs(self, name: str) -> str | None:
        """Translate one of this project's names to theirs; None if it has none."""
        for pattern, template in _patterns(tuple((ours, theirs) for theirs, ours in self.renames)):
            match = pattern.fullmatch(name)
            if match:
                parts = match.groupdict()
                if "s" in parts:
                    parts["s"] = str(int(parts["s"]) + self.first_stage - 1)
                if "c" in parts:
                    parts["c"] = str(int(parts["c"]) - 1)
                return template.format(**parts)
        return None


@cache
def _patterns(renames: tuple[_Rename, ...]) -> tuple[tuple[re.Pattern[str], str], ...]:
    kinds = {
        "s": r"(?P<s>\d+)",
        "b": r"(?P<b>\d+)",
        "c": r"(?P<c>\d+)",
        "i": r"(?P<i>\d+)",
        "p": r"(?P<p>\w+)",
    }
    return tuple(
        (
            re.compile(re.escape(theirs).replace(r"\{", "{").replace(r"\}", "}").format(**kinds)),
            ours,
        )
        for theirs, ours in renames
    )


_BLOCK = "layer{s}.{b}"
_PARTS = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
_EXTRAS = ("se.fc1", "se.fc2", "se.conv")


def _same(*names: str) -> tuple[_Rename, ...]:
    """Names that are this project's too."""
    return tuple((f"{name}.{{p}}", f"{name}.{{p}}") for name in names)


def _inside(block: str, parts: Mapping[str, str]) -> tuple[_Rename, ...]:
    """Renamings of the parts of a block."""
    return tuple(
        (f"{block}.{theirs}.{{p}}", f"{_BLOCK}.{ours}.{{p}}") for theirs, ours in parts.items()
    )


_PLAIN = {part: part for part in (*_PARTS, *_EXTRAS)}
_STEM = _same("conv1", "bn1", "conv1.{i}", "maxpool.{i}")
_OWN = (
    *_STEM,
    *_same("conv", "bn", "fc"),
    *_inside(_BLOCK, _PLAIN | {"downsample.{i}": "downsample.{i}"}),
)
_SHORTCUT = _inside(_BLOCK, _PLAIN | {"shortcut.{i}": "downsample.{i}"})
_LINEAR: _Rename = ("linear.{p}", "fc.{p}")

_RESNETS = Layout("resnets", "layer1.0.conv1.weight", _OWN)
TORCHVISION = Layout("torchvision", "layer1.0.conv1.weight", _OWN)
TIMM = Layout("timm", "layer1.0.conv1.weight", _OWN)


def _timm_v2(
    stem: Mapping[str, str], projection: str, implied: tuple[tuple[str, str | bool], ...] = ()
) -> Layout:
    """The names of timm's networks with pre-activation.

    Args:
        stem: its convolutions and norms, and what they are called here.
        projection: what a shortcut's convolution is called here.
        implied: see `Layout`.
    """
    return Layout(
        "timm",
        "stages.0.blocks.0.conv1.weight",
        (
            *((f"stem.{theirs}.{{p}}", f"{ours}.{{p}}") for theirs, ours in stem.items()),
            ("norm.{p}", "bn.{p}"),
            ("head.fc.{p}", "fc.{p}"),
            *_inside(
                "stages.{s}.blocks.{b}",
                {f"norm{n}": f"bn{n}" for n in (1, 2, 3)}
                | {f"conv{n}": f"conv{n}" for n in (1, 2, 3)}
                | {"downsample.conv": projection},
            ),
        ),
        first_stage=0,
        implied=implied,
    )


_DEEP = {
    "conv1": "conv1.0",
    "norm1": "conv1.1",
    "conv2": "conv1.3",
    "norm2": "conv1.4",
    "conv3": "conv1.6",
}
_RAW = (("activated_start", False),)
_BIT = (("stem", "padded"), ("weight_standardisation", True))
TIMM_V2 = _timm_v2({"conv": "conv1"}, "downsample.0", _RAW)
TIMM_V2_D = _timm_v2(_DEEP, "downsample.1", _RAW)  # a deep stem goes with pooled shortcuts
TIMM_BIT = _timm_v2({"conv": "conv1"}, "downsample.0", _RAW + _BIT)
_EMBEDDER, _ENCODER = "embedder.embedder", "encoder.stages.{s}.layers.{b}"
HUGGINGFACE = Layout(
    "huggingface",
    "encoder.stages.0.layers.0.layer.0.convolution.weight",
    (
        (f"{_EMBEDDER}.convolution.{{p}}", "conv1.{p}"),
        (f"{_EMBEDDER}.normalization.{{p}}", "bn1.{p}"),
        *_inside(
            _ENCODER,
            {f"layer.{n}.convolution": f"conv{n + 1}" for n in range(3)}
            | {f"layer.{n}.normalization": f"bn{n + 1}" for n in range(3)}
            | {"shortcut.convolution": "downsample.0", "shortcut.normalization": "downsample.1"},
        ),
    ),
    first_stage=0,
)
_AKAMASTER = Layout(
    "akamaster/pytorch_resnet_cifar10", "layer1.0.conv1.weight", (*_STEM, *_SHORTCUT, _LINEAR)
)
_KUANGLIU = Layout("kuangliu/pytorch-cifar", "layer1.0.conv1.weight", (*_STEM, *_SHORTCUT, _LINEAR))
_WEIAICUNZAI = Layout(
    "weiaicunzai/pytorch-cifar100",
    "conv2_x.0.residual_function.0.weight",
    (
        ("conv1.0.{p}", "conv1.{p}"),
        ("conv1.1.{p}", "bn1.{p}"),
        *_same("fc"),
        *_inside(
            "conv{s}_x.{b}",
            {f"residual_function.{3 * n}": f"conv{n + 1}" for n in range(3)}
            | {f"residual_function.{3 * n + 1}": f"bn{n + 1}" for n in range(3)}
            | {"shortcut.{i}": "downsample.{i}"},
        ),
    ),
    first_stage=2,
)
_AMARTYN = Layout(
    "a-martyn/resnet",
    "stack1.0.conv1.weight",
    (
        ("convIn.{p}", "conv.{p}"),
        ("bnIn.{p}", "bn.{p}"),
        ("fcOut.{p}", "fc.{p}"),
        *((f"stack1.{{b}}.{part}.{{p}}", f"layer1.{{b}}.{part}.{{p}}") for part in _PARTS[:4]),
        *((f"stack{{s}}a.{part}.{{p}}", f"layer{{s}}.0.{part}.{{p}}") for part in _PARTS[:4]),
        *(
            (f"stack{{s}}b.{{c}}.{part}.{{p}}", f"layer{{s}}.{{c}}.{part}.{{p}}")
            for part in _PARTS[:4]
        ),
    ),
    implied=(("shortcut", "padding_after"),),
)
_ETERESH = Layout(
    "eteresh/resnet20_cifar10",
    "stage_0.0.first_layer.weight",
    (
        ("stage_0_transformation_layer.{p}", "conv.{p}"),
        ("output.{p}", "fc.{p}"),
        *_inside(
            "stage_{s}.{b}",
            {
                "first_layer": "conv1",
                "first_batch_norm": "bn1",
                "second_layer": "conv2",
                "second_batch_norm": "bn2",
                "shortcut": "downsample.0",
            },
        ),
    ),
    first_stage=0,
    implied=(("stem", "linear"),),
    unused=r"stage_\d+\.\d+\.bn2\.\w+",
    bare=r"conv|layer\d+\.0\.downsample\.0",
)
_MM_STEM = {
    "0": "conv1.0",
    "1": "conv1.1",
    "3": "conv1.3",
    "4": "conv1.4",
    "6": "conv1.6",
    "7": "bn1",
}
_MMPRETRAIN = Layout(
    "mmpretrain",
    "layer1.0.conv1.weight",
    (
        *((f"stem.{theirs}.{{p}}", f"{ours}.{{p}}") for theirs, ours in _MM_STEM.items()),
        *((f"{_BLOCK}.se_layer.conv{n}.conv.{{p}}", f"{_BLOCK}.se.fc{n}.{{p}}") for n in (1, 2)),
        *_OWN,
    ),
)

GUESSED = Layout("unknown names", "", ())  # recognised by shapes and order

HEADS = ("fc", "head.fc", "classifier.1", "classifier", "linear")  # most likely first
_Sign = Callable[[set[str]], bool]
_MM_SE, _ECA = "layer1.0.se_layer.conv1.conv.weight", "layer1.0.se.conv.weight"
_SIGNS: tuple[tuple[Layout, _Sign], ...] = (  # the first that fits
    (HUGGINGFACE, lambda names: HUGGINGFACE.anchor in names),
    (
        TIMM_V2_D,
        lambda names: {TIMM_V2.anchor, "stem.conv1.weight", "norm.running_mean"} <= names,
    ),
    (TIMM_V2, lambda names: {TIMM_V2.anchor, "norm.running_mean"} <= names),
    (TIMM_BIT, lambda names: TIMM_V2.anchor in names),
    (_WEIAICUNZAI, lambda names: _WEIAICUNZAI.anchor in names),
    (_AMARTYN, lambda names: {_AMARTYN.anchor, "convIn.weight"} <= names),
    (_ETERESH, lambda names: _ETERESH.anchor in names),
    (_RESNETS, lambda names: {"conv.weight", _RESNETS.anchor} <= names),
    (_KUANGLIU, lambda names: {"linear.weight", "layer4.0.conv1.weight"} <= names),
    (_AKAMASTER, lambda names: {"linear.weight", _AKAMASTER.anchor} <= names),
    (_MMPRETRAIN, lambda names: bool({"stem.0.weight", "../head.fc.weight", _MM_SE} & names)),
    (TIMM, lambda names: bool({"conv1.0.weight", "layer1.0.se.fc1.weight", _ECA} & names)),
    (TORCHVISION, lambda names: TORCHVISION.anchor in names),
)
ANCHORS = tuple(dict.fromkeys(layout.anchor for layout, _ in _SIGNS))


def recognise(names: set[str]) -> Layout | None:
    """The layout that these names belong to; None if it is not known.

    Args:
        names: those inside the network; with ``../`` before them, those beside it.
    """
    return next((layout for layout, fits in _SIGNS if fits(names)), None)
