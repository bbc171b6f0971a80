"""Resizing by torch's vectorised kernel: about four times as fast as Pillow, within 1 of it.

The one module of this package that needs torch, so that no other imports it.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from resnets.images.resizing import Box, Pixels


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Images (B, C, H, W) of uint8 or float32 at another size, antialiased bilinear.

    As they are where they have that size already.
    """
    if images.shape[2:] == (height, width):
        return images
    return interpolate(images, (height, width), mode="bilinear", antialias=True)


def square(image: Pixels, box: Box, size: int) -> Pixels:
    """A box of an image as a square, (size, size, C), in place of `resizing.square`.

    The box is rounded to whole pixels.
    """
    top, left, tall, wide = box
    rows = slice(round(top), max(round(top + tall), round(top) + 1))
    columns = slice(round(left), max(round(left + wide), round(left) + 1))
    part = np.require(image[rows, columns], requirements=["C", "W"])  # as torch wants memory
    # reshape and not [None]: only with true strides does torch see channels_last, its fast case
    batch = torch.from_numpy(part.reshape(1, *part.shape).transpose(0, 3, 1, 2))
    return np.ascontiguousarray(resized(batch, size, size).numpy()[0].transpose(1, 2, 0))
