"""The speed of an engine on a file. `selection` runs this module in a process of its own."""

import sys
import time

import numpy as np

from resnets.deployment.engines.opening import open_engine

_BATCHES = (1, 32)
_SECONDS = 0.3  # of measuring, per batch size


def _measure(path: str, name: str, threads: int = 0) -> float:
    """Images per second: geometric mean over batches of 1 and of 32 images."""
    engine = open_engine(path, name, threads)  # type: ignore[arg-type]
    preprocessing = engine.description.preprocessing
    shape = (preprocessing.resize, preprocessing.resize, preprocessing.channels)
    product = 1.0
    for batch in _BATCHES:
        images = np.zeros((batch, *shape), np.uint8)
        engine.probabilities(images)
        start, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < _SECONDS or count < 3:
            engine.probabilities(images)
            count += batch
        product *= count / elapsed
    return float(product ** (1 / len(_BATCHES)))


if __name__ == "__main__":
    print(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))  # noqa: T201
