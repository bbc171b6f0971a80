from pathlib import Path

import numpy as np
import pytest
import torch

from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage
from resnets.errors import UsageError
from resnets.evaluation.compare import (
    _compare_predictions,
    _count_statuses,
    _differences,
    _predict_classes,
    _PredictedClasses,
    _refuse_unknown,
    costs_of,
)
from resnets.evaluation.eager import Eager
from resnets.evaluation.proportion import Proportion
from resnets.images import Preprocessing
from resnets.model_file import Description, Model, save
from resnets.networks import build


def labelled(labels: list[int]) -> LabelledImages:
    pixels = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return LabelledImages(PixelStorage(pixels, "image {}".format), labels, ("cat", "dog"))


def test_only_predictions_with_the_status_ok_are_judged_by_it() -> None:
    images = labelled([0, 0, 1, 1])
    predictions = _PredictedClasses(
        ("cat", "dog", "owl", "dog"), (0.9,) * 4, ("ok", "ok", "unsure", "unfamiliar")
    )
    statuses = _count_statuses(images, predictions)
    assert [each.count for each in (statuses.ok, statuses.unsure, statuses.unfamiliar)] == [2, 1, 1]
    assert statuses.wrong == Proportion(1, 2)


def test_answers_are_matched_by_name_and_foreign_ones_are_wrong() -> None:
    images = labelled([0, 0, 1, 1, 1])
    a = _PredictedClasses(
        ("cat", "cat", "dog", "owl", "dog"), (0.9, 0.8, 0.7, 0.6, 0.5), ("ok",) * 5
    )
    b = _PredictedClasses(
        ("cat", "dog", "dog", "cat", "owl"), (0.5, 0.9, 0.9, 0.9, 0.9), ("ok",) * 5
    )
    comparison = _compare_predictions(images, a, b)
    assert (comparison.pairs.both, comparison.pairs.only_a, comparison.pairs.only_b) == (2, 2, 0)
    assert comparison.pairs.neither == 1
    assert [row.name for row in comparison.classes] == ["cat", "dog"]
    differing = _differences(images, a, b, comparison)
    assert [(each.image, each.label, each.right) for each in differing] == [
        ("image 1", "cat", "a"),
        ("image 3", "dog", "neither"),
        ("image 4", "dog", "a"),
    ]
    assert [each.surest_mistake for each in differing] == [0.9, 0.9, 0.9]
    swapped = _differences(images, b, a, _compare_predictions(images, b, a))
    assert [each.right for each in swapped] == ["b", "neither", "b"]


def test_a_class_that_a_network_does_not_know_is_named() -> None:
    _refuse_unknown(labelled([0, 1]), ("dog", "cat", "owl"), "b.safetensors")
    with pytest.raises(UsageError, match=r"b\.safetensors does not know the class 'dog' "):
        _refuse_unknown(labelled([0, 1]), ("cat", "owl"), "b.safetensors")


class Exported:
    """What an engine for an exported file can do: it gives probabilities, no logits."""

    name, threads = "elsewhere", 0

    def __init__(self, engine: Eager) -> None:
        self.description = engine.description
        self.probabilities = engine.probabilities
        self.features = engine.features
        self.graph = engine.graph


def test_an_engine_says_the_same_as_the_network_that_it_runs() -> None:
    torch.manual_seed(0)
    network = build("resnet14", width=4, num_classes=2).eval()
    preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3)
    description = Description(network.architecture.to_dict(), ("dog", "cat"), preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    images = LabelledImages(PixelStorage(pixels, str), [0, 1] * 15, ("cat", "dog"))
    engine = Eager(Model(network, description))
    own, other = (
        _predict_classes(engine, images),
        _predict_classes(Exported(engine), images, batch_size=7),
    )
    assert own.classes == other.classes
    np.testing.assert_allclose(own.probabilities, other.probabilities, atol=1e-6)
    assert len(set(own.classes)) == 2


def test_costs_are_those_of_the_papers_and_of_the_file(tmp_path: Path) -> None:
    """0.27 million parameters (He et al. 2015, table 6), which take four bytes each."""
    network = build("resnet20").eval()
    preprocessing = Preprocessing(32, 32, (0.5,) * 3, (0.2,) * 3)
    names = tuple(map(str, range(10)))
    model = Model(network, Description(network.architecture.to_dict(), names, preprocessing))
    save(tmp_path / "model", network, model.description)
    (costs,) = costs_of([Eager(model)], [tmp_path / "model"], ["A"], seconds=0)
    assert (costs.engine, costs.network) == ("torch", "resnet20")
    assert round(costs.parameters / 1e6, 2) == 0.27
    assert costs.multiply_adds // 10**5 == 405
    assert 0 < costs.file_bytes - 4 * costs.parameters < 40_000
    assert costs.latency is None
    (timed,) = costs_of([Eager(model)], [tmp_path / "model"], ["A"], seconds=0.01)
    assert timed.latency is not None
    assert timed.latency.median > 0
