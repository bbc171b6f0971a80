"""What a file of weights, or an exported one, holds: by names and shapes, nothing is run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets import model_file
from resnets.deployment.exported.reading import is_exported
from resnets.errors import ContentError
from resnets.escaping import escaped
from resnets.format import plural
from resnets.images import Preprocessing
from resnets.integrity import DIGEST, verify_file
from resnets.model_file import CONVERTED_FROM
from resnets.networks.limits import unsound

if TYPE_CHECKING:
    from resnets.model_file import Description
    from resnets.networks.checkpoints.foreign import Checkpoint

_FORMATS = {".onnx": "ONNX", ".xml": "OpenVINO", ".pt2": "torch.export"}


class _Facts:
    """What a file holds, as fields of a dataclass."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, as `resnets inspect --json` prints them."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return {name: _plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, repr=False)
class InspectedWeights(_Facts):
    """What a file of weights holds.

    Attributes:
        network: its name; None if no named one is like it.
        layout: whose names the weights have.
        guessed: whether the network was recognised by the shapes of the weights and their order.
        prefix: what stands before each name, as "module."; empty if nothing does.
        block: the kind of its blocks, such as "bottleneck".
        depths: number of blocks of each stage.
        channels: number of channels that each stage gives.
        stem: the kind of its first layers, such as "cifar".
        shortcut: the kind of its shortcuts, such as "projection".
        classes: number of logits; None without a classifier.
        in_channels: number of channels of an image.
        parameters: number of trained weights.
        dtype: type of most weights, such as "float32".
        unsound: what is wrong with weights, by name, such as NaN.
        missing: weights of the network that the file lacks.
        left_over: weights of the file that are not the network's.
        not_understood: those of them that may change what it computes.
        training: what belongs to a training, such as the buffers of an optimizer.
        architecture: of the network, as a model file has it.
        digest: whether the file is as it was written, as far as it carries a digest.
        trained_on: the images of its training; None if the file does not say.
        origin: where the weights that it began with were published; empty if they were not.
        preprocessing: of the images; None if the file does not say.
        engine: what computes a model file where nothing else is asked for; None of others.
        converted_from: the file whose weights `resnets convert` wrote; None of others.
        assumed: what of the preprocessing and the class names was assumed then.
    """

    network: str | None
    layout: str
    guessed: bool
    prefix: str
    block: str
    depths: tuple[int, ...]
    channels: tuple[int, ...]
    stem: str
    shortcut: str
    classes: int | None
    in_channels: int
    parameters: int
    dtype: str
    unsound: Mapping[str, str]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    not_understood: tuple[str, ...]
    training: tuple[str, ...]
    architecture: Mapping[str, Any]
    digest: str
    trained_on: str | None
    origin: Mapping[str, str]
    preprocessing: Preprocessing | None
    engine: str | None
    converted_from: str | None = None
    assumed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        head = plural(self.classes, "class") if self.classes else "no classifier"
        return f"<InspectedWeights: {self.network or 'no named network'}, {head}>"


@dataclass(frozen=True, repr=False)
class InspectedExport(_Facts):
    """What an exported file holds.

    Attributes:
        network: its name, or what it is like.
        format: "ONNX", "OpenVINO" or "torch.export".
        precision: "float32", "float16" or "int8".
        inputs: the names of what goes in.
        outputs: the names of what comes out.
        classes: number of them.
        in_channels: number of channels of an image.
        size: side in pixels of the square that the network sees.
        preprocessing: of the images.
        agreement: on which images it was compared with PyTorch, and how they agreed; None if the
            file does not say.
        digest: whether the file is as it was written, as far as it carries a digest.
        trained_on: the images of its training; None if the file does not say.
        origin: where the weights that it began with were published; empty if they were not.
        assumed: what of the preprocessing and the class names `resnets convert` assumed.
    """

    network: str
    format: str
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    classes: int
    in_channels: int
    size: int
    preprocessing: Preprocessing
    agreement: Mapping[str, Any] | None
    digest: str
    trained_on: str | None
    origin: Mapping[str, str]
    assumed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<InspectedExport: {self.format}, {plural(self.classes, 'class')}>"


def inspect(file: Path) -> InspectedWeights | InspectedExport:
    """What a file holds: an exported one by its ending, else a file of weights.

    Raises:
        ContentError: it is neither, or is damaged.
    """
    return _inspect_export(file) if is_exported(file) else _inspect_weights(file)


def _plain(value: Any) -> Any:
    if isinstance(value, Preprocessing):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _inspect_weights(file: Path) -> InspectedWeights:
    """What a file of weights holds."""
    from resnets.networks.checkpoints.foreign import read_checkpoint  # torch, after --help

    about = _description_of(file)
    return InspectedWeights(
        **_facts_of(read_checkpoint(file)),
        digest=_digest_of(file),
        trained_on=_history_of(about) if about else None,
        origin=_origin_of(about) if about else {},
        preprocessing=about.preprocessing if about else None,
        engine=_engine_of(file) if about else None,
        converted_from=escaped(str(about.data.get(CONVERTED_FROM, ""))) or None if about else None,
        assumed=about.assumed if about else (),
    )


def _facts_of(checkpoint: "Checkpoint") -> dict[str, Any]:
    """What a checkpoint's names and shapes tell."""
    architecture, left_over = checkpoint.architecture, checkpoint.left_over
    trained = [v for n, v in checkpoint.weights.items() if not n.endswith(("_mean", "_var"))]
    kinds = Counter(str(v.dtype).removeprefix("torch.") for v in checkpoint.weights.values())
    return {
        "network": checkpoint.name,
        "layout": checkpoint.layout.name,
        "guessed": checkpoint.guessed,
        "prefix": checkpoint.prefix,
        "block": architecture.block,
        "depths": tuple(architecture.depths),
        "channels": tuple(architecture.channels),
        "stem": architecture.stem,
        "shortcut": architecture.shortcut,
        "classes": architecture.num_classes if checkpoint.has_head else None,
        "in_channels": architecture.in_channels,
        "parameters": sum(v.numel() for v in trained if v.is_floating_point()),
        "dtype": kinds.most_common(1)[0][0],
        "unsound": unsound(checkpoint.weights),
        "missing": tuple(checkpoint.missing),
        "left_over": (*left_over.unknown, *left_over.harmless),
        "not_understood": tuple(left_over.unknown),
        "training": tuple(left_over.training),
        "architecture": architecture.to_dict(),
    }


def _inspect_export(file: Path) -> InspectedExport:
    """What an exported file holds; no runtime opens it."""
    from resnets.deployment.exported.interface import read_interface
    from resnets.deployment.exported.reading import description_from, precision_of, report_of
    from resnets.networks.architecture import Architecture
    from resnets.networks.catalog import display_name

    interface = read_interface(file)
    about = description_from(interface.header, str(file))
    return InspectedExport(
        network=display_name(Architecture.from_dict(about.architecture)),
        format=_FORMATS[file.suffix.lower()],
        precision=precision_of(interface.header),
        inputs=tuple(interface.inputs),
        outputs=tuple(interface.outputs),
        classes=len(about.class_names),
        in_channels=about.preprocessing.channels,
        size=about.preprocessing.size,
        preprocessing=about.preprocessing,
        agreement=report_of(interface.header).get("agreement"),
        digest="matches" if DIGEST in interface.header else "none in it",
        trained_on=_history_of(about),
        origin=_origin_of(about),
        assumed=about.assumed,
    )


def _engine_of(file: Path) -> str:
    """What computes a model file where nothing else is asked for."""
    from resnets.deployment.engines.opening import own_export, why_torch

    export = own_export(file)
    return why_torch(file) if export is None else f"onnxruntime or openvino, by {export}"


def _description_of(file: Path) -> "Description | None":
    """What a model file says; None of another file."""
    try:
        return model_file.read_description(file)
    except ContentError:  # of another format, or damaged
        return None


def _digest_of(file: Path) -> str:
    """Whether a file is as it was written, as far as it carries a digest."""
    try:
        digest = model_file.read_header(file).get(DIGEST)
    except ContentError:  # of another format
        digest = None
    if digest is None:
        return "none in it"
    try:
        verify_file(file, digest)
    except ContentError:
        return "does not match: the file is damaged"
    return "matches"


def _history_of(about: "Description") -> str | None:
    """The images that a network was trained on, by its description; None if it does not say."""
    from resnets.data.membership import TrainedOn

    try:
        history = TrainedOn.from_dict(about.trained_on)
    except ContentError:
        return None
    if not history:
        return escaped(str(about.data.get("source", ""))) or None
    digests = f"digests missing: {history.unknown}" if history.unknown else "digests in the file"
    return f"{history.in_words()} ({digests})"


def _origin_of(about: "Description") -> dict[str, str]:
    """Where the weights that a network began with were published; empty if they were not."""
    from resnets.data.membership import TrainedOn

    try:
        return dict(TrainedOn.from_dict(about.trained_on).origin)
    except ContentError:
        return {}
