"""The table of published networks, which `results/pretrained_table.py` makes. Imports no torch."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from resnets.errors import UsageError
from resnets.files.reading import read_text
from resnets.images.preprocessing import CropMode, Interpolation
from resnets.networks.catalog import nearest

TABLE = Path(__file__).parent / "table.csv"
USUAL_START = "resnet18"  # whose weights photos start from where no network is named
_FROM_SCRATCH = "resnet18d"  # that a recipe takes for photos where no network is named
_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial")


@dataclass(frozen=True)
class Published:
    """Weights that somebody has published for a network of the catalog.

    Attributes:
        id: by which they are downloaded, such as timm/resnet50.a1_in1k.
        network: its name in the catalog.
        parameters: their number.
        bytes: of all weights and statistics, as stored.
        train_size: side of the training images, in pixels.
        size: side of the images that the network is to see, in pixels.
        resize: side of the resized image, out of which those are cropped, in pixels.
        crop_mode: center (the shorter side is `resize`), squash (both are) or border (the longer).
        interpolation: bilinear or bicubic, with antialiasing, as Pillow computes them.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
        classes: number of logits.
        top1: published accuracy on ImageNet-1k's validation images at that size, in per cent; None
            if none is published.
        source: of the accuracy.
        licence: of the weights, as their publisher names it.
        sha256: its first digits, if they are published apart from the file.
        recommended: whether the bare name of the network stands for these weights.
        url: of the file, if the hub has none.
    """

    id: str
    network: str
    parameters: int
    bytes: int
    train_size: int
    size: int
    resize: int
    crop_mode: CropMode
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    top1: float | None
    source: str
    licence: str
    sha256: str
    recommended: bool
    url: str


@cache
def published() -> tuple[Published, ...]:
    """Every row of the table."""
    return tuple(_row(texts) for texts in csv.DictReader(io.StringIO(read_text(TABLE))))


def _row(texts: dict[str, str]) -> Published:
    """A row of the table from its texts."""
    values: dict[str, object] = {}
    for field in fields(Published):
        text = texts[field.name]
        if field.name in ("mean", "std"):
            values[field.name] = tuple(map(float, text.split()))
        elif field.name == "top1":
            values[field.name] = float(text) if text else None
        elif field.name == "recommended":
            values[field.name] = text == "yes"
        else:
            values[field.name] = int(text) if field.type is int else text
    return Published(**values)  # type: ignore[arg-type]


def find(identifier: str) -> Published | None:
    """The row of an id; None if the table has none."""
    return next((row for row in published() if row.id == identifier), None)


def find_recommended(network: str) -> Published | None:
    """The weights for which the bare name of a network stands; None if none are published.

    >>> find_recommended("resnet50").network
    'resnet50'
    """
    rows = (row for row in published() if row.recommended and row.network == network)
    return next(rows, None)


def start_for_photos(network: str) -> str:
    """The network whose published weights to advise in place of training a network on few photos.

    It is the one that `resnets train` names before it starts: that of the user, if it has weights.

    >>> start_for_photos("auto"), start_for_photos("resnet20"), start_for_photos("resnet50")
    ('resnet18', 'resnet18', 'resnet50')
    """
    chosen_by_user = network != _FROM_SCRATCH and find_recommended(network)
    return network if chosen_by_user else USUAL_START


def is_non_commercial(licence: str) -> bool:
    """Whether a licence forbids commercial use.

    >>> is_non_commercial("cc-by-nc-4.0"), is_non_commercial("apache-2.0")
    (True, False)
    """
    return bool(_NON_COMMERCIAL.search(licence.lower()))


def chosen(
    networks: Sequence[str] = (), licence: str = "free", others: Sequence[Published] = ()
) -> tuple[Published, ...]:
    """The rows for some networks, or all, and for a licence.

    Args:
        networks: names in the catalog, or what ids have in them.
        licence: free (those that allow commercial use), any, or one by name.
        others: rows besides those of the table.

    Raises:
        UsageError: there is none.
    """
    rows = [
        row
        for row in (*published(), *others)
        if licence == "any"
        or (row.licence == licence if licence != "free" else not is_non_commercial(row.licence))
    ]
    if not rows:
        licences = sorted({row.licence for row in published()})
        raise UsageError(f"--licence {licence}: it is free, any, or one of {', '.join(licences)}")
    matching = [row for row in rows if not networks or row.network in networks]
    if not matching:
        names = sorted({row.network for row in rows})
        raise UsageError(
            f"no published weights for {' or '.join(networks)}{nearest(networks[0], names)}"
        )
    return tuple(matching)
