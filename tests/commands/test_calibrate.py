"""`resnets calibrate`, and `--max-error` of what reads its files."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets import cli, model_file, model_path
from resnets.data.membership import Generation, TrainedOn
from resnets.data.sources.opening import open_data
from resnets.deployment.engines.opening import open_engine
from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration, calibrate
from resnets.evaluation.evaluate import outputs_on
from resnets.evaluation.exposure import members_of
from resnets.evaluation.familiarity import Familiarity, familiarity_of
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.recalibration import refit_familiarity

OLD = Path(__file__).parents[1] / "fixtures" / "before_trust" / "digits.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network that knows some digits, as a file of an earlier version."""
    return Path(shutil.copy(OLD, tmp_path / "model.safetensors"))


@pytest.fixture
def calibrated(model: Path) -> Path:
    """The same with thresholds for many targets."""
    output = model.with_name("new.safetensors")
    resnets.calibrate(model, "digits", split="test", max_error=0.3, output=output)
    return output


def test_python_replaces_a_file_only_when_asked(model: Path, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"of somebody else")
    how: dict[str, Any] = {"split": "test", "max_error": 0.3}
    for target in (tmp_path / "other.safetensors", model):
        before = target.read_bytes()
        with pytest.raises(UsageError, match=r"exists.*overwrite=True"):
            resnets.calibrate(model, "digits", output=target, **how)
        assert target.read_bytes() == before
        resnets.calibrate(model, "digits", output=target, overwrite=True, **how)
        assert resnets.load(target).description.calibration["max_error"] == 0.3


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_a_new_file_gets_what_was_fitted_and_the_old_one_stays(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    assert run("calibrate", model, "digits", "--max-error", "0.2") == 0
    output = capsys.readouterr().out
    old, new = (
        model_file.load(model),
        model_file.load(model.with_name("model-calibrated.safetensors")),
    )
    assert model.read_bytes() == before
    for name, value in old.network.state_dict().items():
        assert value.equal(new.network.state_dict()[name])
    images = open_data("digits").test
    assert images is not None
    expected = calibrate(outputs_on(old, images).logits, images.labels, 0.2)
    calibration = Calibration.from_dict(new.description.calibration)
    assert replace(calibration, images="") == expected
    fitted: dict[str, Any] = {"calibration": {}, "familiarity": {}}
    assert replace(new.description, **fitted) == replace(old.description, **fitted)
    assert f"{expected.errors}" in output
    assert "at most 20 %" in output
    assert "model-calibrated.safetensors" in output
    assert "no longer" in output  # the test images are used up


def test_the_familiarity_threshold_follows_the_new_images(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first score from half of the images; then a threshold that keeps 95 % of others."""
    first = model.with_name("first.safetensors")
    assert run("calibrate", model, "digits", "--output", first, "--split", "test") == 0
    output = capsys.readouterr().out
    made = familiarity_of(model_file.read_description(first).familiarity)
    assert made is not None
    assert made.directions.shape[0] == 10
    assert made.lost == Proportion(4, 90)  # of 179 images, the larger half of each class
    assert "never calibrated, no familiarity" in output or "no familiarity. Now" in output
    assert f"least familiarity {made.threshold:.3f}" in output
    images = open_data("digits").test
    assert images is not None
    dark = (images.stacked() // 3).astype(np.uint8)
    moved = resnets.calibrate(first, dark, images.labels)
    new = familiarity_of(moved.description.familiarity)
    assert new is not None
    assert new.threshold != made.threshold
    assert (new.lost, new.total) == (Proportion(8, 179), 179)  # at most 5 %
    statuses = [each.status for each in resnets.predict(moved, dark)]
    assert statuses.count("unfamiliar") == 8


def test_no_score_is_made_up_for_classes_without_images(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every image of such a class would be unfamiliar."""
    images = open_data("digits").test
    assert images is not None
    few = np.flatnonzero(images.labels < 7)
    made = resnets.calibrate(model, images.stacked()[few], images.labels[few])
    assert made.description.familiarity == {}
    description, why = refit_familiarity(made.description, np.eye(10), np.arange(10))
    assert description.familiarity == {}
    assert "10 of the 10 classes have less than 2 images" in why
    assert "not known" in refit_familiarity(made.description, None, np.arange(10))[1]


def test_a_share_that_other_images_chose_is_kept() -> None:
    directions = np.eye(2, 3, dtype=np.float32)
    seen = np.random.default_rng(0).uniform(0.1, 1, (200, 3))
    chosen = Familiarity(directions, 0.9, 100, Proportion(1, 100), others="40 photos")
    assert chosen.refitted(seen).lost == Proportion(2, 200)
    assert replace(chosen, others="").refitted(seen).lost == Proportion(10, 200)


def test_a_few_images_choose_no_threshold_of_familiarity(model: Path) -> None:
    known = Familiarity(np.eye(2, 3, dtype=np.float32), 0.9, 100, Proportion(1, 100), others="40")
    before = replace(model_file.read_description(model), familiarity=known.to_dict())
    seen = np.random.default_rng(0).uniform(0.1, 1, (200, 3))
    labels = np.arange(10).repeat(20)
    description, why = refit_familiarity(before, seen[:19], labels[:19])
    assert description == before
    assert "20 images" in why
    once, _ = refit_familiarity(before, seen, labels)
    assert once != before
    assert refit_familiarity(once, seen, labels)[0] == once


def test_it_is_changed_in_place_only_if_one_says_so(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    words = ["calibrate", model, "digits", "--output", model]
    assert run(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert model.read_bytes() == before
    assert run(*words, "--overwrite", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["file"] == str(model)
    assert model_file.read_description(model).calibration == result["calibration"]
    assert result["calibration"]["total"] == 179


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["digits", "--max-error", "0"], 2, "between 0 and 1"),
        (["digits", "--output", "nowhere/x.safetensors"], 2, "no folder"),
        (["digits", "--output", "x.onnx"], 2, ".safetensors"),
        (["nowhere", "--output", "model.safetensors"], 2, "nowhere: no such file"),
    ],
)
def test_what_cannot_calibrate_is_refused_and_nothing_is_written(
    words: list[str],
    code: int,
    message: str,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(model.parent)
    assert run("calibrate", model, *words) == code
    assert message in capsys.readouterr().err
    assert [path.name for path in model.parent.iterdir()] == ["model.safetensors"]


@pytest.fixture
def trained_on_some(model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A network that was trained on 30 of 90 images and validated on 20, and these images."""
    images = open_data("digits").test
    assert images is not None
    for place in range(90):
        file = tmp_path / "own" / str(images.labels[place]) / f"{place:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.image(place, 3)).save(file)
    own = open_data(str(tmp_path / "own"), validation=0, test=0, to_learn=False).train
    members = members_of(own)
    history = TrainedOn((Generation.of("own", members[:30], members[30:50]),))
    model_file.update(model, trained_on=history.to_dict(), data={})
    return model, tmp_path / "own"


def test_images_that_were_seen_are_left_out_and_those_used_count_as_seen(
    trained_on_some: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, own = trained_on_some
    (own / "3" / "broken.png").write_bytes(b"")
    words = ["calibrate", model, own, "--split", "all", "--json"]
    assert run(*words) == 1
    assert "broken.png" in capsys.readouterr().err
    assert run(*words, "--skip-unreadable") == 0
    captured = capsys.readouterr()
    assert "broken.png" in captured.err
    result = json.loads(captured.out)
    assert "broken.png" in result["skipped"][0][0]
    (own / "3" / "broken.png").unlink()
    assert result["calibration"]["total"] == 40
    assert any("30" in remark and "20" in remark for remark in result["remarks"])
    new = result["file"]
    history = TrainedOn.from_dict(model_file.read_description(new).trained_on).generations[0]
    assert (len(history.trained), len(history.validated), history.validation) == (30, 60, 60)
    assert run("evaluate", model, own) == 0  # 40 are new to the old file, none to the new one
    assert "40 images" in capsys.readouterr().out
    assert run("evaluate", new, own) == 2
    message = capsys.readouterr().err
    assert "trained on 30" in message
    assert "calibrated on 60" in message
    assert run("calibrate", new, own) == 2
    message = capsys.readouterr().err
    assert "folds" not in message
    target = float(re.search(r"--max-error (\S+?)`", message)[1])
    fitted = Calibration.from_dict(model_file.read_description(new).calibration)
    assert fitted.threshold is None
    assert fitted.at(target).threshold is not None
    stricter = [each.max_error for each in fitted.thresholds if each.max_error < target]
    assert all(fitted.at(each).threshold is None for each in stricter)


def test_the_folder_of_a_run_tells_of_a_newer_calibrated_file_beside_its_network(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = Path(shutil.move(model, folder / "model.safetensors"))
    photo = tmp_path / "photo.png"
    Image.new("L", (8, 8)).save(photo)
    new = folder / "model-calibrated.safetensors"
    assert run("predict", folder, photo) == 0
    assert new.name not in capsys.readouterr().err
    assert run("calibrate", folder, "digits", "--max-error", "0.3") == 0
    assert f"resnets predict {new}" in capsys.readouterr().out
    for words in (["predict", folder, photo], ["evaluate", folder, "digits", "--split", "all"]):
        model_path._tell_of_calibrated.cache_clear()
        assert run(*words) == 0
        assert str(new) in capsys.readouterr().err
    model_path._tell_of_calibrated.cache_clear()
    assert run("predict", file, photo) == 0  # which one is meant is plain
    assert new.name not in capsys.readouterr().err
    os.utime(new, (1, 1))  # of an earlier network of this folder
    assert run("predict", folder, photo) == 0
    assert new.name not in capsys.readouterr().err


def test_python_refuses_images_that_were_trained_on(trained_on_some: tuple[Path, Path]) -> None:
    model, own = trained_on_some
    files = sorted(own.rglob("*.png"))
    labels = [file.parent.name for file in files]
    with pytest.raises(UsageError, match="trained on 30 of these 90"):
        resnets.calibrate(model, files, labels)


def test_an_exported_file_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = Path(shutil.copy(OLD.with_suffix(".onnx"), tmp_path / "model.onnx"))
    assert run("calibrate", exported, "digits") == 2
    assert "export" in capsys.readouterr().err
    with pytest.raises(UsageError, match="model file"):
        resnets.calibrate(exported, "digits")


def test_python_calibrates_on_images_and_labels_of_its_own(model: Path) -> None:
    images = open_data("digits").test
    assert images is not None
    by_data = resnets.calibrate(model, "digits", max_error=0.3)
    by_labels = resnets.calibrate(
        resnets.load(model), images.stacked(), images.labels, max_error=0.3
    )
    one, other = (each.description.calibration for each in (by_data, by_labels))
    assert one["threshold"] == pytest.approx(other["threshold"], abs=1e-6)
    assert one["errors"] == other["errors"]
    predictions = resnets.predict(by_labels, images.stacked())
    known = [each for each in predictions if each.status != "unfamiliar"]
    sure = sum(each.status == "ok" for each in known)
    assert sure == sum((each.probability or 0) >= other["threshold"] for each in known)
    assert by_data.description.familiarity["threshold"] == pytest.approx(
        by_labels.description.familiarity["threshold"], abs=1e-5
    )


def test_images_that_chose_an_epoch_share_the_doubt_among_all_epochs(model: Path) -> None:
    loaded = resnets.load(model)
    recipe = loaded.description.recipe | {"patience": 3, "epochs": 40}
    patient = replace(loaded, description=replace(loaded.description, recipe=recipe))

    def candidates(split: str) -> int:
        made = resnets.calibrate(patient, "digits", split=split)
        return Calibration.from_dict(made.description.calibration).candidates

    assert (candidates("validation"), candidates("test")) == (40, 1)


def statuses(*words: object, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    assert run("predict", *words, "--json") == 0
    captured = capsys.readouterr()
    return [row["status"] for row in json.loads(captured.out)], captured.err


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as PNG files."""
    folder = tmp_path_factory.mktemp("digits")
    images = open_data("digits").test
    assert images is not None
    for place in range(60):
        Image.fromarray(images.image(place, 3)).save(folder / f"{place:02}.png")
    return folder


def test_predict_takes_another_target_and_says_what_is_known_of_it(
    calibrated: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, doubt = statuses(calibrated, photos, capsys=capsys)
    strict, message = statuses(calibrated, photos, "--max-error", "0.2", capsys=capsys)
    usual = Calibration.from_dict(model_file.read_description(calibrated).calibration)
    assert ("not promised" in doubt) == (not usual.promised)
    assert strict.count("ok") < own.count("ok")
    fitted = usual.at(0.2)
    predictions = resnets.predict(calibrated, photos)
    sure = [(each.probability or 0) >= (fitted.threshold or 2) for each in predictions]
    known = [each.status != "unfamiliar" for each in predictions]
    expected = [
        ("ok" if a else "unsure") if b else "unfamiliar" for a, b in zip(sure, known, strict=True)
    ]
    assert strict == expected
    assert "at most 20 %" in message
    assert str(fitted.errors) in message
    assert ("not promised" in message) == (not fitted.promised)
    same, _ = statuses(calibrated, photos, "--max-error", "0.3", capsys=capsys)
    assert same == own


def test_a_target_that_a_file_has_no_threshold_for_is_refused(
    model: Path, calibrated: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, rate in ((calibrated, 0.00001), (model, 0.019)):
        assert run("predict", file, photos, "--max-error", rate) == 2
        assert f"resnets calibrate MODEL DATA --max-error {rate:g}" in capsys.readouterr().err
        assert run("evaluate", file, "digits", "--max-error", rate) == 2
        assert "resnets calibrate" in capsys.readouterr().err
    never = model_file.load(model)
    plain = replace(never, description=replace(never.description, calibration={}))
    with pytest.raises(UsageError, match="resnets calibrate"):
        resnets.predict(plain, np.zeros((8, 8, 3), np.uint8), max_error=0.1)


def test_evaluate_measures_at_the_target_that_is_asked_for(calibrated: Path) -> None:
    def ok(rate: float | None) -> Any:
        evaluation = resnets.evaluate(calibrated, "digits", max_error=rate)
        assert evaluation.max_error == (rate or 0.3)
        return evaluation.to_dict()["status"]["ok"]["count"]

    assert ok(0.05) < ok(0.3) == ok(None)


def test_a_target_for_one_call_leaves_the_engine_as_it_is(calibrated: Path, photos: Path) -> None:
    engine = open_engine(calibrated, "torch")
    before = [each.status for each in resnets.predict(engine, photos)]
    strict = [each.status for each in resnets.predict(engine, photos, max_error=0.05)]
    assert strict != before
    assert [each.status for each in resnets.predict(engine, photos)] == before
