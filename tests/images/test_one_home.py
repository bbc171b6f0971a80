"""Pixels change their size and their channels in one place each.

Two that resize without the calls below stand elsewhere, and why is written there: affine maps of
training, which turn and shear (`data/augmentation/geometry.py`), and the exported graph, whose
resizing is two multiplications since no two runtimes agree on any other (`deployment`).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ImageMode

PACKAGE = Path(__file__).parents[2] / "resnets"
RESIZING = {"resize", "interpolate", "grid_sample", "Upsample"}  # of Pillow, and of torch
CONVERTING = {"convert", "alpha_composite", "grayscale", "putalpha"}
HOMES = {
    "images/resizing.py": RESIZING,
    "images/vectorised.py": RESIZING,
    "images/converting.py": CONVERTING,
}


def calls(text: str) -> Iterator[str]:
    """Which of those are called; `convert` only of one of Pillow's modes."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
            modes = [each for each in constants if is_mode(each)]
            if name in RESIZING | CONVERTING and (name != "convert" or modes):
                yield name


def is_mode(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(ImageMode.getmode(value))
    except KeyError:
        return False


def test_pixels_are_resized_and_converted_only_in_their_homes() -> None:
    elsewhere = {
        place: names
        for path in sorted(PACKAGE.rglob("*.py"))
        for place in [path.relative_to(PACKAGE).as_posix()]
        if (names := set(calls(path.read_text(encoding="utf-8"))) - HOMES.get(place, set()))
    }
    assert elsewhere == {}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("picture.resize((3, 2))", ["resize"]),
        ("F.interpolate(images, 3)", ["interpolate"]),
        ("interpolate(images, 3)", ["interpolate"]),
        ("Image.open(path).convert('RGB')", ["convert"]),
        ("conversion.convert(network, 'huggingface')", []),
        ("resized_to(pixels, 3, 2)", []),
    ],
)
def test_such_a_call_would_be_found(code: str, names: list[str]) -> None:
    assert list(calls(code)) == names
