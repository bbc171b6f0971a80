"""``resnets list``: the networks that have a name, and published weights for them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any

import tyro

from resnets import shipped
from resnets.commands import run
from resnets.commands.tables import print_table
from resnets.errors import UsageError
from resnets.escaping import say_text
from resnets.format import NONE, byte_size, millions, percent
from resnets.headers import read_safetensors_header
from resnets.json_text import to_json
from resnets.model_file import read_description
from resnets.networks.architecture import Architecture
from resnets.networks.catalog import CATALOG, Entry, display_name, nearest
from resnets.pretrained.table import Published, chosen

_NOTE = """
Parameters (in millions) and multiply-adds (in billions, for one image of that size) are
as published; `resnets show NAME` measures them and says where they were published."""

_PUBLISHED_NOTE = """
* stands for the bare name of its network, as in `resnets train DATA --from resnet50`.
top-1 is the publisher's own figure for ImageNet-1k's validation images (of networks in the package,
which need no download, for CIFAR-10's test images); --json tells its source, and the rest.
Weights for non-commercial use only are listed with `--licence any`."""


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_LICENCE = "apache-2.0"  # of this package


def main(argv: Sequence[str]) -> int:
    """Run ``resnets list`` with ``argv``."""
    return run(list, argv, config=(tyro.conf.FlagCreatePairsOff,))


def list(  # noqa: A001  (it is what people type)
    words: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[WORD ...]")
    ] = (),
    /,
    pretrained: bool = False,
    network: tuple[str, ...] = (),
    licence: str | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Print the networks that have a name, or the weights that others have published for them.

    Args:
        words: only networks with all of these in their name, block, choices or source; with
            --pretrained, in their id.
        pretrained: print published weights, each with the id by which every command takes it.
        network: with --pretrained, only the weights of these networks.
        licence: with --pretrained, free for weights that may be used commercially (the default),
            any for all, or one licence by name, such as cc-by-nc-4.0.
        as_json: print all that is known about them as JSON.
    """
    if pretrained:
        _print_published(_published(words, network, licence or "free"), as_json)
        return
    if network or licence:
        raise UsageError("--network and --licence choose among weights: give --pretrained, too")
    rows = {name: entry for name, entry in CATALOG.items() if _matches(name, entry, words)}
    if not rows:
        raise UsageError(f"no network has {' and '.join(words)}{nearest(words[0], CATALOG)}")
    if as_json:
        print(to_json([describe(name, entry) for name, entry in rows.items()], indent=2))
        return
    columns = ("name", "blocks", "image", "parameters", "multiply-adds", "choices")
    print_table(columns, [_row(name, entry) for name, entry in rows.items()])
    say_text(_NOTE)
    say_text(f"\nTrained, in the package, for every command that takes a MODEL: {_trained()}.")


def _published(words: Sequence[str], networks: Sequence[str], licence: str) -> Sequence[Published]:
    """The published weights that are asked for.

    Raises:
        UsageError: there are none.
    """
    rows = chosen(networks, licence, [_of_package(name) for name in shipped.names()])
    matching = [row for row in rows if all(word.lower() in row.id.lower() for word in words)]
    if not matching:
        raise UsageError(
            f"no published weights with {' and '.join(words)} in their id"
            + nearest(words[0], [row.id for row in rows])
        )
    return matching


def _of_package(name: str) -> Published:
    """A trained network of the package as a row of the table."""
    file = shipped.shipped(name)
    about, shapes = read_description(file), read_safetensors_header(file).shapes
    seen, test = about.preprocessing, about.metrics["test"]["top1"]
    trained = [math.prod(shape) for key, shape in shapes.items() if not key.endswith(_STATISTICS)]
    return Published(
        id=name,
        network=display_name(Architecture.from_dict(about.architecture)),
        parameters=sum(trained),
        bytes=file.stat().st_size,
        train_size=seen.size,
        size=seen.size,
        resize=seen.resize,
        crop_mode=seen.crop_mode,
        interpolation=seen.interpolation,
        mean=seen.mean,
        std=seen.std,
        classes=len(about.class_names),
        top1=round(100 * test["count"] / test["total"], 2),
        source=f"{about.data['source']}'s test images",
        licence=_LICENCE,
        sha256="",
        recommended=False,
        url="",
    )


def _print_published(rows: Sequence[Published], as_json: bool) -> None:
    """Print published weights, a line each."""
    if as_json:
        print(to_json([asdict(row) for row in rows], indent=2))
        return
    columns = ("id", "network", "parameters", "size", "image", "crop", "top-1", "licence")
    print_table(columns, [_published_row(row) for row in rows])
    say_text(_PUBLISHED_NOTE)


def _published_row(row: Published) -> tuple[str, ...]:
    """One line of the table of published weights."""
    return (
        row.id + (" *" if row.recommended else ""),
        row.network,
        millions(row.parameters),
        byte_size(row.bytes),
        str(row.size),
        f"{row.size / row.resize:.2f} {row.crop_mode}, {row.interpolation}",
        NONE if row.top1 is None else percent(row.top1 / 100, 2),
        row.licence,
    )


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
