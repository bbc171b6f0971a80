"""A new folder of pictures: PNG files and contact sheets."""

import io
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.errors import ContentError, UsageError
from resnets.escaping import safe_name
from resnets.files.outputs import writable_folder
from resnets.files.writing import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from resnets.evaluation.report.sheets import Tile

_FILES = (".csv", ".htm", ".html", ".jpeg", ".jpg", ".json", ".pdf", ".png", ".svg", ".webp")


def refuse_content(path: Path) -> None:
    """Refuse a folder for pictures that cannot be created or is not empty.

    Raises:
        UsageError: the folder is not empty, cannot be written, or would be called like a file.
    """
    writable_folder(path)
    if not path.exists() and path.suffix.lower() in _FILES:
        raise UsageError(
            f"{path} would become a folder, into which the pictures go; give --output without "
            f"{path.suffix}"
        )
    if path.exists() and any(path.iterdir()):
        raise UsageError(f"{path} exists; give another --output, or delete it")


def new_folder(path: Path) -> Path:
    """The folder, created if it does not exist. Raises as `refuse_content` does."""
    refuse_content(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContentError(f"{path}: {error.strerror}") from None
    return path


def file_name(image: str, taken: set[str]) -> str:
    """A PNG's name for an image, distinct from those taken even without regard to case.

    Args:
        image: its path or name.
        taken: names without their ending, case-folded; this one is added.

    >>> taken = set()
    >>> [file_name(image, taken) for image in ("a/cat.jpg", "b/Cat.png", "dog.jpg")]
    ['cat.png', 'Cat-2.png', 'dog.png']
    """
    stem = safe_name(Path(image).stem)
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return f"{name}.png"


def save(picture: "Image.Image", path: Path) -> None:
    """Write a picture as PNG, atomically."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_atomically(path, content.getvalue())


def save_sheets(tiles: "Sequence[Tile]", folder: Path, name: str, title: str) -> list[Path]:
    """Write all tiles on one or more contact sheets: name.png, name-2.png ...

    Numbers that pictures of that name have in the folder are left out.
    """
    from resnets.evaluation.report.sheets import MOST, contact_sheet

    candidates = (folder / f"{name}{'' if n == 1 else f'-{n}'}.png" for n in count(1))
    paths = []
    for start in range(0, len(tiles), MOST):
        paths.append(next(path for path in candidates if not path.exists()))
        save(contact_sheet(tiles[start : start + MOST], title), paths[-1])
    return paths
