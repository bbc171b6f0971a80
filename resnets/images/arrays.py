"""Arrays and tensors that Python programs hold, as (H, W, C) or (N, H, W, C) uint8.

What three axes mean is decided here. An array (H, W, C) with C of 1, 3 or 4 is one image; any other
is a stack of grey images (N, H, W). A tensor has its channels first: (C, H, W) is one image, any
other a stack. Refused is what may be one image with its channels at the wrong end: an array
(3, H, W) or (4, H, W), a tensor (N, H, 3) or (N, H, 4).

No torch is imported here: who has a tensor has imported it.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnets.errors import UsageError
from resnets.images.resizing import Pixels

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = "(H, W), (H, W, C), (N, H, W) or (N, H, W, C) with C of 1, 3 or 4"
TENSOR_SHAPES = "(H, W), (C, H, W), (N, H, W) or (N, C, H, W) with C of 1, 3 or 4"
CHANNELS = (1, 3, 4)


def checked_array(array: NDArray[Any], several: bool = False) -> Pixels:
    """An array as (H, W, C) or (N, H, W, C).

    Args:
        array: see `SHAPES`.
        several: whether it is known to be several images, so that three axes are (N, H, W).

    Raises:
        UsageError: its type is not uint8, or its shape is not allowed.
    """
    if array.dtype != np.uint8:
        raise UsageError(
            f"an array of {array.dtype}; it must be uint8, 0 (black) to 255 (white); for values "
            "in 0..1: (values * 255).round().astype('uint8')"
        )
    grey = array.ndim == 2 or (array.ndim == 3 and (several or _is_stack(array.shape)))
    shown = array[..., None] if grey else array
    if shown.ndim not in (3, 4) or shown.shape[-1] not in CHANNELS or 0 in shown.shape[-3:]:
        raise UsageError(
            f"an array of the shape {array.shape}; it must be {SHAPES}{_shape_advice(array.shape)}"
        )
    return shown


def _is_stack(shape: tuple[int, ...]) -> bool:
    """Whether three axes are those of several grey images, as an array has them.

    >>> _is_stack((10, 28, 28)), _is_stack((28, 28, 3)), _is_stack((3, 28, 28))
    (True, False, False)
    """
    first, _, last = shape
    return last not in CHANNELS and first not in (3, 4)


def _shape_advice(shape: tuple[int, ...]) -> str:
    """What to do where the channels seem to come first, as in tensors.

    >>> _shape_advice((10, 3, 32, 32))
    '; channels come last here: images.transpose(0, 2, 3, 1)'
    """
    if len(shape) == 3 and shape[0] in CHANNELS:
        return (
            "; channels come last here: images.transpose(1, 2, 0); or several grey images: "
            "images[..., None]"
        )
    if len(shape) != 4 or shape[1] not in CHANNELS:
        return ""
    return "; channels come last here: images.transpose(0, 2, 3, 1)"


def array_of(tensor: "Tensor", several: bool = False) -> NDArray[Any]:
    """A tensor as an array (H, W, C) or (N, H, W, C) of uint8, not checked for empty axes.

    Args:
        tensor: see `TENSOR_SHAPES`.
        several: whether it is known to be several images, so that three axes are (N, H, W).

    Raises:
        UsageError: its shape or type is not allowed, or it is not in 0..1.
    """
    shape = tuple(tensor.shape)
    grey = len(shape) == 2 or (len(shape) == 3 and (several or _is_stack(shape[::-1])))
    shown = tensor.unsqueeze(-3) if grey else tensor
    if shown.ndim not in (3, 4) or shown.shape[-3] not in CHANNELS:
        raise UsageError(f"a tensor of the shape {shape}; it must be {TENSOR_SHAPES}")
    values = shown.detach().cpu()
    if values.is_floating_point():
        low, high = (float(end) for end in values.aminmax()) if values.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise UsageError(
                f"a tensor with values {low:.4g} to {high:.4g}; floating-point values must be in "
                "0..1, not normalised: the normalisation is part of the model file"
            )
        values = (values * 255).round().byte()
    return np.asarray(values.movedim(-3, -1).numpy())


def is_tensor(value: object) -> bool:
    """Whether a value is a torch.Tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
