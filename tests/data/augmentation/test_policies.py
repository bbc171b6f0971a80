"""Policies against Pillow's own operations, on which both papers' code is built."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from resnets.data.augmentation.draws import Draws
from resnets.data.augmentation.policies import (
    _OPERATIONS,
    _RANGES,
    _apply_operations,
    randaugment,
    trivialaugment,
)

FILL = torch.tensor([10, 200, 90], dtype=torch.uint8)


def smooth_image(seed: int, height: int = 33, width: int = 40) -> np.ndarray:
    """Colours that vary slowly, as in a photo, and do not use all 256 values."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image) // 2 + 40


def sheared(image: Image.Image, x: float, y: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, (1, x, 0, y, 1, 0), fillcolor=tuple(FILL.tolist())
    )


def translated(image: Image.Image, x: float, y: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), fillcolor=tuple(FILL.tolist())
    )


PILLOW = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, s: sheared(image, s, 0),
    "shear_y": lambda image, s: sheared(image, 0, s),
    "translate_x": lambda image, s: translated(image, int(s), 0),
    "translate_y": lambda image, s: translated(image, 0, int(s)),
    "rotate": lambda image, s: image.rotate(s, fillcolor=tuple(FILL.tolist())),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + s),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + s),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(s)),
    "solarize": lambda image, s: ImageOps.solarize(image, 255 - s),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}
# Pillow computes maps and stretches in other precisions, which shows where a place or a value lies
# on an edge; there a neighbour, or a value one off, is right too.
NEAREST = ("shear_x", "shear_y", "rotate")


@pytest.mark.parametrize("name", _OPERATIONS)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, -0.3, -1.0])
def test_an_operation_does_what_pillow_does(name: str, share: float) -> None:
    every_value = np.arange(33 * 40 * 3, dtype=np.uint8).reshape(33, 40, 3)
    images = [every_value] + [smooth_image(seed) for seed in range(3)]
    for largest in _RANGES[name]:
        strength = share * (largest if largest >= 1 or "translate" not in name else 40 * largest)
        if name in _OPERATIONS[10:]:
            strength = abs(strength)
        pixels = torch.from_numpy(np.stack(images))
        ours = (
            _apply_operations(pixels, np.repeat(name, 4), np.full(4, strength), FILL)
            .numpy()
            .astype(int)
        )
        theirs = np.stack([PILLOW[name](Image.fromarray(i), strength) for i in images]).astype(int)
        if name in NEAREST:
            assert (ours != theirs).any(3).mean() < 0.005
        else:
            assert abs(ours - theirs).max() <= (1 if name == "autocontrast" else 0)


@pytest.mark.parametrize("name", _OPERATIONS[1:6])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, -0.7])
def test_bilinear_maps_are_those_of_pillow(name: str, share: float) -> None:
    """As torchvision's references call it: RandAugment and TrivialAugment, interpolation bilinear.

    Pillow rounds otherwise by one at most, but for places that lie on the image's edge.
    """
    image = Image.fromarray(smooth_image(1))
    fill = tuple(FILL.tolist())
    s = share * _RANGES[name][1]
    maps = {
        "shear_x": (1, s, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, s, 1, 0),
        "translate_x": (1, 0, int(s), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, int(s)),
    }
    smooth = Image.Resampling.BILINEAR
    theirs = (
        image.rotate(s, smooth, fillcolor=fill)
        if name == "rotate"
        else image.transform(image.size, Image.Transform.AFFINE, maps[name], smooth, fillcolor=fill)
    )
    pixels = torch.from_numpy(np.asarray(image).copy())[None]
    ours = _apply_operations(pixels, np.array([name]), np.array([s]), FILL, bilinear=True)[
        0
    ].numpy()
    difference = abs(ours.astype(int) - np.asarray(theirs).astype(int)).max(2)
    assert (difference > 1).mean() < 0.005


def test_grey_images_are_treated_as_pillow_treats_them() -> None:
    grey = smooth_image(0)[:, :, :1]
    for name in _OPERATIONS:
        strength = 10.0 if name in ("translate_x", "translate_y", "rotate", "solarize") else 0.7
        pixels = torch.from_numpy(grey[None])
        ours = _apply_operations(pixels, np.array([name]), np.array([strength]), FILL[:1])
        theirs = np.asarray(on_grey(name, Image.fromarray(grey[:, :, 0]), strength)).astype(int)
        difference = abs(ours.numpy()[0, :, :, 0].astype(int) - theirs)
        assert (difference > 1).mean() < 0.005, name


def on_grey(name: str, image: Image.Image, strength: float) -> Image.Image:
    """Pillow's operation on a grey image: the fill of maps is one number."""
    fill = int(FILL[0])
    maps = {
        "shear_x": (1, strength, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, strength, 1, 0),
        "translate_x": (1, 0, strength, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, strength),
    }
    if name in maps:
        return image.transform(image.size, Image.Transform.AFFINE, maps[name], fillcolor=fill)
    if name == "rotate":
        return image.rotate(strength, fillcolor=fill)
    return PILLOW[name](image, strength)


def test_flat_and_tiny_images_go_through_every_operation() -> None:
    for shape in [(1, 1), (2, 5), (8, 8)]:
        pixels = torch.full((len(_OPERATIONS), *shape, 3), 77, dtype=torch.uint8)
        result = _apply_operations(pixels, _OPERATIONS, np.full(len(_OPERATIONS), 0.5), FILL)
        for name in ("autocontrast", "equalize", "contrast", "sharpness", "color"):
            assert (result[list(_OPERATIONS).index(name)] == 77).all(), name


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    pixels = torch.from_numpy(np.stack([smooth_image(seed) for seed in range(len(_OPERATIONS))]))
    strengths = np.linspace(-0.9, 0.9, len(_OPERATIONS))
    strengths[10:] = 3
    together = _apply_operations(pixels, _OPERATIONS, strengths, FILL)
    for row in range(len(_OPERATIONS)):
        part = slice(row, row + 1)
        alone = _apply_operations(pixels[part], _OPERATIONS[part], strengths[part], FILL)
        assert torch.equal(alone, together[part])


def test_randaugment_of_magnitude_0_changes_only_what_has_no_strength() -> None:
    pixels = torch.from_numpy(np.stack([smooth_image(seed) for seed in range(200)]))
    result = randaugment(pixels, Draws(0, 0, 200, np.arange(200)), 1, 0, FILL)
    unchanged = (result == pixels).flatten(1).all(1).float().mean().item()
    assert abs(unchanged - 12 / 14) < 0.08  # all but autocontrast and equalize


def test_randaugment_draws_each_operation_and_either_sign_equally_often() -> None:
    count = 5_600
    image = torch.from_numpy(np.random.default_rng(0).integers(9, 250, (1, 20, 20, 3), np.uint8))
    pixels = image.expand(count, -1, -1, -1)
    results = randaugment(pixels, Draws(1, 2, count, np.arange(count)), 1, 30, FILL).flatten(1)
    per_operation = np.zeros(14)
    for position, name in enumerate(_OPERATIONS):
        strength = _RANGES[name][0] * (20 if "translate" in name else 1)
        ends = [strength, -strength] if 1 <= position < 10 else [strength]
        outcomes = [_apply_operations(image, np.array([name]), np.array([s]), FILL) for s in ends]
        counts = [int((results == o.flatten()).all(1).sum()) for o in outcomes]
        assert len(ends) == 1 or stats.chisquare(counts).pvalue > 0.001, name
        per_operation[position] = sum(counts)
    assert per_operation.sum() == count
    assert stats.chisquare(per_operation).pvalue > 0.001


def test_trivialaugment_draws_strengths_up_to_the_largest_equally_often() -> None:
    # Black pixels become white by solarize of the last strength alone: one image in 14 * 31.
    count = 21_700
    pixels = torch.zeros(count, 1, 1, 3, dtype=torch.uint8)
    draws = Draws(1, 2, count, np.arange(count))
    result = trivialaugment(pixels, draws, torch.zeros(3, dtype=torch.uint8))
    white = int((result == 255).all(3).sum())
    assert stats.binomtest(white, count, 1 / 14 / 31).pvalue > 0.001


def test_a_policy_depends_on_the_sample_alone() -> None:
    pixels = torch.from_numpy(np.stack([smooth_image(seed) for seed in range(20)]))
    draws = Draws(5, 1, 20, np.arange(20))
    for policy in (trivialaugment, lambda p, d, f: randaugment(p, d, 2, 15, f)):
        whole = policy(pixels, draws, FILL)
        assert torch.equal(policy(pixels[7:], draws.part(7), FILL), whole[7:])
        assert not torch.equal(policy(pixels, Draws(5, 2, 20, np.arange(20)), FILL), whole)
