"""``resnets inspect``: whose checkpoint a file is, which network, and what is missing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from resnets import model_file, model_path
from resnets.commands import run
from resnets.deployment.exported.reading import is_exported
from resnets.errors import ContentError
from resnets.escaping import escaped, say
from resnets.format import plural
from resnets.images import Preprocessing
from resnets.integrity import DIGEST, verify_file
from resnets.json_text import to_json
from resnets.networks.limits import unsound

if TYPE_CHECKING:
    from resnets.model_file import Description
    from resnets.networks.checkpoints.foreign import Checkpoint

_FORMATS = {".onnx": "ONNX", ".xml": "OpenVINO", ".pt2": "torch.export"}
_ORIGIN = {"id": "published", "url": "from", "top1": "top-1", "top1_source": "top-1 from"}


def main(argv: list[str]) -> int:
    """Run ``resnets inspect`` with ``argv``."""
    return run(inspect, argv, config=(tyro.conf.FlagCreatePairsOff,))


def inspect(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    /,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Tell whose checkpoint a file is and which network it holds, from its names and shapes.

    For an exported file, it prints the inputs and outputs, and what the file was checked on.

    Args:
        model: .safetensors, .pt, .pth, .th, .bin or .ckpt, also packed with gzip or zip; .onnx,
            .xml or .pt2 as `resnets export` writes them; the folder of a run; or a network of the
            package by name.
        as_json: print JSON, with every missing and left-over name.
    """
    file = model_path.find_weights(model)
    facts = _describe_exported(file) if is_exported(file) else _describe_weights(file)
    if as_json:
        print(to_json(facts, indent=2))
        return
    say(file)
    for name, value in (_exported_rows if is_exported(file) else _rows)(facts):
        say(f"  {name:10}  {value}")


def _describe_weights(file: Path) -> dict[str, Any]:
    """The facts about a file of weights, for JSON."""
    from resnets.networks.checkpoints.foreign import read_checkpoint  # torch, after --help

    return _describe(read_checkpoint(file)) | {
        "digest": _digest_of(file),
        "trained_on": _trained_on(file),
        "origin": _origin(file),
        "preprocessing": _preprocessing_of(file),
        "engine": _engine_of(file),
    }


def _engine_of(file: Path) -> str | None:
    """What computes a model file where nothing else is asked for; None of other files."""
    from resnets.deployment.engines.opening import own_export, why_torch

    if _preprocessing_of(file) is None:
        return None
    export = own_export(file)
    return why_torch(file) if export is None else f"onnxruntime or openvino, by {export}"


def _preprocessing_of(file: Path) -> dict[str, Any] | None:
    """How images are prepared, as a model file says; None if the file does not say."""
    try:
        return model_file.read_description(file).preprocessing.to_dict()
    except ContentError:  # of another format, or damaged
        return None


def _describe_exported(file: Path) -> dict[str, Any]:
    """The facts about an exported file, for JSON; no runtime opens it."""
    from resnets.data.membership import TrainedOn
    from resnets.deployment.exported.interface import read_interface
    from resnets.deployment.exported.reading import description_from, precision_of, report_of
    from resnets.networks.architecture import Architecture
    from resnets.networks.catalog import display_name

    interface = read_interface(file)
    about = description_from(interface.header, str(file))
    return {
        "network": display_name(Architecture.from_dict(about.architecture)),
        "format": _FORMATS[file.suffix.lower()],
        "precision": precision_of(interface.header),
        "inputs": list(interface.inputs),
        "outputs": list(interface.outputs),
        "classes": len(about.class_names),
        "in_channels": about.preprocessing.channels,
        "size": about.preprocessing.size,
        "preprocessing": about.preprocessing.to_dict(),
        "agreement": report_of(interface.header).get("agreement"),
        "digest": "matches" if DIGEST in interface.header else "none in it",
        "trained_on": _history_of(about),
        "origin": dict(TrainedOn.from_dict(about.trained_on).origin),
    }


def _describe(checkpoint: "Checkpoint") -> dict[str, Any]:
    """The facts about a checkpoint, for JSON."""
    architecture = checkpoint.architecture
    trained = [v for n, v in checkpoint.weights.items() if not n.endswith(("_mean", "_var"))]
    kinds = Counter(str(v.dtype).removeprefix("torch.") for v in checkpoint.weights.values())
    return {
        "network": checkpoint.name,
        "layout": checkpoint.layout.name,
        "guessed": checkpoint.guessed,
        "prefix": checkpoint.prefix,
        "block": architecture.block,
        "depths": list(architecture.depths),
        "channels": list(architecture.channels),
        "stem": architecture.stem,
        "shortcut": architecture.shortcut,
        "classes": architecture.num_classes if checkpoint.has_head else None,
        "in_channels": architecture.in_channels,
        "parameters": sum(v.numel() for v in trained if v.is_floating_point()),
        "dtype": kinds.most_common(1)[0][0],
        "unsound": unsound(checkpoint.weights),
        "missing": list(checkpoint.missing),
        "left_over": [*checkpoint.left_over.unknown, *checkpoint.left_over.harmless],
        "not_understood": list(checkpoint.left_over.unknown),
        "training": list(checkpoint.left_over.training),
        "architecture": architecture.to_dict(),
    }


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


def _trained_on(file: Path) -> str | None:
    """What a model file says about the images that its network was trained on; None if nothing."""
    try:
        return _history_of(model_file.read_description(file))
    except ContentError:  # of another format, or damaged
        return None


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


def _origin(file: Path) -> dict[str, str]:
    """Where the weights that a model file began with were published; empty if nobody did."""
    from resnets.data.membership import TrainedOn

    try:
        return dict(TrainedOn.from_dict(model_file.read_description(file).trained_on).origin)
    except ContentError:  # of another format, or damaged
        return {}


def _exported_rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What to print of an exported file."""
    yield "network", f"{facts['network']}, {plural(facts['classes'], 'class')}"
    yield "file of", f"{facts['format']} ({facts['precision']})"
    yield "inputs", f"{', '.join(facts['inputs'])}: uint8 (B, H, W, {facts['in_channels']})"
    yield "outputs", ", ".join(facts["outputs"])
    yield "images", Preprocessing.from_dict(facts["preprocessing"]).in_words()
    yield "digest", facts["digest"]
    yield "trained on", facts["trained_on"] or "the file does not say"
    for name, text in facts["origin"].items():
        yield _ORIGIN.get(name, name), text
    checked = facts["agreement"]
    if isinstance(checked, dict) and {"images", "source", "same_answer"} <= checked.keys():
        yield (
            "checked on",
            f"{plural(checked['images'], 'image')} ({checked['source']}): the same class as "
            "PyTorch on "
            f"{checked['same_answer']}",
        )


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What to print of a file of weights: the main facts."""
    head = plural(facts["classes"], "class") if facts["classes"] else "no classifier"
    after = f", after {facts['prefix']!r}" if facts["prefix"] else ""
    after += ", guessed (`resnets convert --verify DATA` measures it)" if facts["guessed"] else ""
    unsound_weights = [f"{name} ({what})" for name, what in facts["unsound"].items()]
    if refused := set(facts["not_understood"]):
        what = f"{plural(len(refused), 'weight')} (at the end) that may change what it computes"
        yield "refused", f"not understood: {what}"
    yield "network", facts["network"] or "no named one; its parts are below"
    yield "layout", f"{facts['layout']}{after}"
    yield "block", f"{facts['block']}, {' '.join(map(str, facts['depths']))} a stage"
    yield "channels", " ".join(map(str, facts["channels"]))
    yield "stem", f"{facts['stem']}, {facts['in_channels']} image channels"
    yield "shortcut", facts["shortcut"]
    yield "head", head
    if facts["preprocessing"]:
        yield "images", Preprocessing.from_dict(facts["preprocessing"]).in_words()
    if facts["engine"]:
        yield "engine", facts["engine"]
    yield "parameters", f"{facts['parameters']:,} ({facts['dtype']})"
    yield "unsound", _some(unsound_weights)
    yield "digest", facts["digest"]
    yield "trained on", facts["trained_on"] or "the file does not say"
    for name, text in facts["origin"].items():
        yield _ORIGIN.get(name, name), text
    yield "missing", _some(facts["missing"])
    yield "left over", _some([name for name in facts["left_over"] if name not in refused])
    if refused:
        yield "unknown", _some(facts["not_understood"])
    if facts["training"]:
        yield "training", f"{len(facts['training']):,} buffers of the optimizer and the like"


def _some(names: list[str]) -> str:
    """All of the names, or that there is none."""
    return ", ".join(names) or "nothing"
