import warnings

import numpy as np
import pytest

from resnets.matrices import product


def test_flags_that_a_product_leaves_behind_are_not_told() -> None:
    """Here by infinity times zero, which raises a flag on every machine."""
    left, right = np.array([[np.inf, 1]]), np.array([[0.0], [1.0]])
    with pytest.warns(RuntimeWarning):
        left @ right
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(product(left, right)).all()
