"""Foreign checkpoints: which project's names they use, and which network they hold.

A file's tensors are flattened to dotted names, wrappers included, so that a wrapper
(``state_dict``) and a prefix (``module.``) are the same thing: what stands before the names that
some `Layout` knows.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.errors import ContentError, GuessWarning, UsageError
from resnets.format import plural
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import name_of
from resnets.networks.checkpoints.biases import with_plain_norms, without_biases
from resnets.networks.checkpoints.guessing import guess
from resnets.networks.checkpoints.layouts import ANCHORS, GUESSED, HEADS, Layout, Weights, recognise
from resnets.networks.checkpoints.left_over import COUNTERS, LeftOver, sort_left_over
from resnets.networks.limits import refuse_unsound

if TYPE_CHECKING:
    from torch import Tensor

    from resnets.networks.resnet import ResNet

_Shape = tuple[int, ...]
_FIRST_SHORTCUT = "layer1.0.downsample."


def _architecture_of(
    shapes: Mapping[str, _Shape], implied: Mapping[str, Any], **changes: Any
) -> Architecture:
    """The architecture whose weights have these names and shapes.

    They leave some choices open: a bottleneck's stride is taken to be in its 3x3 convolution,
    shortcuts without weights to be option A, and blur or dropout to be absent.

    Args:
        shapes: by this project's names.
        implied: fields that whoever has such names has chosen.
        changes: fields of the `Architecture` that take precedence over what is inferred.

    Raises:
        ContentError: if no residual network has such weights.
    """
    try:
        choices = _stages(shapes) | _block(shapes) | _stem(shapes) | _classifier(shapes)
        if choices["stem_width"] == choices["width"]:
            choices["stem_width"] = None
        return Architecture(**choices | dict(implied) | changes)
    except KeyError as error:
        raise ContentError(f"no residual network: it has no {error.args[0]}") from None
    except (IndexError, ZeroDivisionError) as error:
        raise ContentError(f"no residual network: shapes that make no sense ({error})") from None
    except UsageError as error:
        if changes:
            raise
        raise ContentError(f"no residual network: {error}") from None


def _stages(shapes: Mapping[str, _Shape]) -> dict[str, Any]:
    """How many blocks each stage has."""
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        match = re.match(r"layer(\d{1,2})\.(\d{1,4})\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage in range(1, len(blocks) + 1):
        if blocks.get(stage) != set(range(len(blocks.get(stage, ())))):
            raise ContentError(f"no residual network: blocks of layer{stage} are missing")
    return {"depths": tuple(len(blocks[stage]) for stage in sorted(blocks))}


def _block(shapes: Mapping[str, _Shape]) -> dict[str, Any]:
    """The choices that the blocks' shapes show."""
    first = shapes["layer1.0.conv1.weight"]
    bottleneck = "layer1.0.conv3.weight" in shapes
    inner = first[0]
    width = shapes["layer1.0.conv3.weight"][0] // 4 if bottleneck else inner
    kind = "bottleneck" if bottleneck else "residual"
    norm = "batch" if "layer1.0.bn1.running_mean" in shapes else "group"
    choices = {"block": kind, "width": width, "norm": norm, "shortcut": _shortcut(shapes)}
    if _is_preact(shapes):
        choices["block"] = f"preact_{kind}"
    if bottleneck:
        groups = inner // shapes["layer1.0.conv2.weight"][1]
        choices |= {"groups": groups, "base_width": inner * 64 // (width * groups)}
    squeezes = [shape for name, shape in shapes.items() if name.endswith("se.fc1.weight")]
    if squeezes:
        widest = max(squeezes, key=lambda shape: shape[1])
        choices |= {"attention": "se", "reduction": widest[1] // widest[0]}
    elif "layer1.0.se.conv.weight" in shapes:
        choices["attention"] = "eca"
    return choices


def _is_preact(shapes: Mapping[str, _Shape]) -> bool:
    """Whether the network ends with a norm, as those do that activate first."""
    if "bn.weight" not in shapes:
        return False
    return "conv.weight" not in shapes or not _last_norm_is_the_stems(shapes)


def _last_norm_is_the_stems(shapes: Mapping[str, _Shape]) -> bool:
    """In networks for small images both are called ``bn``; a block's first norm tells them apart.

    It has the channels of the block's input if it comes first, and else of the block's inside.
    """
    for name, shape in shapes.items():
        norm = shapes.get(name.replace("conv1", "bn1"))
        if name.endswith(".conv1.weight") and norm and shape[0] != shape[1]:
            return norm[0] != shape[1]
    return True


def _shortcut(shapes: Mapping[str, _Shape]) -> str:
    """Which projection the shortcuts have."""
    projections = {
        name: shape
        for name, shape in shapes.items()
        if "downsample" in name and name.endswith("weight") and len(shape) == 4
    }
    if not projections:
        changes = "layer2.0.conv1.weight" in shapes
        return "padding" if changes else "projection"
    name, shape = next(iter(projections.items()))
    if name.endswith("downsample.1.weight"):
        return "pooled"
    if shape[-1] == 3:
        return "projection3x3"
    everywhere = any(name.split(".")[1] != "0" for name in projections)
    return "projection_everywhere" if everywhere else "projection"


def _stem(shapes: Mapping[str, _Shape]) -> dict[str, Any]:
    """The choices that the stem's shapes show."""
    if "conv.weight" in shapes:
        stem, first, last = "cifar", shapes["conv.weight"], shapes["conv.weight"]
    elif "conv1.0.weight" in shapes:
        first, last = shapes["conv1.0.weight"], shapes["conv1.6.weight"]
        stem = "tiered" if first[0] * 8 == last[0] * 3 else "deep"
        stem = "deep_strided" if "maxpool.0.weight" in shapes else stem
    else:
        stem, first, last = "imagenet", shapes["conv1.weight"], shapes["conv1.weight"]
    return {"stem": stem, "stem_width": last[0], "in_channels": first[1]}


def _classifier(shapes: Mapping[str, _Shape]) -> dict[str, Any]:
    classifier = shapes.get("fc.weight")
    return {"num_classes": classifier[0]} if classifier else {}


_PREFERRED = (  # of several networks in one file: averaged before trained, queries before keys
    "model_ema", "state_dict_ema", "ema_state_dict", "ema", "teacher", "encoder_q", "base_encoder",
)  # fmt: skip
_LAST = ("student", "encoder_k", "momentum_encoder", "optimizer", "discriminator")
_NAMED = 6  # weights that an error names


@dataclass(frozen=True)
class Checkpoint:
    """A foreign checkpoint, with the network that it holds.

    Attributes:
        layout: whose names it uses.
        prefix: what stands before them, wrappers included.
        architecture: of the network; its number of classes means something only if there is a head.
        weights: by this project's names.
        has_head: whether there is a classifier.
        missing: names that the network needs and the file lacks, the classifier's not counted.
        left_over: names in the file that are not the network's, and which of them matter.
        guessed: whether it was recognised only by shapes and their order.
    """

    layout: Layout
    prefix: str
    architecture: Architecture
    weights: "dict[str, Tensor]"
    has_head: bool
    missing: tuple[str, ...]
    left_over: LeftOver
    guessed: bool = False

    @property
    def name(self) -> str | None:
        """The network's name in the catalog, if it has one."""
        return name_of(self.architecture)

    def build(self, num_classes: int | None = None, *, ignore_left_over: bool = False) -> "ResNet":
        """The network with these weights, in evaluation mode.

        Args:
            num_classes: of a fresh classifier, if the file has none or one for another number.
            ignore_left_over: leave out weights that may change what the network computes and are
                not understood.

        Raises:
            ContentError: if weights are missing, or the classifier and ``num_classes`` too; or if
                others are not understood.
        """
        if self.left_over.unknown and not ignore_left_over:
            raise ContentError(_not_understood(self.left_over.unknown))
        if self.missing:
            raise ContentError(
                f"{plural(len(self.missing), 'weight')} missing, {self.missing[0]} first; "
                "the file holds only a part of the network"
            )
        fresh = num_classes is not None and num_classes != self.architecture.num_classes
        if not self.has_head and num_classes is None:
            raise ContentError("no classifier in it: give num_classes to put a fresh one in place")
        from resnets.networks.resnet import build

        network = build(self.architecture)
        network.load_state_dict(self._complete(network))
        if fresh and num_classes is not None:
            network.replace_head(num_classes)
        return network.eval()

    def _complete(self, network: "ResNet") -> "dict[str, Tensor]":
        """The weights, with what the network counts for itself."""
        own = network.state_dict()
        return own | {name: value for name, value in self.weights.items() if name in own}


def read_checkpoint(path: str | Path, **changes: Any) -> Checkpoint:
    """Recognise what a weight file holds. Formats are those of `weights_file.read_weights`.

    Args:
        path: the file.
        changes: fields of the `Architecture` that names and shapes leave open, such as
            ``strided_conv=1`` for weights trained as in the paper (v1).

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it holds no residual network.
    """
    from resnets.networks.checkpoints.weights_file import read_weights

    try:
        return _understand(read_weights(path), **changes)
    except ContentError as error:
        text = str(error)
        raise ContentError(text if str(path) in text else f"{path}: {text}") from None


def load_checkpoint(
    path: str | Path,
    *,
    num_classes: int | None = None,
    ignore_left_over: bool = False,
    **changes: Any,
) -> "ResNet":
    """The network of a foreign checkpoint, with its weights, in evaluation mode.

    Args:
        path: a file of torchvision's, timm's, Hugging Face's, MMPretrain's, this project's or one
            of three CIFAR collections' names, inside any wrapper and after any prefix.
        num_classes: of a fresh classifier, if the file has none or one for another number.
        ignore_left_over: leave out weights that may change what the network computes and are not
            understood, such as steps of a quantisation; without it such a file is refused.
        changes: fields of the `Architecture` that names and shapes leave open.

    Raises:
        OSError: if the file cannot be read.
        ContentError: if it is no such checkpoint, has no classifier and none is asked for, or its
            weights are not finite, or not all of them are understood.
    """
    return load_with_head(path, num_classes, ignore_left_over=ignore_left_over, **changes)[0]


def load_with_head(
    path: str | Path,
    num_classes: int | None = None,
    *,
    ignore_left_over: bool = False,
    **changes: Any,
) -> "tuple[ResNet, bool]":
    """The network as `load_checkpoint` gives it, and whether its classifier is a fresh one."""
    checkpoint = read_checkpoint(path, **changes)
    refuse_unsound(checkpoint.weights, path)
    if checkpoint.guessed:
        warnings.warn(f"{path}: {_what_was_guessed(checkpoint)}", GuessWarning, stacklevel=3)
    keeps_head = checkpoint.has_head and num_classes in (None, checkpoint.architecture.num_classes)
    try:
        return checkpoint.build(num_classes, ignore_left_over=ignore_left_over), not keeps_head
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None


def _what_was_guessed(checkpoint: Checkpoint) -> str:
    """The warning of a network whose names are unknown."""
    architecture = checkpoint.architecture
    open_choice = " (nothing shows which zeros, or none: --shortcut padding_after, none)"
    return (
        f"its names are unknown; guessed from the shapes and their order that it is "
        f"{checkpoint.name or 'a network'} of {architecture.block} blocks, "
        f"{' '.join(map(str, architecture.depths))} a stage, with the shortcut "
        f"{architecture.shortcut}{open_choice if architecture.shortcut == 'padding' else ''}: "
        "`resnets convert --verify DATA` measures it"
    )


def _not_understood(names: Sequence[str]) -> str:
    """The error where weights are left over that may change what a network computes."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"{len(names)} weights in it may change what the network computes, and are not understood: "
        f"{', '.join(names[:_NAMED])}{more} (`resnets inspect` lists all; `resnets convert "
        "--ignore-left-over`, or ignore_left_over=True, leaves them out)"
    )


def _understand(weights: Weights, **changes: Any) -> Checkpoint:
    """Recognise a network among named tensors. See `read_checkpoint`."""
    if not _prefixes(weights):
        return _guessed(weights, changes)
    prefix = _best_prefix(weights)
    inside = {name[len(prefix) :]: name for name in weights if name.startswith(prefix)}
    beside = _beside(weights, prefix)
    layout = recognise(set(inside) | {f"../{name}" for name in beside})
    if layout is None:
        raise ContentError("no residual network in it, or one whose names are unknown")
    renamed = {layout.ours(name): full for name, full in inside.items()}
    renamed.pop(None, None)
    renamed |= _head(inside, beside, renamed)
    names = _canonical_names({str(name): weights[full] for name, full in renamed.items()})
    sources = {names[str(name)]: full for name, full in renamed.items()}
    canonical = _with_matrix_head({name: weights[full] for name, full in sources.items()})
    canonical = with_plain_norms(canonical, layout.bare)
    shapes = {name: tuple(value.shape) for name, value in canonical.items()}
    architecture = _architecture_of(shapes, dict(layout.implied), **changes)
    needed = _needed_shapes(architecture)
    missing = [name for name in needed if name not in shapes and not name.startswith("fc.")]
    _check_shapes(shapes, needed)
    _refuse_whole_numbers({sources[name]: canonical[name] for name in needed if name in sources})
    complete = without_biases(canonical, architecture)
    has_head = {"fc.weight", "fc.bias"} <= shapes.keys()
    taken = {name for name in needed if has_head or not name.startswith("fc.")}
    used = {full for name, full in sources.items() if name in taken or name not in complete}
    return Checkpoint(
        layout=layout,
        prefix=prefix,
        architecture=architecture,
        weights={name: value for name, value in complete.items() if name in needed},
        has_head=has_head,
        missing=tuple(name for name in missing if not name.endswith(COUNTERS)),
        left_over=sort_left_over(
            (n for n in weights if n not in used and not re.fullmatch(layout.unused, n)),
            prefix,
            _prefixes(weights),
            None if has_head else {name[len(prefix) :].partition(".")[0] for name in used},
        ),
    )


def _guessed(weights: Weights, changes: Mapping[str, Any]) -> Checkpoint:
    """The network of which only shapes and order tell. See `guessing`."""
    training = sort_left_over(weights, "", (), None).training
    of_network = {name: value for name, value in weights.items() if name not in training}
    try:
        guess_of, sources = guess(of_network)
    except ContentError as error:
        raise ContentError(
            f"no residual network in it: none of its names is like layer1.0.conv1.weight, as "
            f"torchvision, timm and others call theirs ({error})"
        ) from None
    architecture = replace(guess_of, **changes)
    renamed = {ours: weights[full] for ours, full in sources.items()}
    _refuse_whole_numbers({full: weights[full] for full in sources.values()})
    complete = without_biases(renamed, architecture)
    needed = _needed_shapes(architecture)
    _check_shapes({name: tuple(value.shape) for name, value in complete.items()}, needed)
    lost = [sources[name] for name in complete if name not in needed]
    return Checkpoint(
        layout=GUESSED,
        prefix="",
        architecture=architecture,
        weights={name: value for name, value in complete.items() if name in needed},
        has_head=True,
        missing=(),
        left_over=LeftOver(unknown=tuple(lost), training=training),
        guessed=True,
    )


def _refuse_whole_numbers(weights: Weights) -> None:
    """Refuse weights of a quantised network: what one step of theirs is worth stands elsewhere.

    Raises:
        ContentError: some hold whole numbers, by which nothing but steps is counted.
    """
    for name, value in weights.items():
        if not (value.is_floating_point() or name.endswith(COUNTERS)):
            kind = str(value.dtype).removeprefix("torch.")
            raise ContentError(
                f"{name} holds whole numbers ({kind}): the network was quantised, and what it "
                "computes cannot be told from them; give its weights from before, in float32, "
                "float16 or bfloat16"
            )


def _best_prefix(names: Mapping[str, object]) -> str:
    """What stands before the network's names; of several networks, the one that people mean.

    >>> _best_prefix({"state_dict.module.encoder_q.layer1.0.conv1.weight": 0,
    ...              "state_dict.module.encoder_k.layer1.0.conv1.weight": 0})
    'state_dict.module.encoder_q.'
    """
    prefixes = _prefixes(names)
    if not prefixes:
        raise ContentError(
            "no residual network in it: none of its names is like layer1.0.conv1.weight, "
            "as torchvision, timm and others call theirs"
        )

    def rank(prefix: str) -> tuple[int, int]:
        words = prefix.split(".")
        preferred = min(
            (_PREFERRED.index(word) for word in words if word in _PREFERRED), default=99
        )
        return (1 if any(word in _LAST for word in words) else 0, preferred)

    return min(prefixes, key=rank)


def _prefixes(names: Mapping[str, object]) -> list[str]:
    """What stands before the names of each network, in the order of the file."""
    return [
        name.removesuffix(anchor)
        for name in names
        for anchor in ANCHORS
        if name == anchor or name.endswith(f".{anchor}")
    ]


def _needed_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all that the network stores."""
    import torch

    from resnets.networks.resnet import build

    try:
        with torch.device("meta"):
            return {n: tuple(v.shape) for n, v in build(architecture).state_dict().items()}
    except (ValueError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise ContentError(f"no residual network: sizes that do not fit ({error})") from None


def _beside(weights: Weights, prefix: str) -> dict[str, str]:
    """The names beside the network, where some projects keep the classifier."""
    outer = prefix.rstrip(".").rpartition(".")[0]
    outer = f"{outer}." if outer else ""
    if not prefix:
        return {}
    return {
        name[len(outer) :]: name
        for name in weights
        if name.startswith(outer) and not name.startswith(prefix)
    }


def _head(
    inside: Mapping[str, str], beside: Mapping[str, str], renamed: Mapping[str | None, str]
) -> Iterator[tuple[str, str]]:
    """The classifier's weight and bias, wherever they are."""
    if "fc.weight" in renamed:
        return
    for names in (inside, beside):
        for head in HEADS:
            if {f"{head}.weight", f"{head}.bias"} <= names.keys():
                yield from ((f"fc.{part}", names[f"{head}.{part}"]) for part in ("weight", "bias"))
                return


def _canonical_names(weights: "dict[str, Tensor]") -> dict[str, str]:
    """The name here of each weight, where some call stem or shortcut otherwise.

    Small stems are ``conv`` and ``bn``. MMPretrain leaves the pooling out of the first stage's
    shortcut, which shifts its names.
    """
    stem = weights.get("conv1.weight")
    small = stem is not None and stem.shape[-1] == 3
    pooled = any(name.endswith("downsample.2.weight") for name in weights)
    shifted = pooled and f"{_FIRST_SHORTCUT}0.weight" in weights
    renamed = {}
    for name in weights:
        ours = name
        if small and name.startswith(("conv1.", "bn1.")):
            ours = name.replace("1.", ".", 1)
        elif shifted and name.startswith(_FIRST_SHORTCUT):
            number, _, part = name.removeprefix(_FIRST_SHORTCUT).partition(".")
            ours = f"{_FIRST_SHORTCUT}{int(number) + 1}.{part}"
        renamed[name] = ours
    return renamed


def _with_matrix_head(weights: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The weights with the classifier as a matrix, where it is a 1x1 convolution."""
    classifier = weights.get("fc.weight")
    if classifier is None or classifier.ndim != 4:
        return weights
    return weights | {"fc.weight": classifier.flatten(1)}


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in shapes.items():
        if name in needed and needed[name] != shape:
            raise ContentError(
                f"no residual network of this family: {name} has the shape {shape}, where the "
                f"others call for {needed[name]}"
            )
