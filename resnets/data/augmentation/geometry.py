"""Shifts, flips and affine maps of whole batches.

B images are (B, H, W, C) uint8. Positions are in pixels from the top left corner.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnets.images.placement import on_device

_Floats = NDArray[np.floating]
_Flags = NDArray[np.bool_]


def _gather(pixels: Tensor, rows: Tensor, columns: Tensor, fill: Tensor) -> Tensor:
    """The pixels at some positions, or the fill colour for positions outside the image.

    Args:
        pixels: (B, H, W, C) uint8.
        rows: int64, broadcasts with columns to (B, H', W').
        columns: int64, likewise.
        fill: (C,) uint8.

    Returns:
        (B, H', W', C) uint8
    """
    count, height, width, channels = pixels.shape
    first = torch.arange(count, device=pixels.device).view(-1, 1, 1) * (height * width)
    inside = ((rows >= 0) & (rows < height)) & ((columns >= 0) & (columns < width))
    places = torch.where(inside, first + rows * width + columns, count * height * width)
    table = torch.cat([pixels.reshape(-1, channels), fill[None]])
    return table.index_select(0, places.flatten()).view(*places.shape, channels)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions of any range, brought into 0..size-1 by mirroring at the outermost pixels.

    >>> _reflect(torch.arange(-2, 6), 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(1, 2 * (size - 1))
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded) if size > 1 else folded


def mirrored(pixels: Tensor, flips: _Flags) -> Tensor:
    """Flip some of the images horizontally. pixels (B, H, W, C); flips (B,)."""
    chosen = on_device(np.flatnonzero(flips), pixels.device)
    return pixels.index_copy(0, chosen, pixels.index_select(0, chosen).flip(2))


def crop_and_flip(
    pixels: Tensor, shifts: NDArray[np.int64], flips: _Flags, reflect: bool, fill: Tensor
) -> Tensor:
    """Crop each image to a shifted window of its own size, then flip it horizontally.

    Args:
        pixels: (B, H, W, C) uint8.
        shifts: (B, 2), how far the window moves down and right.
        flips: (B,), which images to flip.
        reflect: whether pixels beyond the edge are the image reflected, or the fill colour.
        fill: (C,) uint8.
    """
    _, height, width, _ = pixels.shape
    ahead, back = np.arange(width), np.arange(width)[::-1]
    across = np.where(flips[:, None], back, ahead) + shifts[:, 1:]
    down = np.arange(height) + shifts[:, :1]
    rows, columns = (on_device(places, pixels.device) for places in (down, across))
    if reflect:
        rows, columns = _reflect(rows, height), _reflect(columns, width)
    return _gather(pixels, rows[:, :, None], columns[:, None, :], fill)


def affine(pixels: Tensor, maps: _Floats, fill: Tensor, bilinear: bool = False) -> Tensor:
    """Transform images by affine maps.

    Args:
        pixels: (B, H, W, C) uint8.
        maps: (B, 2, 3), from (x, y, 1) in the result to (x, y) in the image.
        fill: (C,) uint8, for positions outside the image.
        bilinear: interpolate between the four nearest pixels, as Pillow does; else use the nearest.
    """
    _, height, width, _ = pixels.shape
    moves = on_device(maps.astype(np.float32), pixels.device)[..., None, None]
    x = torch.arange(width, device=pixels.device) + 0.5
    y = torch.arange(height, device=pixels.device)[:, None] + 0.5
    across, down = (moves[:, i, 0] * x + moves[:, i, 1] * y + moves[:, i, 2] for i in (0, 1))
    nearest = _gather(pixels, down.floor().long(), across.floor().long(), fill)
    if not bilinear:
        return nearest
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    return torch.where(inside[..., None], _bilinear(pixels, across - 0.5, down - 0.5), nearest)


def _bilinear(pixels: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Bilinear interpolation at each position; pixels at the edge are repeated outwards.

    Args:
        pixels: (B, H, W, C) uint8.
        across: (B, H', W'), 0 in the middle of the leftmost pixels.
        down: likewise, from the top.

    Returns:
        (B, H', W', C) uint8
    """
    height, width = pixels.shape[1:3]
    left, top = across.floor(), down.floor()
    share_x, share_y = (across - left)[..., None], (down - top)[..., None]
    unused = pixels.new_zeros(pixels.shape[3])

    def line(rows: Tensor) -> Tensor:
        rows = rows.long().clamp(0, height - 1)
        first, second = (
            _gather(pixels, rows, columns.long().clamp(0, width - 1), unused).float()
            for columns in (left, left + 1)
        )
        return first.lerp(second, share_x)

    return line(top).lerp(line(top + 1), share_y).to(torch.uint8)
