"""Resizing by torch's vectorised kernel: about four times as fast as Pillow, within 1 of it.

The one module of this package that needs torch, so that no other imports it.
"""

import numpy as np
import torch
from torch.nn.functional import interpolate

from resnets.images.resizing import Box, Pixels


def square(image: Pixels, box: Box, size: int) -> Pixels:
    """A box of an image as a square, (size, size, C), in place of `resizing.square`.

    The box is rounded to whole pixels.
    """
    top, left, tall, wide = box
    rows = slice(round(top), max(round(top + tall), round(top) + 1))
    columns = slice(round(left), max(round(left + wide), round(left) + 1))
    part = np.ascontiguousarray(image[rows, columns])
    # reshape and not [None]: only with true strides does torch see channels_last, its fast case
    batch = torch.from_numpy(part.reshape(1, *part.shape).transpose(0, 3, 1, 2))
    resized = interpolate(batch, (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.numpy()[0].transpose(1, 2, 0))
