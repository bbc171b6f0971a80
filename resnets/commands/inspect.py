"""``resnets inspect``: whose checkpoint a file is, which network, and what is missing."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from resnets import model_file, model_path
from resnets.commands import run
from resnets.deployment.exported.reading import refuse_exported
from resnets.errors import ContentError
from resnets.escaping import escaped, say
from resnets.integrity import DIGEST, verify_file
from resnets.json_text import to_json
from resnets.networks.limits import unsound

if TYPE_CHECKING:
    from resnets.networks.checkpoints.foreign import Checkpoint

_SHOWN = 8  # names of missing or left-over weights in the table; --json has all of them


def main(argv: list[str]) -> int:
    """Run ``resnets inspect`` with ``argv``."""
    return run(inspect, argv, config=(tyro.conf.FlagCreatePairsOff,))


def inspect(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    /,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Tell whose checkpoint a file is and which network it holds, from its names and shapes.

    Args:
        model: .safetensors, .pt, .pth, .th, .bin or .ckpt, also packed with gzip or zip; the folder
            of a run; or a network of the package by name.
        as_json: print JSON, with every missing and left-over name.
    """
    from resnets.networks.checkpoints.foreign import read_checkpoint  # torch, after --help

    file = model_path.find_weights(model)
    refuse_exported(file, "inspect looks at its weights")
    facts = _describe(read_checkpoint(file)) | {
        "digest": _digest_of(file),
        "trained_on": _trained_on(file),
    }
    if as_json:
        print(to_json(facts, indent=2))
    else:
        _print_table(file, facts)


def _describe(checkpoint: "Checkpoint") -> dict[str, Any]:
    """The facts about a checkpoint, for JSON."""
    architecture = checkpoint.architecture
    trained = [v for n, v in checkpoint.weights.items() if not n.endswith(("_mean", "_var"))]
    kinds = Counter(str(v.dtype).removeprefix("torch.") for v in checkpoint.weights.values())
    return {
        "network": checkpoint.name,
        "layout": checkpoint.layout.name,
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
        "left_over": list(checkpoint.left_over),
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
    from resnets.data.membership import TrainedOn

    try:
        about = model_file.read_description(file)
        history = TrainedOn.from_dict(about.trained_on)
    except ContentError:  # of another format, or damaged
        return None
    if not history:
        return escaped(str(about.data.get("source", ""))) or None
    known = f"digests missing: {history.unknown}" if history.unknown else "digests in the file"
    return f"{history.in_words()} ({known})"


def _print_table(file: Path, facts: dict[str, Any]) -> None:
    """Print the main facts, one a line."""
    missing, left_over = facts["missing"], facts["left_over"]
    head = f"{facts['classes']} classes" if facts["classes"] else "no classifier"
    rows = {
        "network": facts["network"] or "no named one; its parts are below",
        "layout": facts["layout"] + (f", after {facts['prefix']!r}" if facts["prefix"] else ""),
        "block": f"{facts['block']}, {' '.join(map(str, facts['depths']))} a stage",
        "channels": " ".join(map(str, facts["channels"])),
        "stem": f"{facts['stem']}, {facts['in_channels']} image channels",
        "shortcut": facts["shortcut"],
        "head": head,
        "parameters": f"{facts['parameters']:,} ({facts['dtype']})",
        "unsound": _some([f"{name} ({what})" for name, what in facts["unsound"].items()]),
        "digest": facts["digest"],
        "trained on": facts["trained_on"] or "the file does not say",
        "missing": _some(missing),
        "left over": _some(left_over),
    }
    say(file)
    for name, value in rows.items():
        say(f"  {name:10}  {value}")


def _some(names: list[str]) -> str:
    """The first of some names, and how many there are."""
    more = f" and {len(names) - _SHOWN} more (see --json)" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) or "nothing"
