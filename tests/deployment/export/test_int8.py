"""The step to 8 bits on an exported file, and to 16: judged before it is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.data.labelled import LabelledImages
from resnets.data.membership import NONE
from resnets.data.storage import PixelStorage
from resnets.deployment.engines.opening import open_engine
from resnets.deployment.export.int8 import (
    Quantisation,
    _balanced_sample,
    _frames,
    _images_needed,
    _number_to_draw,
    _Scales,
    _without_guarantees,
    quantise,
)
from resnets.deployment.export.int8_onnx import Choice
from resnets.deployment.exported.reading import read_onnx, report_of
from resnets.errors import ContentError, UsageError
from resnets.evaluation import recalibration
from resnets.evaluation.calibration import Calibration, calibrate
from resnets.evaluation.familiarity import class_directions, familiarity_of, fit_familiarity
from resnets.evaluation.paired import compare
from resnets.format import byte_size
from resnets.golden import difference, golden_image
from resnets.images import Preprocessing
from resnets.model_file import Description

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

Make = Callable[[int], Any]
NAMES = ("ant", "bee", "cat", "dog", "eel")
NETWORK = {"block": "residual", "depths": [1], "num_classes": 5}
SEEN = Preprocessing(20, 20, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def exported(graph: bytes, tmp_path: Path) -> Path:
    """A file in float32 as `export` writes it."""
    model = onnx.load_from_string(graph)
    header = Description(NETWORK, NAMES, SEEN).to_header()
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
    assert byte_size(done.bytes_after) in done.in_words(100)
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
    with pytest.raises(ContentError, match=r"is not written: .* points") as caught:
        quantise(exported, exported, calibration, (labelled(pixels, truth), "x"), max_loss=0)
    assert "in int8" in str(caught.value)
    assert exported.read_bytes() == before
    assert list(exported.parent.iterdir()) == [exported]


@pytest.mark.parametrize("loss", [-1, 101, float("nan")])
def test_a_loss_that_cannot_be_is_refused(loss: float, exported: Path, images: Make) -> None:
    some = labelled(images(4), np.zeros(4))
    with pytest.raises(UsageError, match="max loss"):
        quantise(exported, exported, some, (some, "4 images"), max_loss=loss)


def test_other_files_are_refused(tmp_path: Path, images: Make) -> None:
    some = labelled(images(4), np.zeros(4))
    with pytest.raises(UsageError, match=r"int8 .*\.onnx or \.xml"):
        quantise(tmp_path / "a.pt2", tmp_path / "b.pt2", some, (some, "4 images"))


def test_images_are_framed_as_engines_want_them(images: Make) -> None:
    few = labelled(images(5), np.arange(5))
    batches = list(_frames(few, SEEN, 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(batches[2][0], SEEN.frame(few.image(4)))


def test_images_are_drawn_at_random_one_of_each_class_in_turn() -> None:
    """They lie class by class, as in a folder; one class has a single image."""
    labels = np.repeat([0, 1, 2, 3, 4], [50, 100, 100, 1, 100])
    many = labelled(np.zeros((351, 1, 1, 3), np.uint8), labels)
    drawn = _balanced_sample(many, 42)
    assert sorted(drawn.labels[:5]) == [0, 1, 2, 3, 4]
    assert all(9 <= count <= 10 for count in np.bincount(drawn.labels[5:])[[0, 1, 2, 4]])
    assert len(set(drawn.indices.tolist())) == 42
    firsts = [drawn.indices[place] for place in range(5)]
    assert firsts != [0, 50, 150, 250, 251]
    assert len(_balanced_sample(many, 1000)) == 351
    assert _balanced_sample(many, 42).indices.tolist() == drawn.indices.tolist()


def test_the_scales_see_every_class_and_the_images_are_counted_truly(
    exported: Path, images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images that lie class by class; the quantiser itself is watched."""
    from resnets.deployment.export import int8_onnx

    seen: list[int] = []
    reader = int8_onnx._Reader.get_next

    def watched(self: Any) -> Any:
        batch = reader(self)
        seen.append(0 if batch is None else len(next(iter(batch.values()))))
        return batch

    monkeypatch.setattr(int8_onnx._Reader, "get_next", watched)
    calibration = labelled(images(500), np.repeat(np.arange(5), 100))
    test = labelled(images(20), np.arange(20) % 5), "20 images"
    done = quantise(exported, exported, calibration, test, max_loss=100)
    assert done.scales.images == 256
    assert sum(seen) == 256 * 4  # once for each choice of layers
    assert (done.scales.classes, done.scales.of) == (5, 5)
    assert "256 images of all 5 classes" in done.in_words(100)


@pytest.mark.parametrize("classes", [2, 10, 256, 1000])
def test_enough_images_are_drawn_for_every_class_to_be_seen_by_the_scales(classes: int) -> None:
    batches = _number_to_draw(classes) // 16
    assert 16 * (batches - round(batches * quantise_share())) >= max(256, classes)


def quantise_share() -> float:
    from resnets.deployment.export.int8_onnx import _SHARE_HELD_OUT

    return _SHARE_HELD_OUT


def measured(total: int, only_float: int, only_int8: int) -> Quantisation:
    """A step to 8 bits after which so many images are right in only one of the files."""
    truth = np.zeros(total, np.int64)
    before, after = truth.copy(), truth.copy()
    after[:only_float] = 1
    before[only_float : only_float + only_int8] = 1
    comparison = compare(before, after, truth, ["a", "b"])
    scales, choice = _Scales(256, 2, 2, 80), Choice((), {}, 16)
    return Quantisation(comparison, f"{total} images", scales, choice, 10, 5, "none")


def test_thirty_images_on_which_both_agree_do_not_prove_that_nothing_is_lost() -> None:
    """Tango's interval of 0 of 30 ends at z^2 / (n + z^2): 11.4 points."""
    done = measured(30, 0, 0)
    assert done.worst == pytest.approx(100 * 1.96**2 / (30 + 1.96**2), abs=0.01)
    with pytest.raises(ContentError, match=r"11\.4 points cannot be.* 30 images.*--force") as error:
        done.refuse("a.onnx", 0.5, force=False)
    assert str(error.value).count("cannot be excluded") == 1
    assert len(str(error.value)) < 250
    done.refuse("a.onnx", 0.5, force=True)
    assert "11.4 points cannot be excluded on 30 images" in done.in_words(0.5)


def test_with_more_images_the_doubt_is_told_and_with_many_there_is_none() -> None:
    some = measured(200, 0, 0)
    some.refuse("a.onnx", 0.5, force=False)
    assert "cannot be excluded on 200 images" in some.in_words(0.5)
    many = measured(10_000, 5, 4)
    many.refuse("a.onnx", 0.5, force=False)
    assert "cannot be excluded" not in many.in_words(0.5)


def test_a_loss_that_was_measured_is_refused_even_by_force() -> None:
    with pytest.raises(ContentError, match=r"2\.00 points"):
        measured(1000, 20, 0).refuse("a.onnx", 0.5, force=True)


@pytest.mark.parametrize("points", [0.5, 5.0, 20.0])
def test_the_number_of_images_that_is_asked_for_is_enough(points: float) -> None:
    assert measured(_images_needed(points), 0, 0).worst <= points + 1e-6
    assert measured(_images_needed(points) - 1, 0, 0).worst > points


def fitted(max_error: float = 0.1) -> dict[str, Any]:
    """A calibration of the float32 file, far from what its images would give."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((500, 5)) * 0.1
    calibration = calibrate(logits, random.integers(0, 5, 500), max_error).to_dict()
    return calibration | {"temperature": 1.0, "threshold": 0.999, "promised": True}


def test_the_file_in_8_bits_has_its_own_temperature_thresholds_and_metrics(
    graph: bytes, images: Make, tmp_path: Path
) -> None:
    model = onnx.load_from_string(graph)
    about = Description(
        NETWORK, NAMES, SEEN, calibration=fitted(), metrics={"test": {"loss": 123.0}}
    )
    for key, value in about.to_header().items():
        model.metadata_props.add(key=key, value=value)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(model.SerializeToString())
    pixels = images(400)
    truth = own_answers(source, pixels).argmax(1)
    wrong = np.random.default_rng(1).random(400) < 0.02
    truth[wrong] = (truth[wrong] + 1) % 5  # the network is right more often than it says
    chosen = recalibration.CalibrationImages(labelled(pixels, truth), "400 images", 1, NONE, ())
    test = labelled(pixels, truth), "400 images"
    done = quantise(source, target, labelled(images(64), np.arange(64) % 5), test, 100, chosen)
    made, plain = open_engine(target, "onnxruntime"), open_engine(source, "onnxruntime")
    new = made.description.calibration
    assert new["temperature"] != pytest.approx(1.0)
    assert new["threshold"] != 0.999
    assert new["total"] == 400
    # the graph's own probabilities are at the new temperature: an independent fit agrees
    logits = np.log(made.probabilities(pixels)) * new["temperature"]
    again = calibrate(logits, truth, 0.1)
    assert again.temperature == pytest.approx(new["temperature"], rel=1e-3)
    distance = np.abs(made.probabilities(pixels) - plain.probabilities(pixels)).max()
    assert distance > 0.05
    top1 = made.description.metrics["test"]["top1"]
    assert top1["count"] == int((made.probabilities(pixels).argmax(1) == truth).sum())
    assert made.description.metrics["validation"]["top1"]["total"] == 400
    assert "fitted on 400 images, in int8" in done.in_words(100)


def test_without_validation_images_nothing_is_promised(
    graph: bytes, images: Make, tmp_path: Path
) -> None:
    model = onnx.load_from_string(graph)
    for key, value in Description(NETWORK, NAMES, SEEN, calibration=fitted()).to_header().items():
        model.metadata_props.add(key=key, value=value)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    test = labelled(images(20), np.arange(20) % 5), "20 images"
    done = quantise(path, path, labelled(images(32), np.zeros(32)), test, max_loss=100)
    assert open_engine(path, "onnxruntime").description.calibration["promised"] is False
    assert "not measured in int8" in done.in_words(100)


def test_what_was_measured_in_float32_promises_nothing_for_8_bits_at_any_target() -> None:
    labels = np.arange(2000) % 5
    made = calibrate(9.0 * np.eye(5)[labels], labels)
    assert made.promised
    assert made.at(0.05).promised
    description = Description(NETWORK, NAMES, SEEN, calibration=made.to_dict())
    left = Calibration.from_dict(_without_guarantees(description))
    assert not any(left.at(rate).promised for rate in (0.01, 0.02, 0.05, 0.3))
    assert left.threshold == made.threshold


def test_the_file_in_8_bits_calls_as_many_validation_images_unfamiliar_as_before(
    graph: bytes, images: Make, tmp_path: Path
) -> None:
    """Its features are others, so the threshold is too."""
    pixels, labels = images(200), np.arange(200) % 5
    model = onnx.load_from_string(graph)
    path = tmp_path / "model.onnx"
    for familiarity in ({}, None):  # at first without, to have the features
        about = Description(NETWORK, NAMES, SEEN, familiarity=familiarity or {})
        if familiarity is None:
            features = open_engine(path, "onnxruntime").features(pixels)
            known = fit_familiarity(class_directions(features, labels), features)
            about = Description(NETWORK, NAMES, SEEN, familiarity=known.to_dict())
        del model.metadata_props[:]
        for key, value in about.to_header().items():
            model.metadata_props.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
    chosen = recalibration.CalibrationImages(labelled(pixels, labels), "200 images", 1, NONE, ())
    some, target = labelled(images(64), np.arange(64) % 5), tmp_path / "int8.onnx"
    quantise(path, target, some, (labelled(pixels, labels), "200 images"), 100, chosen)
    made = open_engine(target, "onnxruntime")
    moved = familiarity_of(made.description.familiarity)
    assert moved is not None
    assert moved.threshold != known.threshold
    rounded = made.features(pixels)
    assert (~moved.familiar(rounded)).sum() == (~known.familiar(features)).sum() == 10
    assert moved.lost.count == 10
    golden = made.probabilities(golden_image(made.description.preprocessing)[None])[0]
    assert difference(made.description.golden, golden) < 1e-5
