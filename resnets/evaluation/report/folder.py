"""A new folder of pictures: PNG files and contact sheets."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.errors import ContentError, UsageError
from resnets.escaping import safe_name
from resnets.files.outputs import writable_folder
from resnets.files.writing import write_atomically

if TYPE_CHECKING:
    from PIL import Image

    from resnets.evaluation.report.sheets import Tile


def refuse_content(path: Path) -> None:
    """Refuse a folder for pictures that cannot be created or is not empty.

    Raises:
        UsageError: the folder is not empty, or cannot be written.
    """
    writable_folder(path)
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


def file_names(images: Sequence[str]) -> Iterator[str]:
    """A PNG's name for each image, all distinct, even without regard to case.

    >>> list(file_names(["a/cat.jpg", "b/Cat.png", "dog.jpg"]))
    ['cat.png', 'Cat-2.png', 'dog.png']
    """
    taken: set[str] = set()
    for image in images:
        stem = safe_name(Path(image).stem)
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        yield f"{name}.png"


def save(picture: "Image.Image", path: Path) -> None:
    """Write a picture as PNG, atomically."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_atomically(path, content.getvalue())


def save_sheets(tiles: "Sequence[Tile]", folder: Path, name: str, title: str) -> list[Path]:
    """Write all tiles on one or more contact sheets: name.png, name-2.png ..."""
    from resnets.evaluation.report.sheets import MOST, contact_sheet

    starts = range(0, len(tiles), MOST)
    paths = [
        folder / (f"{name}-{n}.png" if n > 1 else f"{name}.png") for n, _ in enumerate(starts, 1)
    ]
    for start, path in zip(starts, paths, strict=True):
        save(contact_sheet(tiles[start : start + MOST], title), path)
    return paths
