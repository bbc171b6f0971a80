"""The step to 8 bits on an exported file, and to 16: judged before it is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage
from resnets.deployment.engine import open_engine
from resnets.deployment.exported import read_onnx, report_of
from resnets.deployment.quantise import evenly, frames, quantise
from resnets.errors import ContentError, UsageError
from resnets.images import Preprocessing
from resnets.model_file import Description

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

Make = Callable[[int], Any]
NAMES = ("ant", "bee", "cat", "dog", "eel")
SEEN = Preprocessing(20, 20, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def exported(graph: bytes, tmp_path: Path) -> Path:
    """A file in float32 as `export` writes it."""
    model = onnx.load_from_string(graph)
    header = Description({}, NAMES, SEEN).to_header()
    header["export"] = json.dumps({"origin": "abc"})
    for key, value in header.items():
        model.metadata_props.add(key=key, value=value)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def labelled(pixels: Any, labels: Any) -> LabelledImages:
    return LabelledImages(PixelStorage(pixels, str), labels, NAMES)


def own_answers(file: Path, pixels: Any) -> Any:
    """What a file itself says of images, which makes it right on all of them."""
    engine = open_engine(file, "onnxruntime")
    return np.concatenate([engine.probabilities(pixels[i : i + 1]) for i in range(len(pixels))])


def test_the_loss_is_the_share_of_images_on_which_8_bits_err_alone(
    exported: Path, images: Make
) -> None:
    """Labels are the float32 file's answers, so that it is always right: 8 bits can only lose."""
    pixels = images(300)
    probabilities = own_answers(exported, pixels)
    target = exported.with_name("small.onnx")
    test = labelled(pixels, probabilities.argmax(1)), "300 images"
    done = quantise(exported, target, labelled(images(64), np.zeros(64)), test, max_loss=100)
    small = own_answers(target, pixels)
    differing = (small.argmax(1) != probabilities.argmax(1)).mean()
    assert 0 < differing < 0.2
    assert done.loss == pytest.approx(100 * differing)
    assert done.calibration == 64
    assert f"{done.bytes_after:,} bytes" in done.in_words()
    assert 0 < done.bytes_after < done.bytes_before


def test_the_file_in_8_bits_says_of_itself_what_the_one_in_float32_does_and_more(
    exported: Path, images: Make
) -> None:
    test = labelled(images(20), np.arange(20) % 5), "20 images"
    quantise(exported, exported, labelled(images(32), np.zeros(32)), test, max_loss=100)
    _, header = read_onnx(exported)  # finds it harmless, too
    report = report_of(header)
    assert report["origin"] == "abc"
    assert report["int8"]["accuracy_before"]["total"] == 20
    assert open_engine(exported, "onnxruntime").description.class_names == NAMES


def test_what_loses_too_much_is_not_written(exported: Path, images: Make) -> None:
    pixels = images(300)
    truth = own_answers(exported, pixels).argmax(1)
    before = exported.read_bytes()
    calibration = labelled(images(64), np.zeros(64))
    with pytest.raises(ContentError, match=r"is not written: 8 bits lose .* points") as caught:
        quantise(exported, exported, calibration, (labelled(pixels, truth), "x"), max_loss=0)
    assert "accuracy in int8" in str(caught.value)
    assert exported.read_bytes() == before
    assert list(exported.parent.iterdir()) == [exported]


@pytest.mark.parametrize("loss", [-1, 101, float("nan")])
def test_a_loss_that_cannot_be_is_refused(loss: float, exported: Path, images: Make) -> None:
    some = labelled(images(4), np.zeros(4))
    with pytest.raises(UsageError, match="max loss"):
        quantise(exported, exported, some, (some, "4 images"), max_loss=loss)


def test_other_files_are_refused(tmp_path: Path, images: Make) -> None:
    some = labelled(images(4), np.zeros(4))
    with pytest.raises(UsageError, match=r"8 bits are written to \.onnx or \.xml"):
        quantise(tmp_path / "a.pt2", tmp_path / "b.pt2", some, (some, "4 images"))


def test_images_are_spread_evenly_and_framed_as_engines_want_them(images: Make) -> None:
    many = labelled(images(100), np.arange(100) % 5)
    few = evenly(many, 5)
    assert few.indices.tolist() == [0, 24, 49, 74, 99]
    assert len(evenly(few, 9)) == 5
    batches = list(frames(few, SEEN, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(batches[2][0], SEEN.frame(few.image(4)))
