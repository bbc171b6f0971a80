"""Test-time augmentation: the mean over an image and its mirror image, and what is said of it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import evaluate, load, predict
from resnets.cli import main
from resnets.evaluation.tta import _MirrorAveraged, _mirrored, in_words
from resnets.images import Preprocessing
from resnets.images.resizing import centre_crop

MODEL = "resnet20_cifar10"  # which was calibrated


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)
    return small.repeat(6, axis=1).repeat(7, axis=2)  # of 36 x 42 pixels


@pytest.mark.parametrize("engine", [None, "onnxruntime"])
def test_probabilities_are_the_mean_over_an_image_and_its_mirror_image(
    images: np.ndarray, engine: str | None
) -> None:
    if engine:
        pytest.importorskip(engine)
    model = load(MODEL, engine=engine) if engine else load(MODEL)
    square = images[:, :, 3:39]  # mirroring it commutes with resizing
    plain, turned = (predict(model, each, top=10) for each in (square, square[:, :, ::-1]))
    for one, other, both in zip(
        plain, turned, predict(model, square, top=10, tta=True), strict=True
    ):
        first, second = dict(one.top), dict(other.top)
        expected = {name: (first[name] + second[name]) / 2 for name in first}
        assert dict(both.top) == pytest.approx(expected, abs=1e-3)
        assert both.prediction == max(expected, key=expected.__getitem__)
    assert any(
        one.probability != both.probability
        for one, both in zip(plain, predict(model, square, tta=True), strict=True)
    )


@pytest.mark.parametrize(("size", "resize"), [(4, 4), (4, 7), (3, 8)])
def test_just_what_the_network_sees_is_mirrored(size: int, resize: int) -> None:
    preprocessing = Preprocessing(size, resize, (0.5,), (0.5,))
    frames = np.random.default_rng(0).integers(0, 256, (2, resize, resize, 1), np.uint8)
    for frame, mirror_image in zip(frames, _mirrored(frames, preprocessing), strict=True):
        expected = centre_crop(frame, size)[:, ::-1]
        np.testing.assert_array_equal(centre_crop(mirror_image, size), expected)


def test_thresholds_stay_and_promise_nothing(images: np.ndarray) -> None:
    labels = [row.prediction for row in predict(MODEL, images)]
    plain, both = (evaluate(MODEL, images, labels, tta=tta) for tta in (False, True))
    assert both.threshold == plain.threshold is not None
    assert not both.promised
    description = _MirrorAveraged(load(MODEL, engine="torch")).description
    assert not description.calibration["promised"]
    assert not any(each["promised"] for each in description.calibration["thresholds"])
    assert plain.metrics.top1.count == len(labels)
    confidence = [row.probability for row in predict(MODEL, images, tta=True)]
    assert both.statuses is not None
    assert both.statuses.unsure.count <= sum(each < both.threshold for each in confidence)


def test_figures_are_those_of_the_averaged_probabilities(images: np.ndarray) -> None:
    rows = predict(MODEL, images, tta=True)
    evaluation = evaluate(MODEL, images, ["cat"] * len(images), tta=True)
    assert evaluation.metrics.top1.count == sum(row.prediction == "cat" for row in rows)
    of_cat = [dict(row.top)["cat"] for row in predict(MODEL, images, top=10, tta=True)]
    assert evaluation.metrics.loss == pytest.approx(-np.log(of_cat).mean(), abs=1e-3)
    assert evaluation.temperature == 1  # what is averaged is calibrated already
    assert evaluation.before.error == evaluation.after.error


def test_commands_say_that_it_was_used(
    images: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        Image.fromarray(images[number]).save(tmp_path / name / "0.png")
    data = str(tmp_path)
    for command in (["predict", MODEL, data], ["evaluate", MODEL, data, "--split", "all"]):
        assert main([*command, "--tta"]) == 0
        message = capsys.readouterr().err
        assert "mirror image" in message
        assert "promise" in message
        assert main(command) == 0
        assert "mirror" not in capsys.readouterr().err
    assert main([*command, "--tta", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["computed"]["tta"] is True
    assert figures["calibration"]["promised"] is False


@pytest.mark.parametrize(("flip", "doubted"), [("none", True), ("random", False)])
def test_a_network_trained_without_mirrored_images_is_doubted(
    untrained: Callable[..., Path], flip: str, doubted: bool
) -> None:
    path = untrained(("a", "b"), recipe={"augmentation": {"flip": flip}})
    assert ("worse" in in_words(load(path).description)) == doubted
