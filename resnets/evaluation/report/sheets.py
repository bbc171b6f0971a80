"""Contact sheets: many images in one picture, each with lines of text below it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resnets.escaping import escaped
from resnets.format import percent
from resnets.images import Pixels
from resnets.images.resizing import resized_to

Tone = Literal["plain", "faint", "right", "wrong"]
_COLOURS: dict[Tone, str] = {
    "plain": "#1f2328",
    "faint": "#6a737d",
    "right": "#1a7f37",
    "wrong": "#c4321f",
}
_GROUND, _TRACK, _BAR = "#ffffff", "#e8eaed", "#3987e5"
TILE = 176  # pixels, side of one image on a sheet
MOST = 200  # images on one sheet
_GAP, _MARGIN, _LINE, _TEXT, _TITLE = 20, 24, 21, 13, 18  # pixels
_INSIDE = 4  # pixels between the pictures of a tile


@dataclass(frozen=True)
class Line:
    """A line of text below an image.

    Attributes:
        text: shortened by an ellipsis where it is too long.
        tone: its colour.
        bold: for the most important line.
        share: 0 to 1; written at the end of the line in percent, and drawn below it as a bar.
    """

    text: str
    tone: Tone = "plain"
    bold: bool = False
    share: float | None = None


@dataclass(frozen=True)
class Tile:
    """One image, in one picture or several, and lines below it. Pictures are (P, P, 3) uint8."""

    pictures: tuple[Pixels, ...]
    lines: tuple[Line, ...] = ()


def contact_sheet(tiles: Sequence[Tile], title: str = "", side: int = TILE) -> Image.Image:
    """All tiles on one white sheet, a little wider than high, in rows from left to right.

    Args:
        tiles: at least one.
        title: above them.
        side: to which each picture is resized, in pixels.
    """
    title = escaped(title)
    wide = max(len(tile.pictures) for tile in tiles) * (side + _INSIDE) - _INSIDE
    tall = side + max(len(tile.lines) for tile in tiles) * _LINE
    columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * 1.5 * tall / wide))))
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    top = _MARGIN + (_TITLE + _GAP if title else 0)
    heights = [side + _INSIDE + max(len(tile.lines) for tile in row) * _LINE + _GAP for row in rows]
    width = max(
        2 * _MARGIN + columns * (wide + _GAP) - _GAP, _MARGIN * 2 + round(_title_width(title))
    )
    sheet = Image.new("RGB", (width, top + sum(heights) + _MARGIN - _GAP), _GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _COLOURS["plain"], _font(_TITLE, bold=True), anchor="lt")
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, pen, tile, (_MARGIN + column * (wide + _GAP), top), side)
        top += height
    return sheet


def _draw_tile(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], side: int
) -> None:
    """Draw a tile with its upper left corner at `corner`."""
    left, top = corner
    for number, pixels in enumerate(tile.pictures):
        picture = thumbnail(pixels, side)
        sheet.paste(Image.fromarray(picture), (left + number * (side + _INSIDE), top))
    wide = len(tile.pictures) * (side + _INSIDE) - _INSIDE
    baseline = top + side + _INSIDE + _TEXT + 1
    for number, line in enumerate(tile.lines):
        _draw_line(pen, line, (left, baseline + number * _LINE), wide)


def _draw_line(pen: ImageDraw.ImageDraw, line: Line, start: tuple[int, int], width: int) -> None:
    """Draw a line of text; `start` is the left end of its baseline."""
    left, baseline = start
    style, ink = _font(_TEXT, line.bold), _COLOURS[line.tone]
    free = width
    if line.share is not None:
        number = percent(line.share)
        pen.text((left + width, baseline), number, ink, style, anchor="rs")
        free -= round(style.getlength(number)) + 2 * _INSIDE
        below = baseline + 4
        pen.rectangle((left, below, left + width - 1, below + 1), _TRACK)
        pen.rectangle((left, below, left + max(1, round(width * line.share)) - 1, below + 1), _BAR)
    text = _shortened(escaped(line.text), free, style)
    pen.text((left, baseline), text, ink, style, anchor="ls")


def _shortened(text: str, width: float, style: ImageFont.FreeTypeFont) -> str:
    """Text of at most this width in pixels; an ellipsis replaces what is cut from its middle."""
    if style.getlength(text) <= width:
        return text
    count = len(text) - 1
    while count > 1 and style.getlength(_with_ellipsis(text, count)) > width:
        count -= 1
    return _with_ellipsis(text, count)


def _with_ellipsis(text: str, count: int) -> str:
    """Text with `count` of its characters, half of them from either end.

    >>> _with_ellipsis("photographs", 4)
    'ph…hs'
    """
    end = count // 2
    return f"{text[: count - end]}…{text[len(text) - end :]}"


def thumbnail(pixels: Pixels, side: int) -> Pixels:
    """A picture (H, W, 3) as a square, (side, side, 3)."""
    return resized_to(pixels, side, side, "lanczos")


def blank(side: int) -> Pixels:
    """A grey square in place of an image that cannot be shown."""
    return np.full((side, side, 3), 0xE8, np.uint8)


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic letters."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _title_width(title: str) -> float:
    """The width of a title in pixels."""
    return _font(_TITLE, bold=True).getlength(title)
