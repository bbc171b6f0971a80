"""Arrays and tensors that Python programs hold, as (H, W, C) or (N, H, W, C) uint8.

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

SHAPES = "(H, W), (H, W, C) or (N, H, W, C) with C of 1, 3 or 4"
TENSOR_SHAPES = "(C, H, W) or (N, C, H, W) with C of 1, 3 or 4"
CHANNELS = (1, 3, 4)


def checked_array(array: NDArray[Any]) -> Pixels:
    """An array as (H, W, C) or (N, H, W, C).

    Raises:
        UsageError: its type is not uint8, or its shape is none of those.
    """
    shown = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8:
        raise UsageError(
            f"an array of {array.dtype}; it must be uint8, 0 (black) to 255 (white): "
            "(numbers in 0..1 * 255).round().astype('uint8')"
        )
    if shown.ndim not in (3, 4) or shown.shape[-1] not in CHANNELS or 0 in shown.shape[-3:]:
        raise UsageError(
            f"an array of the shape {array.shape}; it must be {SHAPES}{_turned(array.shape)}"
        )
    return shown


def _turned(shape: tuple[int, ...]) -> str:
    """What to do with grey images, or where the channels seem to come first, as in tensors.

    >>> _turned((10, 3, 32, 32))
    '; channels come last here: images.transpose(0, 2, 3, 1)'
    >>> _turned((10, 28, 28))
    '; several grey images: images[..., None]'
    """
    if len(shape) == 3:
        first = "channels come last here: images.transpose(1, 2, 0); or " * (shape[0] in CHANNELS)
        return f"; {first}several grey images: images[..., None]"
    if len(shape) != 4 or shape[1] not in CHANNELS:
        return ""
    return "; channels come last here: images.transpose(0, 2, 3, 1)"


def array_of(tensor: "Tensor") -> NDArray[Any]:
    """A tensor (..., C, H, W) as an array (..., H, W, C) of uint8.

    Raises:
        UsageError: its shape or type is not allowed, or it is not in 0..1.
    """
    if tensor.ndim not in (3, 4) or tensor.shape[-3] not in CHANNELS:
        raise UsageError(f"a tensor of the shape {tuple(tensor.shape)}; it must be {TENSOR_SHAPES}")
    values = tensor.detach().cpu()
    if values.is_floating_point():
        low, high = (float(end) for end in values.aminmax()) if values.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise UsageError(
                f"a tensor with values {low:.4g} to {high:.4g}; floating point must be in 0..1, "
                "before any normalisation: the model file knows that of its network"
            )
        values = (values * 255).round().byte()
    return np.asarray(values.movedim(-3, -1).numpy())


def is_tensor(value: object) -> bool:
    """Whether a value is a torch.Tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
