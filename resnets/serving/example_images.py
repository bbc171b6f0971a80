"""Drawings for `resnets demo`: what the packaged network knows, and what it has never seen.

They are made here, so that no photo of anybody is shipped.
"""

import io
import math
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SIDE = 256  # pixels
_Draw = ImageDraw.ImageDraw


@cache
def example_images() -> dict[str, bytes]:
    """Drawings as PNG files, by their names."""
    return {f"{name}.png": _png(draw) for name, draw in _DRAWINGS.items()}


def _png(draw: Callable[[_Draw], None]) -> bytes:
    """A drawing, softened as a photo is, with a little noise."""
    image = Image.new("RGB", (_SIDE, _SIDE))
    draw(ImageDraw.Draw(image))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(2)), np.float32)
    noise = np.random.default_rng(0).normal(0, 4, soft.shape)
    file = io.BytesIO()
    Image.fromarray((soft + noise).clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _shade(
    draw: _Draw, top: tuple[int, ...], bottom: tuple[int, ...], begin: int, end: int
) -> None:
    """A band of rows that fades from one colour to another."""
    for row in range(begin, end):
        share = (row - begin) / (end - begin)
        colour = tuple(round(a + share * (b - a)) for a, b in zip(top, bottom, strict=True))
        draw.line((0, row, _SIDE, row), fill=colour)


def _ship(draw: _Draw) -> None:
    _shade(draw, (150, 190, 225), (215, 228, 238), 0, 150)
    _shade(draw, (45, 95, 140), (20, 55, 95), 150, _SIDE)
    draw.polygon([(30, 140), (226, 140), (202, 180), (54, 180)], fill=(140, 35, 35))
    draw.rectangle((30, 132, 226, 142), fill=(235, 235, 235))
    draw.rectangle((80, 92, 170, 132), fill=(245, 245, 245))
    draw.rectangle((120, 60, 145, 92), fill=(205, 70, 45))
    for place in range(90, 165, 18):
        draw.rectangle((place, 104, place + 9, 114), fill=(60, 80, 100))


def _airplane(draw: _Draw) -> None:
    _shade(draw, (70, 130, 205), (175, 210, 240), 0, _SIDE)
    draw.ellipse((30, 116, 226, 146), fill=(238, 240, 244))
    draw.polygon([(120, 131), (80, 210), (104, 210), (160, 131)], fill=(200, 206, 214))
    draw.polygon([(128, 122), (104, 60), (120, 60), (160, 122)], fill=(216, 221, 228))
    draw.polygon([(34, 130), (18, 86), (36, 86), (64, 122)], fill=(190, 60, 55))


def _truck(draw: _Draw) -> None:
    _shade(draw, (180, 205, 225), (220, 226, 230), 0, 170)
    _shade(draw, (110, 110, 112), (80, 80, 82), 170, _SIDE)
    draw.rectangle((24, 70, 160, 180), fill=(235, 235, 232))
    draw.polygon([(164, 100), (208, 100), (232, 140), (232, 180), (164, 180)], fill=(190, 45, 40))
    draw.polygon([(174, 108), (204, 108), (220, 138), (174, 138)], fill=(90, 120, 140))
    for place in (60, 118, 200):
        draw.ellipse((place - 22, 160, place + 22, 204), fill=(28, 28, 30))
        draw.ellipse((place - 9, 173, place + 9, 191), fill=(150, 150, 152))


def _automobile(draw: _Draw) -> None:
    _shade(draw, (170, 200, 190), (205, 215, 205), 0, 160)
    _shade(draw, (120, 120, 122), (92, 92, 95), 160, _SIDE)
    draw.polygon([(70, 130), (98, 92), (166, 92), (200, 130)], fill=(35, 75, 150))
    draw.rounded_rectangle((22, 126, 236, 176), 18, fill=(40, 88, 170))
    draw.polygon([(86, 128), (104, 100), (128, 100), (128, 128)], fill=(170, 200, 220))
    draw.polygon([(136, 128), (136, 100), (162, 100), (184, 128)], fill=(170, 200, 220))
    for place in (72, 188):
        draw.ellipse((place - 24, 152, place + 24, 200), fill=(25, 25, 27))
        draw.ellipse((place - 11, 165, place + 11, 187), fill=(170, 170, 172))


def _frog(draw: _Draw) -> None:
    _shade(draw, (60, 85, 45), (95, 75, 45), 0, _SIDE)
    draw.ellipse((58, 96, 206, 214), fill=(85, 150, 55))
    draw.ellipse((84, 128, 180, 214), fill=(175, 200, 120))
    for place in (88, 168):
        draw.ellipse((place - 24, 66, place + 24, 114), fill=(95, 165, 62))
        draw.ellipse((place - 11, 78, place + 11, 100), fill=(20, 20, 15))
    draw.arc((92, 110, 172, 160), 20, 160, fill=(45, 80, 30), width=5)


def _clock(draw: _Draw) -> None:
    draw.rectangle((0, 0, _SIDE, _SIDE), fill=(224, 215, 196))
    draw.ellipse((38, 38, 218, 218), fill=(250, 250, 246), outline=(40, 40, 42), width=9)
    for hour in range(12):
        angle = math.tau * hour / 12
        x, y = 128 + 74 * math.sin(angle), 128 - 74 * math.cos(angle)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(40, 40, 42))
    draw.line((128, 128, 128, 72), fill=(40, 40, 42), width=7)
    draw.line((128, 128, 170, 146), fill=(190, 40, 40), width=5)


def _stripes(draw: _Draw) -> None:
    for place in range(-_SIDE, 2 * _SIDE, 32):
        draw.polygon(
            [(place, 0), (place + 16, 0), (place + 16 + _SIDE, _SIDE), (place + _SIDE, _SIDE)],
            fill=(236, 180, 40),
        )


_DRAWINGS: dict[str, Callable[[_Draw], None]] = {
    **{"ship": _ship, "airplane": _airplane, "truck": _truck, "automobile": _automobile},
    **{"frog": _frog, "clock": _clock, "stripes": _stripes},
}
