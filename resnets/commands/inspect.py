"""``resnets inspect``: whose checkpoint a file is, which network, and what is missing."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from resnets import model_path
from resnets.commands import run
from resnets.deployment import inspection
from resnets.deployment.inspection import InspectedExport, InspectedWeights
from resnets.escaping import say
from resnets.format import plural
from resnets.json_text import to_json

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
    facts = inspection.inspect(file)
    if as_json:
        print(to_json(facts.to_dict(), indent=2))
        return
    say(file)
    rows = _exported_rows(facts) if isinstance(facts, InspectedExport) else _rows(facts)
    for name, value in rows:
        say(f"  {name:10}  {value}")


def _exported_rows(facts: InspectedExport) -> Iterator[tuple[str, str]]:
    """What to print of an exported file."""
    yield "network", f"{facts.network}, {plural(facts.classes, 'class')}"
    yield "file of", f"{facts.format} ({facts.precision})"
    yield "inputs", f"{', '.join(facts.inputs)}: uint8 (B, H, W, {facts.in_channels})"
    yield "outputs", ", ".join(facts.outputs)
    yield "images", facts.preprocessing.in_words()
    yield from _assumed_rows(facts)
    yield "digest", facts.digest
    yield from _history_rows(facts)
    checked = facts.agreement
    if isinstance(checked, dict) and {"images", "source", "same_answer"} <= checked.keys():
        yield (
            "checked on",
            f"{plural(checked['images'], 'image')} (drawn from {checked['source']}): the same "
            f"class as PyTorch on {checked['same_answer']}",
        )


def _rows(facts: InspectedWeights) -> Iterator[tuple[str, str]]:
    """What to print of a file of weights: the main facts."""
    head = plural(facts.classes, "class") if facts.classes else "no classifier"
    after = f", after {facts.prefix!r}" if facts.prefix else ""
    after += ", guessed (`resnets convert --verify DATA` measures it)" if facts.guessed else ""
    if refused := set(facts.not_understood):
        what = f"{plural(len(refused), 'weight')} not understood (at the end), which may change"
        yield "refused", f"by convert and train --from: {what} what it computes"
    yield "network", facts.network or "no named one; its parts are below"
    yield "layout", f"{facts.layout}{after}"
    yield "block", f"{facts.block}, {' '.join(map(str, facts.depths))} a stage"
    yield "channels", " ".join(map(str, facts.channels))
    yield "stem", f"{facts.stem}, {facts.in_channels} image channels"
    yield "shortcut", facts.shortcut
    yield "head", head
    if facts.preprocessing:
        yield "images", facts.preprocessing.in_words()
    yield from _assumed_rows(facts)
    if facts.engine:
        yield "engine", facts.engine
    yield "parameters", f"{facts.parameters:,} ({facts.dtype})"
    yield "unsound", _some([f"{name} ({what})" for name, what in facts.unsound.items()])
    yield "digest", facts.digest
    yield from _history_rows(facts)
    yield "missing", _some(facts.missing)
    understood = [name for name in facts.left_over if name not in refused]
    if understood or not refused:
        yield "left over", _some(understood)
    if facts.training:
        yield "training", f"{len(facts.training):,} buffers of the optimizer and the like"
    for number, name in enumerate(facts.not_understood):  # many, so one a line
        yield "" if number else "unknown", name


def _assumed_rows(facts: InspectedExport | InspectedWeights) -> Iterator[tuple[str, str]]:
    """What was assumed when a checkpoint was converted, if anything."""
    if facts.assumed:
        names = ", ".join(facts.assumed)
        yield "assumed", f"{names}: the file that was converted does not tell them"


def _history_rows(facts: InspectedExport | InspectedWeights) -> Iterator[tuple[str, str]]:
    """What the network was trained on, and where the weights that it began with are from."""
    yield "trained on", facts.trained_on or "the file does not say"
    if isinstance(facts, InspectedWeights) and facts.converted_from:
        yield "converted", f"from {facts.converted_from}"
    for name, text in facts.origin.items():
        yield _ORIGIN.get(name, name), text


def _some(names: Sequence[str]) -> str:
    """All of the names, or that there is none."""
    return ", ".join(names) or "nothing"
