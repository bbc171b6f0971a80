"""``resnets show``: what a network looks like and what it costs."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from resnets.commands import run
from resnets.commands.list import describe, figure, unusual
from resnets.commands.tables import Cell, print_table
from resnets.errors import ContentError, UsageError
from resnets.escaping import say_text
from resnets.files import read_text
from resnets.json_text import to_json
from resnets.networks.catalog import CATALOG, Entry, name_of, nearest

if TYPE_CHECKING:
    from resnets.networks.architecture import Architecture
    from resnets.networks.profile import Part, Profile

COLUMNS = ("part", "blocks", "output", "parameters", "multiply-adds", "field", "memory")
NOTE = """
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
        network: its name (`resnets list` prints them all), or a text file with a printed network:
            this project's, torchvision's or timm's, also inside a longer log.
        size: height and width of the images, in pixels; as published by default.
        as_text: print the network's modules, as `print(network)` does in Python.
        as_json: print all figures as JSON.
    """
    import torch

    from resnets.networks import build
    from resnets.networks.profile import profile

    entry = find(network)
    if as_text:
        with torch.device("meta"):
            print(build(entry.architecture))
        return
    measured = profile(entry.architecture, entry.size if size is None else size)
    if as_json:
        print(to_json(describe(network, entry) | figures(measured), indent=2))
        return
    say_text(f"{network}: {summary(entry.architecture)}\n")
    print_table(COLUMNS, [*map(part_row, measured.parts), total_row(measured)])
    say_text(f"\n{published(entry)}\n{NOTE}")


def find(network: str) -> Entry:
    """The network that a person means.

    Raises:
        UsageError: if there is none; it names the nearest ones.
        ContentError: if it is a file with something else in it; it names the line.
    """
    if network not in CATALOG and ("." in network or Path(network).is_file()):
        return from_file(Path(network))
    if network not in CATALOG:
        raise UsageError(f"no network {network!r}{nearest(network, CATALOG)}")
    return CATALOG[network]


def from_file(path: Path) -> Entry:
    """The network whose printed text is in a file, with what was published of it."""
    from resnets.networks.printed.reading import read_printed

    try:
        architecture = read_printed(read_text(path, errors="replace"))
    except ContentError as error:
        raise ContentError(f"{path}, {error}") from None
    name = name_of(architecture)
    small = Entry(architecture, str(path), size=32 if architecture.stem == "cifar" else 224)
    return replace(CATALOG[name], architecture=architecture) if name else small


def summary(network: "Architecture") -> str:
    """One line: blocks, images, classes, and what is not as in most networks."""
    shape = f"{network.in_channels} channels in, {network.num_classes} classes"
    parts = f"{sum(network.depths)} {network.block} blocks", shape, unusual(network)
    return ", ".join(filter(None, parts))


def part_row(part: "Part") -> tuple[Cell, ...]:
    """One line of the table."""
    return (
        part.name,
        part.blocks or "",
        "x".join(map(str, part.shape)),
        part.parameters,
        millions(part.multiply_adds),
        part.receptive_field,
        mebibytes(part.activation_bytes),
    )


def total_row(measured: "Profile") -> tuple[Cell, ...]:
    """The table's last line."""
    return (
        "total",
        sum(part.blocks for part in measured.parts),
        f"from {measured.size}x{measured.size}",
        measured.parameters,
        millions(measured.multiply_adds),
        "",
        mebibytes(measured.activation_bytes),
    )


def millions(number: int) -> str:
    """A number in millions.

    >>> millions(1814073344)
    '1,814.1 M'
    """
    return f"{number / 1e6:,.1f} M"


def mebibytes(size: int) -> str:
    """Bytes in units of 2**20.

    >>> mebibytes(3 * 2**20)
    '3.0 MiB'
    """
    return f"{size / 2**20:,.1f} MiB"


def published(entry: Entry) -> str:
    """The published figures and where they stand."""
    found = []
    if entry.parameters is not None:
        found.append(f"{figure(entry.parameters)} million parameters")
    if entry.multiply_adds is not None:
        found.append(
            f"{figure(entry.multiply_adds)} billion multiply-adds for {entry.size} x {entry.size}"
        )
    return f"Published ({entry.source}): {', '.join(found) or 'no figures'}."


def figures(measured: "Profile") -> dict[str, Any]:
    """What was measured, for JSON."""
    return {
        "size": measured.size,
        "parameters": measured.parameters,
        "multiply_adds": measured.multiply_adds,
        "activation_bytes": measured.activation_bytes,
        "parts": [asdict(part) for part in measured.parts],
    }
