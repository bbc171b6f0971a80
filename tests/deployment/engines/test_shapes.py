from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.deployment.engines.opening import EngineName, open_engine
from resnets.deployment.engines.shapes import _MIN_REPEATS, Graphs

RUNS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2 * _MIN_REPEATS)))
SIZES = RUNS.map(lambda runs: [size for size, times in runs for _ in range(times)])


@given(SIZES)
def test_a_batch_size_gets_its_own_graph_when_it_keeps_coming(sizes: list[int]) -> None:
    made: list[int | None] = []

    def make(batch: int | None) -> int | None:
        made.append(batch)
        return batch or -1

    graphs = Graphs(make)
    used_graphs = [graphs.for_batch(size) for size in sizes]
    assert all(graph in (-1, size) for size, graph in zip(sizes, used_graphs, strict=True))
    assert all(graph == 1 for size, graph in zip(sizes, used_graphs, strict=True) if size == 1)
    several = [(s, g) for s, g in zip(sizes, used_graphs, strict=True) if s > 1]
    kept = None  # the size that has a graph of its own, until another one keeps coming
    for size, run in groupby(several, key=lambda pair: pair[0]):
        got = [graph for _, graph in run]
        first = [-1] * (0 if size == kept else _MIN_REPEATS)
        assert got == (first + [size] * len(got))[: len(got)]
        kept = size if len(got) > len(first) else kept
    assert made.count(1) == 1
    assert made.count(None) <= 1


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_answers_do_not_depend_on_the_graph(name: EngineName, exported: Path) -> None:
    engine = open_engine(exported, name, threads=1)
    side = engine.description.preprocessing.resize
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    probabilities = [engine.probabilities(images) for _ in range(_MIN_REPEATS + 2)]
    alone = np.concatenate([engine.probabilities(image[None]) for image in images])
    for each in probabilities:
        np.testing.assert_allclose(each, alone, atol=1e-5)
    np.testing.assert_allclose(engine.probabilities(images[:2]), alone[:2], atol=1e-5)
