"""Exact copies of an image are measured once: in figures, promises and p-values."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.commands import calibrate, compare, evaluate, shard
from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage

COPIES = 4  # of each image, itself among them


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes: 40, 30 and 20."""
    random, root = np.random.default_rng(0), tmp_path_factory.mktemp("originals")
    for name, count in zip("abc", (40, 30, 20), strict=True):
        (root / name).mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def copied(originals: Path, place: Path, ending: str = ".png") -> Path:
    """The same images with copies of each, which come after it."""
    shutil.copytree(originals, place)
    for file in originals.rglob("*.png"):
        for number in range(1, COPIES):
            target = place / file.parent.name / f"{file.stem}x{number}{ending}"
            if ending == ".png":
                shutil.copy(file, target)
            else:
                Image.open(file).save(target)
    return place


@pytest.fixture(scope="module")
def copies(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(originals, tmp_path_factory.mktemp("copies") / "copies")


@pytest.fixture(scope="module")
def model(untrained: Callable[..., Path]) -> Path:
    return untrained(("a", "b", "c"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))


def printed(command: Callable[[list[str]], int], *words: str | Path) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command([*map(str, words), "--json"]) == 0
    record: dict[str, Any] = json.loads(out.getvalue())
    return record


EXACT = ("top1", "top5", "classes", "confusion", "status")


@pytest.mark.parametrize("split", ["auto", "all"])
def test_evaluate_measures_copies_once_and_tells_the_accuracy_with_them(
    model: Path, originals: Path, copies: Path, split: str
) -> None:
    alone = printed(evaluate.main, model, originals)
    result = printed(evaluate.main, model, copies, "--split", split)
    assert {name: result[name] for name in EXACT} == {name: alone[name] for name in EXACT}
    assert result["loss"] == pytest.approx(alone["loss"])
    assert result["top1"]["total"] == 90
    assert result["seen"]["left_out"]["exact_copies"] == 90 * (COPIES - 1)
    assert "270 exact copies" in result["images"]
    whole = result["top1_with_copies"]
    assert (whole["count"], whole["total"]) == (COPIES * alone["top1"]["count"], COPIES * 90)
    assert alone["top1_with_copies"] is None


def test_copies_in_another_lossless_format_and_in_shards_are_known(
    model: Path, originals: Path, tmp_path: Path
) -> None:
    resaved = copied(originals, tmp_path / "resaved", ".bmp")
    shards = tmp_path / "shards"
    assert shard.main([str(resaved), "--output", str(shards)]) == 0
    for source in (resaved, shards):
        assert printed(evaluate.main, model, source)["top1"]["total"] == 90


def test_copies_confirm_no_promise(model: Path, originals: Path, tmp_path: Path) -> None:
    """Of 90 images too few are confident; 900 with as many mistakes would be enough."""
    records = []
    for number, source in enumerate([originals, copied(originals, tmp_path / "copies")]):
        words = ("--max-error", "0.7", "--output", tmp_path / f"{number}.safetensors")
        records.append(printed(calibrate.main, model, source, *words)["calibration"])
    alone, result = records
    for name in ("promised", "total", "held_back", "errors", "candidates"):
        assert result[name] == alone[name]
    assert result["temperature"] == pytest.approx(alone["temperature"], rel=1e-4)
    assert [row["promised"] for row in result["thresholds"]] == [
        row["promised"] for row in alone["thresholds"]
    ]


def test_compare_has_the_p_value_of_the_images_without_copies(
    model: Path, untrained: Callable[..., Path], originals: Path, copies: Path
) -> None:
    other = untrained(("b", "a", "c"))
    alone, result = (
        printed(compare.main, model, other, source, "--latency", "0")
        for source in (originals, copies)
    )
    assert alone["p_value"] < 1
    assert result["p_value"] == pytest.approx(alone["p_value"])


def test_copies_in_two_classes_both_stay_as_nobody_knows_which_is_right(
    model: Path, originals: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(originals, tmp_path / "two")
    shutil.copy(root / "a/3.png", root / "b/copy.png")
    result = printed(evaluate.main, model, root)
    assert result["top1"]["total"] == 91
    assert result["seen"]["left_out"]["exact_copies"] == 0


def test_copies_that_a_program_hands_over_count_once(model: Path, originals: Path) -> None:
    paths = sorted(originals.rglob("*.png"))
    labels = [path.parent.name for path in paths]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    alone = resnets.evaluate(model, pixels, labels)
    repeated = resnets.evaluate(model, np.tile(pixels, (3, 1, 1, 1)), labels * 3)
    mixed = resnets.evaluate(model, [*paths, *pixels], labels * 2)
    for evaluation in (repeated, mixed):
        assert evaluation.metrics.top1 == alone.metrics.top1
        assert evaluation.with_copies is not None
    numbers = np.array(["abc".index(label) for label in labels])
    tiled = PixelStorage(np.tile(pixels, (3, 1, 1, 1)), "noise")
    images = LabelledImages(tiled, np.tile(numbers, 3), "abc")
    assert resnets.evaluate(model, images).metrics.top1 == alone.metrics.top1
    calibrations = [
        resnets.calibrate(model, np.tile(pixels, (times, 1, 1, 1)), labels * times, max_error=0.7)
        for times in (1, 5)
    ]
    totals = [each.description.calibration["total"] for each in calibrations]
    assert totals == [90, 90]
    assert len({each.description.calibration["promised"] for each in calibrations}) == 1


def test_a_run_measures_and_calibrates_on_each_image_once(originals: Path, copies: Path) -> None:
    """Copies are drawn together, so as few distinct images as in the folder without them."""
    fit = {"start": "resnet14_cifar10", "freeze": "all", "report": False, "output": False}
    lines: list[str] = []

    def listen(record: object) -> None:
        lines.append(getattr(record, "text", ""))

    run = resnets.train(copies, callbacks=[listen], **fit)
    counts = run.description.data["counts"]
    for split in ("validation", "test"):
        measured = run.description.metrics[split]["top1"]["total"]
        assert measured == sum(counts[split].values()) / COPIES
    assert run.description.calibration["total"] == sum(counts["validation"].values()) / COPIES
    assert sum("exact copies of" in line for line in lines) == 2
    folds = resnets.train(copies, folds=3, **fit)
    assert folds.description.metrics["cross_validation"]["top1"]["total"] == 90
    assert folds.description.calibration["total"] == 90


def test_calibrate_takes_one_of_a_burst_and_evaluate_counts_all(
    model: Path, tmp_path: Path
) -> None:
    """Smaller JPEG files of one picture, which no digest knows; those of another class stay."""
    root, random = tmp_path / "burst", np.random.default_rng(1)
    for name in "abc":
        for number in range(12):
            coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)
            for shot, side in enumerate((96, 80, 72)):
                place = root / ("b" if shot == 2 and name == "a" else name)
                place.mkdir(parents=True, exist_ok=True)
                picture.resize((side, side)).save(place / f"{name}{number:02}-{shot}.jpg")
    record = printed(
        calibrate.main, model, root, "--max-error", "0.7", "--output", tmp_path / "m.safetensors"
    )
    assert record["calibration"]["total"] == 4 * 12  # three classes, and those of a in b
    assert any("look like others" in text for text in record["remarks"])
    assert printed(evaluate.main, model, root)["top1"]["total"] == 3 * 36
