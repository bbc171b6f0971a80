"""``resnets list``: the networks that have a name."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any

import tyro

from resnets import shipped
from resnets.commands import run
from resnets.commands.tables import print_table
from resnets.errors import UsageError
from resnets.escaping import say_text
from resnets.format import percent
from resnets.json_text import to_json
from resnets.model_file import read_description
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import CATALOG, Entry, nearest

_NOTE = """
Parameters (in millions) and multiply-adds (in billions, for one image of that size) are
as published; `resnets show NAME` measures them and says where they were published."""


def main(argv: Sequence[str]) -> int:
    """Run ``resnets list`` with ``argv``."""
    return run(list, argv, config=(tyro.conf.FlagCreatePairsOff,))


def list(  # noqa: A001  (it is what people type)
    words: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WORD ...]")
    ] = (),
    /,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Print the networks that have a name.

    Args:
        words: only networks with all of these in their name, block, choices or source.
        as_json: print all that is known about them as JSON.
    """
    chosen = {name: entry for name, entry in CATALOG.items() if _matches(name, entry, words)}
    if not chosen:
        raise UsageError(f"no network has {' and '.join(words)}{nearest(words[0], CATALOG)}")
    if as_json:
        print(to_json([describe(name, entry) for name, entry in chosen.items()], indent=2))
        return
    columns = ("name", "blocks", "image", "parameters", "multiply-adds", "choices")
    print_table(columns, [_row(name, entry) for name, entry in chosen.items()])
    say_text(_NOTE)
    say_text(f"\nTrained, in the package, for every command that takes a MODEL: {_trained()}.")


def _trained() -> str:
    """The trained networks of the package, with their data and test accuracy."""
    descriptions = []
    for name in shipped.names():
        about = read_description(shipped.shipped(name))
        test = about.metrics["test"]["top1"]
        descriptions.append(
            f"{name} ({about.data['source']}, {percent(test['count'] / test['total'], 2)})"
        )
    return ", ".join(descriptions)


def _matches(name: str, entry: Entry, words: tuple[str, ...]) -> bool:
    """Whether every word occurs in the name, block, choices or source."""
    network = entry.architecture
    text = " ".join((name, network.block, unusual(network), entry.source)).lower()
    return all(word.lower() in text for word in words)


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    """One line of the table."""
    network = entry.architecture
    return (
        name,
        " ".join(map(str, network.depths)),
        str(entry.size),
        figure(entry.parameters),
        figure(entry.multiply_adds),
        ", ".join(filter(None, [network.block, unusual(network)])),
    )


def unusual(network: Architecture) -> str:
    """The fields of an architecture that are not as in most networks, with their values."""
    shown = ("block", "depths", "num_classes", "in_channels")
    return ", ".join(
        f"{field.name} {getattr(network, field.name)}"
        for field in fields(network)
        if field.name not in shown and getattr(network, field.name) != field.default
    )


def figure(published: float | None) -> str:
    """A published number as it was printed, or a dash."""
    return "–" if published is None else str(published)


def describe(name: str, entry: Entry) -> dict[str, Any]:
    """Everything known of a network, for JSON."""
    return {
        "name": name,
        "source": entry.source,
        "parameters_millions": entry.parameters,
        "multiply_adds_billions": entry.multiply_adds,
        "image_size": entry.size,
        "architecture": entry.architecture.to_dict(),
    }
