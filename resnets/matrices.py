"""Products of matrices of NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """The product `left @ right` of finite numbers, without a warning.

    Some kernels of BLAS leave the processor's flags of division by zero, overflow or invalid values
    behind though every number is finite, and NumPy warns of them.

    >>> product(np.array([[1, 2], [3, 4]]), np.array([1, 1])).tolist()
    [3, 7]
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.asarray(left @ right)
