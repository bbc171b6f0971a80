"""A network in training mode is used in evaluation mode, and is left exactly as it was."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

import resnets
from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage
from resnets.deployment.export.files import _reference_probabilities
from resnets.deployment.export.graph import deployed
from resnets.errors import ContentError
from resnets.evaluation.compare import _predict_classes
from resnets.evaluation.eager import Eager
from resnets.evaluation.evaluate import outputs_on
from resnets.evaluation.explain import _occlusion, grad_cam
from resnets.model_file import Model
from resnets.networks.evaluation_mode import evaluating

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]


def labelled() -> LabelledImages:
    return LabelledImages(
        PixelStorage(IMAGES, "image {}".format), np.array(LABELS), ("cat", "dog", "owl")
    )


def tensor(model: Model) -> torch.Tensor:
    preprocessing = model.description.preprocessing
    pixels = np.stack([preprocessing.pixels(image) for image in IMAGES])
    return torch.from_numpy(preprocessing.normalise(pixels))


CALLS: dict[str, Callable[[Model], Any]] = {
    "predict": lambda m: [each.top for each in resnets.predict(m, IMAGES, top=3)],
    "evaluate": lambda m: resnets.evaluate(m, IMAGES, LABELS).to_dict(),
    "explain": lambda m: [e.heat.tolist() for e in resnets.explain(m, IMAGES)],
    "grad_cam": lambda m: grad_cam(m.network, tensor(m), LABELS).tolist(),
    "occlusion": lambda m: _occlusion(m.network, tensor(m)[:2], LABELS[:2]).tolist(),
    "compare": lambda m: _predict_classes(Eager(m), labelled()),
    "logits": lambda m: outputs_on(m, labelled()).logits.tolist(),
    "features": lambda m: Eager(m).features(IMAGES).tolist(),
    "export": lambda m: deployed(m)(torch.from_numpy(IMAGES))[0].tolist(),
    "check of an export": lambda m: _reference_probabilities(m, list(IMAGES)).tolist(),
}


@pytest.fixture
def model(untrained: Callable[..., Path]) -> Model:
    loaded = resnets.load(untrained(("cat", "dog", "owl")))
    torch.manual_seed(1)
    for part in loaded.network.modules():  # as a trained one: its statistics are not those of noise
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return loaded


def snapshot(model: Model) -> tuple[dict[str, Any], list[bool]]:
    weights = {name: value.tolist() for name, value in model.network.state_dict().items()}
    return weights, [part.training for part in model.network.modules()]


@pytest.mark.parametrize("name", CALLS)
def test_a_network_in_training_mode_says_what_it_says_in_evaluation_mode(
    name: str, model: Model
) -> None:
    if name in ("explain", "grad_cam", "occlusion"):
        pytest.importorskip("captum", reason="the extra explain is not installed")
    expected = CALLS[name](model)
    model.network.train()
    next(iter(model.network.children())).eval()  # one part frozen by hand stays so
    before = snapshot(model)
    assert CALLS[name](model) == expected
    assert snapshot(model) == before


def test_the_mode_is_restored_after_an_exception(model: Model) -> None:
    before = snapshot(Model(model.network.train(), model.description))
    with pytest.raises(ZeroDivisionError), evaluating(model.network):
        1 / model.network.training
    assert snapshot(model) == before
    with pytest.raises(ContentError):
        resnets.evaluate(model, [b"no image"], [0])
    assert snapshot(model) == before


def test_threads_that_overlap_leave_evaluation_mode_only_with_the_last(model: Model) -> None:
    network, together = model.network.train(), Barrier(2, timeout=300)

    def first() -> None:
        with evaluating(network):
            together.wait()  # both are inside
        together.wait()  # only this one has left

    def second() -> bool:
        with evaluating(network):
            together.wait()
            together.wait()
            return network.training

    with ThreadPoolExecutor(2) as pool:
        left, inside = pool.submit(first), pool.submit(second)
        left.result()
        assert not inside.result()
    assert network.training


def test_many_threads_say_the_same_of_a_network_in_training_mode(model: Model) -> None:
    expected = CALLS["predict"](model)
    model.network.train()
    before = snapshot(model)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: CALLS["predict"](model), range(16)))
    assert all(each == expected for each in answers)
    assert snapshot(model) == before


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_a_prediction_does_not_depend_on_the_other_images_of_its_batch(engine: Any) -> None:
    if engine != "torch":
        pytest.importorskip(engine, reason=f"the extra {engine} is not installed")
    network = resnets.load("resnet14_cifar10", engine=engine, threads=1)
    random = np.random.default_rng(2)
    images = random.integers(0, 256, (24, 32, 32, 3), np.uint8)
    images[::3] //= 8  # dark ones among light ones, so that a batch's own statistics would show
    together = network.probabilities(images)
    for size in (1, 2, 5, 16):
        parts = [network.probabilities(images[i : i + size]) for i in range(0, len(images), size)]
        assert np.abs(np.concatenate(parts) - together).max() < 1e-6
