"""RandAugment and TrivialAugment by whole batches, for (B, H, W, C) uint8 with C of 1 or 3.

The operations are those of Pillow that both papers used, in three families: affine maps (geometry),
blends of the image with a simpler one, and tables that replace each of the 256 values. A batch is
divided by family, so that each family runs once.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnets.data.augmentation.draws import Draws
from resnets.data.augmentation.geometry import affine
from resnets.images.placement import on_device

_BINS = 31  # strengths run from 0 to 30

# Largest strength of each operation: RandAugment's (arXiv:1909.13719; its translations are
# fractions of the side, 150 of 331 pixels) and TrivialAugment's wide ones (arXiv:2103.10158,
# table 2; pixels). Shears are slopes, rotations degrees. A blend of strength s has the factor
# 1 + s, posterize drops s bits, solarize inverts values of at least 255 - s. Affine maps and blends
# get a random sign.
_RANGES = {
    "identity": (0.0, 0.0),
    "shear_x": (0.3, 0.99),
    "shear_y": (0.3, 0.99),
    "translate_x": (150 / 331, 32.0),
    "translate_y": (150 / 331, 32.0),
    "rotate": (30.0, 135.0),
    "brightness": (0.9, 0.99),
    "color": (0.9, 0.99),
    "contrast": (0.9, 0.99),
    "sharpness": (0.9, 0.99),
    "posterize": (4.0, 6.0),
    "solarize": (255.0, 255.0),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
}
_OPERATIONS = np.array(list(_RANGES))
_SIGNED = np.array([name in _OPERATIONS[1:10] for name in _OPERATIONS])

_Names = NDArray[np.str_]  # (B,) of `_OPERATIONS`
_Strengths = NDArray[np.float64]  # (B,)
_Family = Callable[[Tensor, _Names, _Strengths, Tensor], Tensor]


def randaugment(
    pixels: Tensor,
    draws: Draws,
    operations: int,
    magnitude: int,
    fill: Tensor,
    bilinear: bool = False,
) -> Tensor:
    """Apply random operations to each image, one after another; the magnitude is 0 to 30."""
    uniform = draws.uniform("randaugment", 2 * operations)
    largest = np.array([_RANGES[name][0] for name in _OPERATIONS])
    height, width = pixels.shape[1:3]
    largest[_OPERATIONS == "translate_x"] *= width
    largest[_OPERATIONS == "translate_y"] *= height
    for which, sign in uniform.reshape(len(draws), operations, 2).transpose(1, 2, 0):
        chosen = (which * len(_OPERATIONS)).astype(np.int64)
        strengths = _with_signs(largest[chosen] * magnitude / (_BINS - 1), chosen, sign)
        pixels = _apply_operations(pixels, _OPERATIONS[chosen], strengths, fill, bilinear)
    return pixels


def trivialaugment(pixels: Tensor, draws: Draws, fill: Tensor, bilinear: bool = False) -> Tensor:
    """Apply one random operation to each image, at a random strength of 31."""
    which, sign, strength = draws.uniform("trivialaugment", 3).T
    largest = np.array([_RANGES[name][1] for name in _OPERATIONS])
    chosen = (which * len(_OPERATIONS)).astype(np.int64)
    bins = np.floor(strength * _BINS)
    strengths = _with_signs(largest[chosen] * bins / (_BINS - 1), chosen, sign)
    return _apply_operations(pixels, _OPERATIONS[chosen], strengths, fill, bilinear)


def _with_signs(
    strengths: _Strengths, chosen: NDArray[np.int64], sign: NDArray[np.float32]
) -> _Strengths:
    """The strengths with a random sign, for operations that have one."""
    return np.where(_SIGNED[chosen] & (sign < 0.5), -strengths, strengths)


def _apply_operations(
    pixels: Tensor, names: _Names, strengths: _Strengths, fill: Tensor, bilinear: bool = False
) -> Tensor:
    """Apply one operation to each image.

    Args:
        pixels: (B, H, W, C) uint8.
        names: (B,) of `_OPERATIONS`.
        strengths: (B,) in the units of `_RANGES`, with their sign; translations in pixels.
        fill: (C,) uint8, for positions outside the image.
        bilinear: interpolation of affine maps; else they use the nearest pixel.
    """
    result = pixels.clone()
    families: dict[_Family, _Names] = {
        partial(_geometry, bilinear=bilinear): _OPERATIONS[1:6],
        _blend: _OPERATIONS[6:10],
        _replace_values: _OPERATIONS[10:],
    }
    for family, members in families.items():
        chosen = np.flatnonzero(np.isin(names, members))
        if len(chosen):
            rows = on_device(chosen, pixels.device)
            changed = family(pixels[rows], names[chosen], strengths[chosen], fill)
            result.index_copy_(0, rows, changed)
    return result


def _geometry(
    pixels: Tensor, names: _Names, strengths: _Strengths, fill: Tensor, bilinear: bool = False
) -> Tensor:
    """Shears about the top left corner, translations, rotations about the middle."""
    _, height, width, _ = pixels.shape

    def where(name: str) -> _Strengths:
        return np.where(names == name, strengths, 0.0)

    angle = np.radians(where("rotate"))
    cosine, sine = np.cos(angle), np.sin(angle)
    middle_x, middle_y = width / 2, height / 2
    maps = np.empty((len(names), 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = cosine
    maps[:, 0, 1] = where("shear_x") - sine
    maps[:, 1, 0] = where("shear_y") + sine
    turned_x = cosine * middle_x - sine * middle_y
    turned_y = sine * middle_x + cosine * middle_y
    maps[:, 0, 2] = np.trunc(where("translate_x")) + middle_x - turned_x
    maps[:, 1, 2] = np.trunc(where("translate_y")) + middle_y - turned_y
    return affine(pixels, maps, fill, bilinear)


def _masks(names: _Names, device: torch.device) -> dict[str, Tensor]:
    """For each operation, a mask (B, 1, 1, 1) of the images to which it applies."""
    return {
        str(name): on_device(names == name, device)[:, None, None, None]
        for name in np.unique(names)
    }


def _blend(pixels: Tensor, names: _Names, strengths: _Strengths, fill: Tensor) -> Tensor:
    """Interpolate or extrapolate between each image and black, grey, its mean or a smooth image."""
    del fill
    chosen = _masks(names, pixels.device)
    grey = _luma(pixels)
    simpler = torch.zeros_like(pixels)
    if "color" in chosen:
        simpler = torch.where(chosen["color"], grey, simpler)
    if "contrast" in chosen:
        area = grey[0].numel()
        mean = (2 * grey.sum((1, 2, 3), dtype=torch.int64) + area) // (2 * area)
        simpler = torch.where(chosen["contrast"], mean.to(torch.uint8).view(-1, 1, 1, 1), simpler)
    if "sharpness" in chosen:
        simpler = torch.where(chosen["sharpness"], _smooth(pixels), simpler)
    factors = on_device((1 + strengths).astype(np.float32), pixels.device)
    start = simpler.float()
    mixed = start + factors.view(-1, 1, 1, 1) * (pixels.float() - start)
    return mixed.clamp_(0, 255).to(torch.uint8)


def _luma(pixels: Tensor) -> Tensor:
    """Brightness (B, H, W, 1) uint8 by ITU-R 601-2, in Pillow's integers."""
    if pixels.shape[3] == 1:
        return pixels
    red, green, blue = pixels.int().unbind(3)
    grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return grey.to(torch.uint8).unsqueeze(3)


def _smooth(pixels: Tensor) -> Tensor:
    """Each pixel (weight 5) averaged with its 8 neighbours (weight 1), except at the edge."""
    wide = pixels.to(torch.int16)
    across = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    total = across[:, :-2] + across[:, 1:-1] + across[:, 2:] + 4 * wide[:, 1:-1, 1:-1]
    result = pixels.clone()
    result[:, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)
    return result


def _replace_values(pixels: Tensor, names: _Names, strengths: _Strengths, fill: Tensor) -> Tensor:
    """Posterize, solarize, autocontrast, equalize: each value of a channel becomes another."""
    del fill
    count, _, _, channels = pixels.shape
    device = pixels.device
    channel = torch.arange(count * channels, device=device).view(count, 1, 1, channels) * 256
    places = channel + pixels
    counts = _occurrences(places.flatten(), count * channels * 256)
    values = torch.arange(256, device=device)
    strength = on_device(strengths.astype(np.float32), device).view(-1, 1, 1, 1)
    table = values.expand(count, 1, channels, 256)
    tables = {
        "posterize": values >> strength.round().int() << strength.round().int(),
        "solarize": torch.where(values >= 255 - strength, 255 - values, values),
        "autocontrast": _autocontrast_table(counts.view(count, 1, channels, 256)),
        "equalize": _equalize_table(counts.view(count, 1, channels, 256)),
    }
    for name, chosen in _masks(names, device).items():
        table = torch.where(chosen, tables[name], table)
    replaced = table.flatten().index_select(0, places.flatten()).to(torch.uint8)
    return replaced.view(pixels.shape)


def _occurrences(numbers: Tensor, count: int) -> Tensor:
    """How often each of the numbers 0 ... count - 1 occurs, (count,) int64; numbers (N,) int64."""
    if numbers.device.type == "cpu":
        return torch.bincount(numbers, minlength=count)
    # bincount waits for a GPU, to learn the largest number
    zeros = torch.zeros(count, dtype=torch.int64, device=numbers.device)
    return zeros.index_add_(0, numbers, torch.ones_like(numbers))


def _autocontrast_table(counts: Tensor) -> Tensor:
    """Tables that stretch the range of values to 0..255.

    counts (..., 256): how often each value occurs
    """
    values = torch.arange(256, device=counts.device)
    used = counts > 0
    low = torch.where(used, values, 255).amin(-1, keepdim=True)
    high = torch.where(used, values, 0).amax(-1, keepdim=True)
    spread = (values - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, spread.clamp(0, 255), values)


def _equalize_table(counts: Tensor) -> Tensor:
    """Tables that equalize the histogram, as Pillow's ImageOps.equalize does.

    counts (..., 256): how often each value occurs
    """
    values = torch.arange(256, device=counts.device)
    last = torch.where(counts > 0, values, 0).amax(-1, keepdim=True)
    total = counts.sum(-1, keepdim=True)
    step = (total - counts.gather(-1, last)) // 255
    before = counts.cumsum(-1) - counts
    spread = (before + step // 2) // step.clamp(min=1)
    return torch.where(step > 0, spread.clamp(max=255), values)
