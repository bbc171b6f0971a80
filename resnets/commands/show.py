"""``resnets show``: what a network looks like and what it costs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from resnets.addresses import AS_FILE, refuse_address
from resnets.commands import run
from resnets.commands.list import describe, figure, unusual
from resnets.commands.tables import Cell, print_table
from resnets.deployment.exported.reading import describe as read_any_description
from resnets.deployment.exported.reading import is_exported
from resnets.errors import ContentError, UsageError
from resnets.escaping import say_text
from resnets.files.reading import read_text
from resnets.format import byte_size, millions, plural
from resnets.json_text import to_json
from resnets.model_file import check_claims, is_model_file
from resnets.model_path import find_weights, names_model
from resnets.networks.catalog import CATALOG, Entry, display_name, name_of, nearest

if TYPE_CHECKING:
    from resnets.networks.architecture import Architecture
    from resnets.networks.profile import Part, Profile

_COLUMNS = ("part", "blocks", "output", "parameters", "multiply-adds", "field", "memory")
_NOTE = """
Multiply-adds: of convolutions and fully connected layers, for one image. Field: side of
what one output pixel sees along the longest path, in pixels of the image. Memory:
what training keeps of one image for the backward pass, in float32."""


def main(argv: list[str]) -> int:
    """Run ``resnets show`` with ``argv``."""
    return run(show, argv, config=(tyro.conf.FlagCreatePairsOff,))


def show(
    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NETWORK")],
    /,
    size: int | None = None,
    as_text: Annotated[bool, tyro.conf.arg(name="print")] = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Print a network's parts with their shapes and costs, beside the published figures.

    Args:
        network: its name (`resnets list` prints them all); a text file with a printed network:
            this project's, torchvision's or timm's, also inside a longer log; or MODEL: a model
            file, an exported file, the folder of a run, a network of the package by name, or a
            checkpoint that `resnets inspect` recognises.
        size: height and width of the images, in pixels; by default as published, or as the model
            sees them.
        as_text: print the network's modules, as `print(network)` does in Python.
        as_json: print all figures as JSON.
    """
    if as_text and as_json:
        raise UsageError("--print and --json: choose one")
    import torch

    from resnets.networks import build
    from resnets.networks.profile import profile

    entry, side = _find(network)
    if as_text:
        with torch.device("meta"):
            print(build(entry.architecture))
        return
    measured = profile(entry.architecture, side if size is None else size)
    name = display_name(entry.architecture)
    if as_json:
        file = {} if network in CATALOG else {"file": network}
        print(to_json(describe(name, entry) | file | _figures(measured), indent=2))
        return
    title = network if network == name else f"{network}: {name}"
    say_text(f"{title}: {_summary(entry.architecture)}\n")
    print_table(_COLUMNS, [*map(_part_row, measured.parts), _total_row(measured)])
    say_text(f"\n{_images(network)}{_published(entry)}\n{_NOTE}")


def _find(network: str) -> tuple[Entry, int]:
    """The network that a word means, and the side of its images in pixels.

    Raises:
        UsageError: if there is none; it names the nearest ones.
        ContentError: if it is a file with something else in it.
    """
    if network in CATALOG:
        return CATALOG[network], CATALOG[network].size
    refuse_address(network, AS_FILE)
    if is_exported(network) or names_model(network) or Path(network).is_dir():
        return _from_weights(find_weights(network))
    if "." not in network and not Path(network).is_file():
        raise UsageError(f"no network {network!r}{nearest(network, CATALOG)}")
    entry = _from_text(Path(network))
    return entry, entry.size


def _images(network: str) -> str:
    """How a model prepares images, in a line; empty for a network or a file that does not say."""
    is_model = network not in CATALOG and (is_exported(network) or names_model(network))
    file = find_weights(network) if is_model else None
    if file is None or not (is_exported(file) or is_model_file(file)):
        return ""
    return f"Images: {read_any_description(file).preprocessing.in_words()}.\n"


def _from_weights(file: Path) -> tuple[Entry, int]:
    """The network of a file of weights or an exported file, and the side of its images."""
    if is_exported(file) or is_model_file(file):
        about = read_any_description(file)
        entry = _with_published(check_claims(about, file), file)
        return entry, about.preprocessing.size
    from resnets.networks.checkpoints.foreign import read_checkpoint

    entry = _with_published(read_checkpoint(file).architecture, file)
    return entry, entry.size


def _from_text(path: Path) -> Entry:
    """The network whose printed text is in a file, with what was published of it."""
    from resnets.networks.printed.reading import read_printed

    try:
        architecture = read_printed(read_text(path, errors="replace"))
    except ContentError as error:
        raise ContentError(f"{path}, {error}") from None
    return _with_published(architecture, path)


def _with_published(architecture: "Architecture", file: Path) -> Entry:
    """An architecture with what was published of the network of its name, if it has one."""
    name = name_of(architecture)
    if name:
        return replace(CATALOG[name], architecture=architecture)
    return Entry(architecture, str(file), size=32 if architecture.is_for_small_images else 224)


def _summary(network: "Architecture") -> str:
    """One line: blocks, images, classes, and what is not as in most networks."""
    shape = f"{network.in_channels} channels in, {plural(network.num_classes, 'class')}"
    parts = f"{sum(network.depths)} {network.block} blocks", shape, unusual(network)
    return ", ".join(filter(None, parts))


def _part_row(part: "Part") -> tuple[Cell, ...]:
    """One line of the table."""
    return (
        part.name,
        part.blocks or "",
        "x".join(map(str, part.shape)),
        part.parameters,
        millions(part.multiply_adds),
        part.receptive_field,
        byte_size(part.activation_bytes),
    )


def _total_row(measured: "Profile") -> tuple[Cell, ...]:
    """The table's last line."""
    return (
        "total",
        sum(part.blocks for part in measured.parts),
        f"from {measured.size}x{measured.size}",
        measured.parameters,
        millions(measured.multiply_adds),
        "",
        byte_size(measured.activation_bytes),
    )


def _published(entry: Entry) -> str:
    """The published figures and where they stand."""
    figures = []
    if entry.parameters is not None:
        figures.append(f"{figure(entry.parameters)} million parameters")
    if entry.multiply_adds is not None:
        figures.append(
            f"{figure(entry.multiply_adds)} billion multiply-adds for {entry.size} x {entry.size}"
        )
    return f"Published ({entry.source}): {', '.join(figures) or 'no figures'}."


def _figures(measured: "Profile") -> dict[str, Any]:
    """What was measured, for JSON."""
    return {
        "size": measured.size,
        "parameters": measured.parameters,
        "multiply_adds": measured.multiply_adds,
        "activation_bytes": measured.activation_bytes,
        "parts": [asdict(part) for part in measured.parts],
    }
