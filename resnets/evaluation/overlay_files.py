"""Explanations as PNG files: an overlay for each image, and contact sheets of all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from resnets.errors import UsageError
from resnets.evaluation.explain import Explanation
from resnets.evaluation.predict import is_accepted
from resnets.evaluation.report.folder import (
    file_name,
    new_folder,
    refuse_content,
    save,
    save_sheets,
)
from resnets.evaluation.report.sheets import TILE, Line, Tile, blank, thumbnail
from resnets.evaluation.source import Source
from resnets.files.outputs import writable
from resnets.format import plural

_SHEET = "contact-sheet"


def refuse_output(output: Path, sources: Sequence[Source]) -> None:
    """Refuse an output that cannot take the pictures of these images, before any work.

    Raises:
        UsageError: the folder is not empty, the file exists, a file is to take several pictures, or
            it cannot be written.
    """
    if not _is_file(output):
        refuse_content(output)
        return
    writable(output)
    if output.exists():
        raise UsageError(f"{output} exists; give another --output, or delete it")
    if len(sources) != 1:
        raise UsageError(
            f"--output {output}: a file takes the picture of one image, and there are "
            f"{plural(len(sources), 'image')}; give a folder"
        )


class OverlayWriter:
    """Writes the overlays of images one by one, and then contact sheets of all."""

    def __init__(self, output: Path) -> None:
        """Make the folder, if it does not exist.

        Args:
            output: a new or empty folder; or a file that ends in .png, for one image.

        Raises:
            UsageError: the folder is not empty, or cannot be written.
        """
        self._file = output if _is_file(output) else None
        self._folder = output.parent if self._file else new_folder(output)
        self._names = {_SHEET}
        self._tiles: list[Tile] = []
        self._images: list[Path] = []
        self._has_pictures = False

    def write(self, explained: Explanation) -> Explanation:
        """Write the overlay of an image; returns the explanation with its path.

        Of an image that cannot be read nothing is written, but contact sheets show that.
        """
        name = file_name(explained.prediction.image, self._names)
        self._tiles.append(_tile(explained))
        self._images.append(Path(explained.prediction.image))
        if explained.picture is None:
            return explained
        path = self._file or self._folder / name
        save(Image.fromarray(explained.overlay()), path)
        self._has_pictures = True
        return replace(explained, path=path)

    def write_sheets(self, title: str) -> list[Path]:
        """Write all images with their predictions on contact sheets; returns their paths.

        None for a single file, and where no image can be read: grey boxes show nothing.
        """
        if self._file or not self._has_pictures:
            return []
        names = zip(self._tiles, _short_names(self._images), strict=True)
        tiles = [
            replace(tile, lines=(replace(tile.lines[0], text=name), *tile.lines[1:]))
            for tile, name in names
        ]
        return save_sheets(tiles, self._folder, _SHEET, title)


def _short_names(images: Sequence[Path]) -> list[str]:
    """The name of each file, with its folder where others have the same name.

    >>> _short_names([Path("a/ants/1.jpg"), Path("a/bees/1.jpg"), Path("a/bees/2.jpg")])
    ['ants/1.jpg', 'bees/1.jpg', '2.jpg']
    """
    count = Counter(image.name for image in images)
    return [
        image.name if count[image.name] == 1 else "/".join(image.parts[-2:]) for image in images
    ]


def _is_file(output: Path) -> bool:
    """Whether a path is meant as the file of one picture."""
    return output.suffix.lower() == ".png" and not output.is_dir()


def _tile(explained: Explanation) -> Tile:
    """An image and its heat map, with the prediction; or that it cannot be read."""
    prediction, name = explained.prediction, Line(Path(explained.prediction.image).name, "faint")
    if explained.picture is None:
        return Tile((blank(TILE),), (name, Line("cannot be read", "wrong", bold=True)))
    pictures = tuple(
        thumbnail(picture, TILE) for picture in (explained.picture, explained.overlay())
    )
    lines = [
        name,
        *(
            Line(label, bold=rank == 0 and is_accepted(prediction.status), share=share)
            for rank, (label, share) in enumerate(prediction.top)
        ),
    ]
    lines.append(Line(f"status: {prediction.status}"))
    if explained.target != prediction.prediction:
        lines.append(Line(f"heat map for {explained.target}"))
    return Tile(pictures, tuple(lines))
