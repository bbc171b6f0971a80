import numpy as np
import pytest
from scipy.special import softmax


@pytest.fixture(scope="session")
def drawn():
    """Logits whose labels were drawn from their own softmax at a temperature."""

    def draw(total, classes=10, temperature=1.0, scale=3.0, seed=0):
        generator = np.random.default_rng(seed)
        logits = generator.normal(scale=scale, size=(total, classes))
        odds = np.cumsum(softmax(logits / temperature, axis=1), axis=1)
        labels = (generator.random((total, 1)) > odds[:, :-1]).sum(axis=1)
        return logits, labels

    return draw
