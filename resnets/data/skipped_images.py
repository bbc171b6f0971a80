"""The list of images that are in no shard, beside the index of the shards."""

import csv
import io
from collections.abc import Iterable

from resnets.data.places import Folder
from resnets.data.shards import LARGEST_INDEX
from resnets.errors import ContentError
from resnets.escaping import write_csv

SKIPPED = "skipped.csv"
_COLUMNS = ("image", "reason")


def write_skipped(
    folder: Folder, skipped: Iterable[tuple[str, str]], in_kept_shards: Iterable[str]
) -> None:
    """List the images that are in no shard, or remove the list where there are none.

    A file of somebody else under this name stays.

    Args:
        folder: of the shards.
        skipped: name and reason of each image that could not be read now.
        in_kept_shards: names of the images of shards that were kept: those of them that an earlier
            list has stay in it.
    """
    earlier = _listed_before(folder)
    if earlier is None:
        return
    rows = list(skipped)
    if earlier:
        rows += ((name, earlier[name]) for name in _as_listed(in_kept_shards) if name in earlier)
    if rows:
        text = io.StringIO(newline="")
        write_csv(text, [dict(zip(_COLUMNS, row, strict=True)) for row in rows], _COLUMNS)
        folder.write_bytes(SKIPPED, text.getvalue().encode())
    elif earlier:
        folder.remove(SKIPPED)


def _listed_before(folder: Folder) -> dict[str, str] | None:
    """The reasons by name that an earlier run listed; None if the file is somebody else's."""
    if folder.size(SKIPPED) is None:
        return {}
    try:
        text = folder.read_file(SKIPPED, LARGEST_INDEX).decode()
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        return dict(rows) if tuple(header) == _COLUMNS else None
    except (ContentError, ValueError, csv.Error):
        return None


def _as_listed(names: Iterable[str]) -> list[str]:
    """Names as the list of skipped images has them: `write_csv` guards and escapes some."""
    text = io.StringIO(newline="")
    write_csv(text, [{"image": name} for name in names], ["image"], header=False)
    return [row[0] if row else "" for row in csv.reader(io.StringIO(text.getvalue(), newline=""))]
