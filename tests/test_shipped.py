"""The networks in the package: small, honest about themselves, and as good as they say."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resnets import load, model_file, predict, shipped
from resnets.cli import main
from resnets.data.membership import TrainedOn, member_digests
from resnets.data.sources.opening import open_data
from resnets.data.splits import RULE, Splits
from resnets.deployment.engines import open_engine
from resnets.deployment.engines.selection import digest
from resnets.deployment.exported.reading import description_from, read_onnx, report_of
from resnets.errors import UsageError
from resnets.evaluation.familiarity import familiarity_of, fit_familiarity
from resnets.model_file import read_description
from resnets.model_path import find_model
from resnets.serving.drift import Drift
from tests.in_process import call, call_script
from tests.spread import spread

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHIP = Path(__file__).parents[1] / "results" / "ship.py"


def test_the_default_is_there() -> None:
    assert shipped._DEFAULT in shipped.names()
    assert shipped.shipped() == find_model(shipped._DEFAULT)


def test_list_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert all(name in last for name in shipped.names())
    assert "resnet14_cifar10 (CIFAR-10, 90." in last
    assert "resnet20_cifar10 (CIFAR-10, 91." in last


@pytest.mark.parametrize("name", shipped.names())
def test_a_network_is_small_and_says_how_it_came_about_and_how_good_it_is(name: str) -> None:
    file = shipped.shipped(name)
    about = read_description(file)
    assert file.stat().st_size < 2_000_000
    assert about.class_names == CIFAR10
    assert about.data["source"] == "CIFAR-10"
    assert about.recipe["network"] == name.partition("_")[0]
    assert about.recipe["seed"] >= 0
    assert about.metrics["test"]["top1"]["total"] == 10_000
    assert 0 < about.calibration["threshold"] < 1


@pytest.mark.parametrize("name", shipped.names())
def test_the_onnx_beside_it_was_made_from_it_and_agrees(name: str) -> None:
    file = shipped.shipped(name)
    onnx = file.with_suffix(".onnx")
    header = read_onnx(onnx)[1]
    report = report_of(header)
    assert description_from(header, str(onnx)) == read_description(file)
    assert report["origin"] == digest(file)
    assert report["agreement"]["same_answer"] == report["agreement"]["images"]


@pytest.mark.parametrize("name", shipped.names())
def test_python_takes_it_by_its_name(name: str) -> None:
    assert load(name).description.class_names == CIFAR10
    (prediction,) = predict(name, np.zeros((20, 30, 3), np.uint8), top=10)
    assert {name for name, _ in prediction.top} == set(CIFAR10)
    assert sum(probability for _, probability in prediction.top) == pytest.approx(1, abs=1e-5)


@pytest.mark.soak
@pytest.mark.parametrize("name", shipped.names())
def test_it_is_as_good_on_cifar10_as_its_header_says(
    name: str, shared: Callable[[str], Path]
) -> None:
    data = shared("data/cifar10")
    done = call("evaluate", name, data, "--json")
    assert done.returncode == 0, done.stderr
    top1 = json.loads(done.stdout)["top1"]
    expected = read_description(shipped.shipped(name)).metrics["test"]["top1"]
    assert top1["total"] == expected["total"]
    assert abs(top1["count"] - expected["count"]) <= 5  # other machines round otherwise


@pytest.mark.parametrize("name", spread(shipped.names()))
def test_drift_is_near_zero_for_test_images_and_large_for_others(
    name: str, shared: Callable[[str], Path]
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    test = open_data(str(shared("data/cifar10"))).test
    assert test is not None
    some = np.random.default_rng(0).choice(len(test), 400, replace=False)
    engine = open_engine(shipped.shipped(name).with_suffix(".onnx"), "onnxruntime", 1)
    photos = test.subset(some).stacked()
    distances = []
    for images in (photos, np.random.default_rng(0).integers(0, 256, photos.shape, np.uint8)):
        drift = Drift(familiarity_of(engine.description.familiarity))
        for features in engine.features(images):
            drift.add(features)
        distances.append(drift.distance)
    assert distances[0] < 4 / 400**0.5  # about 1 / sqrt(n) for images of the same kind
    assert distances[1] > 0.5


def test_a_name_that_is_none_tells_which_there_are() -> None:
    with pytest.raises(UsageError, match=f"there is.*{shipped._DEFAULT}"):
        shipped.shipped("resnet50_imagenet")
    with pytest.raises(UsageError, match=rf"no such file; .*{shipped._DEFAULT}"):
        find_model("resnet50_imagenet")


def recognised_test(splits: Splits) -> list[int]:
    """What the test images are recognised by."""
    assert splits.test is not None
    digests: list[int] = member_digests(splits.test, splits.digests["test"]).tolist()
    return digests


@pytest.mark.soak
def test_a_network_is_put_into_the_package_without_the_place_of_its_data(
    untrained: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    metrics = {"test": {"top1": {"count": 17, "total": 179}, "loss": 2.3}}
    splits = open_data("digits")
    facts = {"source": "/home/me/digits", "fingerprint": splits.fingerprint, "rule": RULE}
    run = untrained(tuple("0123456789"), 8, 8, metrics=metrics, data=facts)
    words = ["--trained-on", "Digits", "--data", "digits", "--folder", str(tmp_path)]
    words = [run, "--name", "small_digits", *words]
    done = call_script(SHIP, *words)
    assert done.returncode == 0, done.stderr
    assert "17/179" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "small_digits.safetensors", "small_digits.onnx",
    }  # fmt: skip
    made = tmp_path / "small_digits.safetensors"
    about = read_description(made)
    assert about.data == facts | {"source": "Digits"}
    history = TrainedOn.from_dict(about.trained_on)
    assert (history.generations[0].source, history.generations[0].train) == ("Digits", 1457)
    assert len(history.trained) == 1457
    assert not set(history.trained.tolist()) & set(recognised_test(splits))
    exported = description_from(read_onnx(made.with_suffix(".onnx"))[1], "file")
    assert exported.trained_on == about.trained_on
    assert report_of(read_onnx(made.with_suffix(".onnx"))[1])["origin"] == digest(made)
    assert "/home/me" not in made.read_bytes().decode(errors="replace")
    known = fit_familiarity(
        np.eye(2, 64, dtype=np.float32), np.random.default_rng(0).random((40, 64))
    )
    model_file.update(run, familiarity=known.to_dict() | {"center": None})
    assert call_script(SHIP, *words).returncode == 0
    familiarity = read_description(made).familiarity
    assert familiarity["center"] is not None
    assert familiarity | {"center": None} == known.to_dict() | {"center": None}
    model_file.update(run, metrics={})
    done = call_script(SHIP, *words)
    assert done.returncode == 1
    assert "test accuracy" in done.stderr
