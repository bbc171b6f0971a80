"""Random augmentation of training images, by whole batches of tensors.

B images of H x W pixels and C channels are (B, H, W, C) uint8 until they are normalised, then
(B, C, H, W) float32 in channels_last order. The changes of an image depend only on its draws.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.augmentation.draws import Draws
from resnets.data.augmentation.geometry import crop_and_flip, mirrored
from resnets.data.augmentation.policies import randaugment, trivialaugment
from resnets.images import Preprocessing
from resnets.images.placement import on_device


class Normaliser:
    """Converts (B, H, W, C) uint8 to the network's input: (B, C, H, W) float32, channels_last.

    Attributes:
        fill: (C,) uint8, the colour that becomes zero, up to rounding.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        mean, std = (torch.tensor(v) for v in (preprocessing.mean, preprocessing.std))
        self.scale = (1 / (255 * std)).to(device)
        self.offset = (-mean / std).to(device)
        self.fill = (255 * mean).round().clamp(0, 255).to(device, torch.uint8)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Divide by 255, subtract the mean, divide by the standard deviation."""
        count, height, width, channels = pixels.shape
        rows = pixels.view(count, height, width * channels).float()
        torch.addcmul(self.offset.repeat(width), rows, self.scale.repeat(width), out=rows)
        return rows.view(count, height, width, channels).permute(0, 3, 1, 2)


def moved(pixels: Tensor, draws: Draws, augmentation: Augmentation, fill: Tensor) -> Tensor:
    """Padded crop, flip and policy of (B, H, W, C) uint8; fill (C,) is the colour outside."""
    flips = np.zeros(len(draws), np.bool_)
    if augmentation.flip == "random":
        flips = draws.uniform("flip")[:, 0] < 0.5
    elif augmentation.flip == "alternating":
        flips = draws.flips()
    if padding := augmentation.crop_padding:
        uniform = draws.uniform("crop", 2)
        shifts = np.floor(uniform * (2 * padding + 1)).astype(np.int64) - padding
        reflect = augmentation.padding_mode == "reflect"
        pixels = crop_and_flip(pixels, shifts, flips, reflect, fill)
    elif flips.any():
        pixels = mirrored(pixels, flips)
    fill = torch.zeros_like(fill) if augmentation.policy_fill == "black" else fill
    bilinear = augmentation.policy_interpolation == "bilinear"
    if augmentation.policy == "randaugment":
        strength = augmentation.policy_operations, augmentation.policy_magnitude
        return randaugment(pixels, draws, *strength, fill, bilinear)
    if augmentation.policy == "trivialaugment":
        return trivialaugment(pixels, draws, fill, bilinear)
    return pixels


def _rows_of(images: Tensor) -> Tensor:
    """A view of (B, C, H, W) channels_last as (B, H, W * C), over which torch iterates fast."""
    return images.permute(0, 2, 3, 1).flatten(2)


def _in_boxes(boxes: NDArray[np.int64], images: Tensor) -> Tensor:
    """A mask of the values of `_rows_of` that lie in each image's box: bool (B, H, W * C).

    boxes (B, 4): top, bottom, left, right in pixels; bottom and right are exclusive
    """
    _, channels, height, width = images.shape
    sides = on_device(boxes, images.device)
    top, bottom, left, right = sides[:, :, None].unbind(1)
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device).repeat_interleave(channels)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]


def erase_(images: Tensor, draws: Draws, augmentation: Augmentation) -> None:
    """Zero the rectangles of erasing and the squares of cutout, in place."""
    height, width = images.shape[2:]
    if augmentation.erase:
        chance, area, shape, y, x = draws.uniform("erase", 5).T
        areas = (0.02 + 0.31 * area) * height * width
        shapes = 0.3 * 11**shape  # from 0.3 to 3.3, its logarithm uniform
        tall = np.clip(np.rint(np.sqrt(areas * shapes)), 1, height)
        wide = np.clip(np.rint(np.sqrt(areas / shapes)), 1, width)
        tall[chance >= augmentation.erase] = 0
        top, left = np.floor(y * (height - tall + 1)), np.floor(x * (width - wide + 1))
        boxes = np.stack([top, top + tall, left, left + wide], axis=1).astype(np.int64)
        _rows_of(images).masked_fill_(_in_boxes(boxes, images), 0)
    if side := augmentation.cutout:
        y, x = draws.uniform("cutout", 2).T
        top, left = np.floor(y * height) - side // 2, np.floor(x * width) - side // 2
        boxes = np.stack([top, top + side, left, left + side], axis=1).astype(np.int64)
        _rows_of(images).masked_fill_(_in_boxes(boxes, images), 0)


def mix(
    images: Tensor, targets: Tensor, draws: Draws, augmentation: Augmentation
) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of each image with the one before it; the first is not in the result.

    Args:
        images: (B + 1, C, H, W) channels_last.
        targets: (B + 1, K) float32, such as one-hot.
        draws: of the last B images.
        augmentation: its alphas of mixup and cutmix are used.

    Returns:
        the images (B, C, H, W) and targets (B, K), mixed with the same weights
    """
    _, channels, height, width = images.shape
    which, quantile, y, x = draws.uniform("mix", 4).astype(np.float64).T
    mixup = which < 0.5 if augmentation.cutmix and augmentation.mixup else augmentation.mixup > 0
    alpha = np.where(mixup, augmentation.mixup, augmentation.cutmix)
    weight = betaincinv(alpha, alpha, quantile)
    half = np.where(mixup, 0.0, np.sqrt(1 - weight) / 2)[:, None]
    ends = np.stack([y, y, x, x], axis=1) + half * [-1, 1, -1, 1]
    boxes = np.rint(ends.clip(0, 1) * [height, height, width, width]).astype(np.int64)
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2]) / (height * width)
    outside = on_device(np.where(mixup, weight, 1.0).astype(np.float32), images.device)
    label_weights = on_device(np.where(mixup, weight, 1 - area).astype(np.float32), images.device)
    weights = outside[:, None, None].expand(-1, height, width * channels)
    weights = weights.masked_fill(_in_boxes(boxes, images), 0)
    rows = _rows_of(images)
    mixed = torch.lerp(rows[:-1], rows[1:], weights).view(-1, height, width, channels)
    labels = torch.lerp(targets[:-1], targets[1:], label_weights[:, None])
    return mixed.permute(0, 3, 1, 2), labels
