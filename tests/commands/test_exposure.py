"""Figures never count an image as new that the network has seen: a network that remembers noise."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets import model_file
from resnets.commands import calibrate, compare, evaluate, export, report, train
from resnets.data.membership import NONE, Generation, TrainedOn, member_digests
from resnets.data.sources.opening import open_data, open_source
from resnets.errors import ContentError, UsageError
from resnets.evaluation.exposure import member_of
from resnets.evaluation.outputs import choose_images
from resnets.model_file import read_description

REMEMBER = [
    *("--network", "resnet14", "--epochs", "14", "--batch-size", "16", "--crop-padding", "0"),
    *("--flip", "none", "--image-size", "8", "--resize", "8", "--no-report"),
]
BRIEFLY = [*REMEMBER, "--epochs", "1"]
SEEN = {"trained_on": 96, "validated_on": 12, "near_duplicates": 0, "exact_copies": 0}
CHANCE = 0.6  # no more on new noise of three classes, however few images


def noise(root: Path, count: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    for name in "abc":
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def ran(command: Callable[[list[str]], int], *words: str | Path) -> str:
    """What a command prints that succeeds."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command([*map(str, words)]) == 0
    return out.getvalue()


def figures(*words: str | Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(ran(evaluate.main, *words, "--json"))
    return result


def lossy(data: Path, place: Path) -> Path:
    """The same images as JPEG files."""
    for file in data.rglob("*.png"):
        target = place / file.parent.name / f"{file.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(target, quality=95, subsampling=0)
    return place


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("exposure") / "noise", 40, 0)


@pytest.fixture(scope="session")
def run(data: Path) -> Path:
    """The run of a network that remembers 96 images; 12 are for validation and 12 for testing."""
    folder = data.parent / "run"
    ran(train.main, data, *REMEMBER, "--output", folder)
    result = figures(folder, data, "--split", "train")
    assert result["top1"]["value"] > 0.9
    return folder


def remarks(model: Path, data: Path) -> list[str]:
    """What `calibrate` says of the images that it fits to."""
    output = model.with_name("fitted.safetensors")
    result = json.loads(ran(calibrate.main, model, data, "--output", output, "--json"))
    return [*result["remarks"]]


def changed(data: Path, place: Path, change: str) -> Path:
    """The same images as somebody else has them."""
    for number, file in enumerate(sorted(data.rglob("*.png"))):
        target = place / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if change == "renamed":
            shutil.copy(file, target.with_name(f"{997 * number % 1009}.png"))
        elif change == "bmp":
            Image.open(file).save(target.with_suffix(".bmp"))
        elif change != "deleted" or number not in (3, 50):
            shutil.copy(file, target)
    if change == "added":
        Image.new("RGB", (8, 8), "red").save(place / "a" / "new.png")
    return place


@pytest.mark.parametrize("change", ["copied", "renamed", "bmp", "deleted", "added"])
def test_images_that_were_seen_are_left_out_whatever_became_of_the_folder(
    change: str, data: Path, run: Path, tmp_path: Path
) -> None:
    result = figures(run, changed(data, tmp_path / "other", change))
    assert result["top1"]["value"] < CHANCE
    assert result["seen"]["trained_on"] == result["seen"]["validated_on"] == 0
    assert 10 <= result["top1"]["total"] <= 13
    left = result["seen"]["left_out"]
    if change in ("bmp", "deleted", "added"):
        assert left["trained_on"] >= 94
        assert left["validated_on"] >= 10
        assert "left out" in result["images"]


@pytest.mark.parametrize(
    ("split", "counts"), [("train", (96, 0)), ("validation", (0, 12)), ("all", (96, 12))]
)
def test_a_named_split_is_measured_as_asked_and_tells_what_was_seen(
    split: str, counts: tuple[int, int], data: Path, run: Path, tmp_path: Path
) -> None:
    result = figures(run, data, "--split", split)
    assert (result["seen"]["trained_on"], result["seen"]["validated_on"]) == counts
    assert result["top1"]["total"] == {"train": 96, "validation": 12, "all": 120}[split]
    line = ran(evaluate.main, run, data, "--split", split).splitlines()[0]
    assert all(f"on {count}" in line or not count for count in counts)
    page = tmp_path / "page.html"
    output = ran(report.main, run, data, "--split", split, "--output", page)
    assert "No verdict" in output
    assert "Reliable" not in output
    assert "No verdict" in page.read_text(encoding="utf-8")


def test_all_is_all_and_auto_takes_the_test_split_else_the_validation_split(
    data: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "both" / "train")
    noise(tmp_path / "both" / "val", 15, 7)
    result = figures(run, tmp_path / "both", "--split", "all")
    assert result["top1"]["total"] == 165
    assert result["seen"]["trained_on"] == 96
    taken = figures(run, tmp_path / "both")
    assert taken["top1"]["total"] == 45
    assert "the validation split of" in taken["images"]
    noise(tmp_path / "both" / "test", 10, 8)
    taken = figures(run, tmp_path / "both")
    assert taken["top1"]["total"] == 30
    assert "the test split of" in taken["images"]
    assert figures(run, tmp_path / "both", "--split", "all")["top1"]["total"] == 195


def test_where_nothing_is_new_that_is_an_error(data: Path, run: Path, tmp_path: Path) -> None:
    seen = open_data(data).train
    for index in range(len(seen)):
        place = tmp_path / seen.names[index]
        place.parent.mkdir(exist_ok=True)
        shutil.copy(data / seen.names[index], place)
    with pytest.raises(UsageError, match=r"none of the 96 images is new .*trained on 96"):
        evaluate.main([str(run), str(tmp_path)])
    assert figures(run, tmp_path, "--split", "all")["seen"]["trained_on"] == 96


def test_a_file_without_digests_says_that_it_cannot_be_checked(
    data: Path, run: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.safetensors"
    shutil.copy(run / "model.safetensors", old)
    model_file.update(old, trained_on={})
    same = figures(old, data)
    assert same["top1"]["total"] == 12
    assert same["seen"]["trained_on"] == 0  # the splits are drawn again
    assert figures(old, data, "--split", "all")["seen"]["trained_on"] == 96
    other = figures(old, changed(data, tmp_path / "added", "added"))
    assert other["seen"]["trained_on"] is None
    assert other["seen"]["cannot_be_checked"]
    assert "cannot be checked" in other["images"]
    page = tmp_path / "page.html"
    assert "Yes." not in ran(report.main, old, tmp_path / "added", "--output", page)
    assert "cannot be checked" in page.read_text(encoding="utf-8")


@pytest.mark.soak
def test_copies_in_a_lossy_format_look_like_images_that_the_run_has_seen(
    data: Path, run: Path, tmp_path: Path
) -> None:
    lossy(data, tmp_path / "jpeg")
    result = figures(run, tmp_path / "jpeg")
    assert result["seen"]["left_out"]["near_duplicates"] >= 0.95 * (96 + 12)  # of validation too
    assert result["top1"]["value"] < CHANCE
    assert result["near_duplicates"]["found"] == 0
    asked = figures(run, tmp_path / "jpeg", "--split", "all")
    assert asked["top1"]["total"] == 120
    assert asked["near_duplicates"]["found"] >= 0.95 * (96 + 12)
    assert asked["near_duplicates"]["top1_without"]["value"] < CHANCE
    assert figures(run, tmp_path / "jpeg", "--compared", "0")["top1"]["total"] == 120
    alone = tmp_path / "alone.safetensors"  # a file that anyone may have made leads nowhere
    shutil.copy(run / "model.safetensors", alone)
    result_alone = figures(alone, tmp_path / "jpeg")
    assert result_alone["near_duplicates"] is None
    assert "no exact duplicate" in result_alone["images"]  # they are copies, in another format
    assert "no training images" in result_alone["images"]
    assert "no training images" not in asked["images"]
    fitted = remarks(alone, tmp_path / "jpeg")
    assert any("no training images" in remark for remark in fitted)
    page = tmp_path / "alone.html"
    ran(report.main, alone, tmp_path / "jpeg", "--output", page)
    assert "no training images" in page.read_text(encoding="utf-8")
    words = [run, tmp_path / "jpeg", "--split", "all", "--output", tmp_path / "page.html"]
    assert "No verdict" in ran(report.main, *words)


@pytest.mark.parametrize(
    ("split", "seen"), [("test", 96 + 12), ("validation", 96), ("all", 96 + 12)]
)
def test_near_duplicates_are_looked_for_in_what_the_network_has_seen_beside_a_split(
    data: Path, run: Path, split: str, seen: int
) -> None:
    chosen = choose_images(data, read_description(run / "model.safetensors"), split)
    assert chosen.seen is not None
    assert len({chosen.seen.names[index] for index in range(len(chosen.seen))}) == seen
    assert chosen.seen.class_names == chosen.images.class_names


@pytest.mark.parametrize("split", ["auto", "all"])
def test_calibrate_leaves_out_the_lossy_copies_that_evaluate_leaves_out(
    data: Path, run: Path, tmp_path: Path, split: str
) -> None:
    copies = lossy(data, tmp_path / "jpeg")
    new = figures(run, copies)["top1"]["total"]
    made = tmp_path / "made.safetensors"
    words = [run, copies, "--split", split, "--max-error", "0.3", "--output", made, "--json"]
    result = json.loads(ran(calibrate.main, *words))
    assert result["images"].startswith(f"{new} images")
    assert any("look like training or validation images" in each for each in result["remarks"])
    again = resnets.calibrate(run, copies, split=split, max_error=0.3).description.calibration
    assert again["temperature"] == read_description(made).calibration["temperature"]


def test_compare_leaves_out_what_either_network_has_seen_and_says_who_saw_what(
    data: Path, run: Path, tmp_path: Path
) -> None:
    other = noise(tmp_path / "other", 20, 5)
    ran(train.main, other, *BRIEFLY, "--output", tmp_path / "b")
    both = tmp_path / "both"
    for source in (data, other):
        for file in source.rglob("*.png"):
            place = both / file.parent.name / f"{source.name}-{file.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    comparison = json.loads(
        ran(compare.main, run, tmp_path / "b", both, "--json", "--latency", "0")
    )
    assert comparison["seen"]["a"]["left_out"] == SEEN
    assert comparison["seen"]["b"]["left_out"] == SEEN | {"trained_on": 48, "validated_on": 6}
    assert comparison["images"].startswith("18 images")
    copies = lossy(other, tmp_path / "copies")  # of what B has seen
    comparison = json.loads(
        ran(compare.main, run, tmp_path / "b", copies, "--json", "--latency", "0")
    )
    assert comparison["seen"]["b"]["left_out"]["near_duplicates"] >= 0.95 * (48 + 6)
    shutil.rmtree(other)
    without_source = json.loads(
        ran(compare.main, run, tmp_path / "b", copies, "--json", "--latency", "0")
    )
    assert "B" in without_source["seen"]["b"]["not_compared"]
    assert without_source["seen"]["a"]["not_compared"] is None
    assert "not looked for" in without_source["images"]
    text = ran(compare.main, run, tmp_path / "b", both, "--latency", "0", "--split", "all")
    assert "A was trained on 96 of them" in text.splitlines()[0]
    assert "B was trained on 48 of them" in text.splitlines()[0]


def test_copies_of_the_start_networks_images_are_not_passed_off_as_looked_for(
    data: Path, run: Path, tmp_path: Path
) -> None:
    child = shutil.copytree(run, tmp_path / "child")
    file = child / "model.safetensors"
    history = TrainedOn.from_dict(read_description(file).trained_on)
    elsewhere = Generation.of("elsewhere", np.arange(5, dtype=np.uint64), NONE)
    copies = lossy(data, tmp_path / "jpeg")
    for ancestor, expected in ((elsewhere, True), (history.generations[0], False)):
        model_file.update(file, trained_on=TrainedOn((history.generations[0], ancestor)).to_dict())
        result = figures(child, copies)
        assert ("5 images of elsewhere" in result["images"]) is expected
        assert bool(result["seen"]["not_compared"]) is expected


def test_images_that_are_handed_over_are_counted(data: Path, run: Path) -> None:
    images = open_data(data).train
    paths = [data / images.names[index] for index in range(5)]
    arrays = [images.image(index) for index in range(5, 8)]
    evaluation = resnets.evaluate(run, [*paths, *arrays], images.labels[:8])
    assert evaluation.exposure is not None
    assert evaluation.exposure.trained == 8
    assert "8 of them" in evaluation.images
    new = np.zeros((2, 8, 8, 3), np.uint8)
    evaluation = resnets.evaluate(run, new, ["a", "b"])
    assert evaluation.exposure is not None
    assert evaluation.exposure.trained == 0
    assert "no exact duplicate" in evaluation.images
    assert "no training images" in evaluation.images


def test_warnings_about_the_data_are_told_by_every_command(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "noise")
    (tmp_path / "noise" / "a" / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "noise" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    skip = ["--skip-unreadable"]
    words: dict[Any, list[str | Path]] = {
        evaluate: [run, tmp_path / "noise", *skip],
        report: [run, tmp_path / "noise", *skip, "--output", tmp_path / "page.html"],
        compare: [run, run, tmp_path / "noise", *skip, "--latency", "0"],
        train: [tmp_path / "noise", *skip, *BRIEFLY, "--output", tmp_path / "run"],
    }
    for command, arguments in words.items():
        output = ran(command.main, *arguments)
        assert "notes.txt" in output, command
        assert "broken.png" in output, command
    for command in (evaluate, compare):
        capsys.readouterr()
        assert command.main([*map(str, words[command]), "--json"]) == 0
        out, err = capsys.readouterr()
        assert "notes.txt" in err
        assert any("notes.txt" in text for text in json.loads(out)["warnings"])
        assert json.loads(out)["skipped"][0][0].endswith("broken.png")
    assert evaluate.main([*map(str, words[evaluate]), "--csv"]) == 0
    out, err = capsys.readouterr()
    assert "notes.txt" in err
    assert "notes.txt" not in out


@pytest.mark.soak
def test_an_export_is_checked_on_the_part_that_evaluate_takes(
    data: Path, run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    parts = tmp_path / "parts"
    noise(parts / "train", 4, 7)
    noise(parts / "val", 3, 8)
    output = ran(export.main, run, "--data", parts, "--output", tmp_path / "a.onnx", "--to", "onnx")
    assert "9 of 9 images" in output
    assert "the validation split of" in output
    assert "the validation split of" in figures(run, parts)["images"]
    output = ran(export.main, run, "--output", tmp_path / "b.onnx", "--to", "onnx")
    assert "12 of 12 images" in output
    assert f"the test split of {data}" in output


@pytest.mark.soak
def test_int8_is_judged_on_that_part_too_and_advises_no_flag_of_other_commands(
    data: Path, run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    noise(tmp_path / "parts" / "train", 16, 7)
    noise(tmp_path / "parts" / "val", 3, 8)
    seen = tmp_path / "seen"
    for place in open_data(data, to_learn=False).train.names:
        if members_in(run, data / place):
            (seen / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / place, seen / place)
    target = tmp_path / "a.onnx"
    words = ["--to", "onnx", "--int8", "--output", str(target)]
    with pytest.raises(ContentError, match="9 images, the validation split of"):
        export.main([str(run), *words, "--data", str(tmp_path / "parts")])
    with pytest.raises(UsageError, match=r"none of the .* is new .* with --data") as caught:
        export.main([str(run), *words, "--data", str(seen)])
    assert "--split" not in str(caught.value)
    assert not target.exists()


def members_in(path: Path, image: Path) -> bool:
    """Whether a network was trained on an image."""
    return member_of(image) in set(known(path).trained.tolist())


def known(path: Path) -> TrainedOn:
    return TrainedOn.from_dict(read_description(path / "model.safetensors").trained_on)


def members(images: Any, digests: Any) -> set[int]:
    return set(member_digests(images, digests).tolist())


def held_out(path: Path, source: Path) -> tuple[set[int], set[int]]:
    """What a network's validation and test images are recognised by, as `evaluate` draws them."""
    digests = []
    for split in ("validation", "test"):
        chosen = choose_images(str(source), read_description(path / "model.safetensors"), split)
        everything = open_source(source, to_learn=False).everything()
        places = {name: place for place, name in enumerate(everything.images.names)}
        rows = everything.digests[[places[name] for name in chosen.images.names]]
        digests.append(members(chosen.images, rows))
    return digests[0], digests[1]


def test_two_generations_of_from_are_never_measured_on_what_an_ancestor_was_trained_on(
    data: Path, run: Path, tmp_path: Path
) -> None:
    second, third = tmp_path / "second", tmp_path / "third"
    larger = changed(data, tmp_path / "larger", "added")
    noise(tmp_path / "more", 15, 3)
    for file in (tmp_path / "more").rglob("*.png"):
        shutil.copy(file, larger / file.parent.name / f"more-{file.name}")
    output = ran(train.main, larger, "--from", run, *BRIEFLY, "--seed", "1", "--output", second)
    assert "96" in next(line for line in output.splitlines() if "trained on" in line)
    output = ran(train.main, larger, "--from", second, *BRIEFLY, "--seed", "2", "--output", third)
    ancestors = TrainedOn(known(third).generations[1:])
    for child, earlier in ((second, known(run)), (third, ancestors)):
        validation, test = held_out(child, larger)
        assert validation
        assert test
        assert not validation & set(earlier.trained.tolist())
        assert not test & {*earlier.trained.tolist(), *earlier.validated.tolist()}
        own = read_description(child / "model.safetensors").data["counts"]
        assert len(validation) == sum(own["validation"].values())
        assert len(test) == sum(own["test"].values())
    assert set(known(run).trained.tolist()) <= set(known(third).trained.tolist())
    assert figures(third, data)["seen"]["left_out"]["trained_on"] >= 96
    assert figures(third, data)["top1"]["total"] <= 12


def test_a_descendant_of_a_training_state_resumes_with_the_same_splits(
    data: Path, run: Path, tmp_path: Path
) -> None:
    state = next((run / "checkpoints").glob("*.pt"))
    child = tmp_path / "child"
    words = [data, *BRIEFLY, "--seed", "4", "--from", state, "--output", child]
    ran(train.main, *words)
    before = read_description(child / "model.safetensors")
    assert before.data["start_network"]["trained_on"]["train"] == 96
    (child / "model.safetensors").unlink()
    shutil.copy(state, tmp_path / "kept.pt")
    ran(train.main, "--resume", child)
    after = read_description(child / "model.safetensors")
    assert after.data == before.data
    assert after.trained_on == before.trained_on


@pytest.mark.parametrize("classes", ["same", "other"])
def test_a_promise_needs_a_classifier_of_its_own_and_images_that_are_new(
    classes: str, data: Path, run: Path, tmp_path: Path
) -> None:
    """1,200 images that brightness tells apart, so that the threshold would be promised."""
    easy, random = tmp_path / "easy", np.random.default_rng(2)
    names = "abc" if classes == "same" else "xyz"
    for label, name in enumerate(names):
        (easy / name).mkdir(parents=True)
        for number in range(240):
            pixels = random.integers(80 * label, 80 * label + 80, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(easy / name / f"{number}.png")
    words = ["--from", run, *REMEMBER, "--validation", "0.45", "--epochs", "3"]
    output = ran(train.main, easy, *words, "--max-error", "0.1", "--output", tmp_path / "run")
    calibration = read_description(tmp_path / "run" / "model.safetensors").calibration
    assert calibration["threshold"] is not None
    assert calibration["promised"] == (classes == "other")
    assert any(each["promised"] for each in calibration["thresholds"]) == (classes == "other")
    assert bool(calibration["withheld"]) == (classes == "same")
    assert "trained on 96 images of" in output
    assert "noise" in output


def test_foreign_weights_are_named_as_what_nobody_knows(data: Path, tmp_path: Path) -> None:
    import torch

    from resnets.networks import build

    torch.manual_seed(0)
    torch.save(build("resnet14", num_classes=7).state_dict(), tmp_path / "theirs.pth")
    output = ran(
        train.main, data, "--from", tmp_path / "theirs.pth", *BRIEFLY, "--output", tmp_path / "run"
    )
    assert "unknown" in output
    assert known(tmp_path / "run").unknown
    result = figures(tmp_path / "run", data)
    assert result["seen"]["trained_on"] == 0
    assert "theirs.pth" in result["seen"]["cannot_be_checked"]
    assert "as far as is known" in result["images"]


def test_a_start_network_of_an_earlier_version_is_known_by_its_splits_or_named_as_unknown(
    data: Path, run: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.safetensors"
    shutil.copy(run / "model.safetensors", old)
    model_file.update(old, trained_on={})
    output = ran(train.main, data, "--from", old, *BRIEFLY, "--output", tmp_path / "same")
    assert "cannot be checked" not in output
    validation, test = held_out(tmp_path / "same", data)
    assert not (validation | test) & set(known(run).trained.tolist())
    other = changed(data, tmp_path / "other", "added")
    output = ran(train.main, other, "--from", old, *BRIEFLY, "--output", tmp_path / "child")
    assert "96 images of" in output
    assert "cannot be checked" in output
    assert "old.safetensors" in known(tmp_path / "child").unknown


def test_digests_can_be_left_out(data: Path, tmp_path: Path) -> None:
    ran(train.main, data, *BRIEFLY, "--no-image-digests", "--output", tmp_path / "run")
    description = read_description(tmp_path / "run" / "model.safetensors")
    assert "digests" not in description.trained_on["generations"][0]["train"]
    assert description.trained_on["generations"][0]["train"]["count"] == 96
    assert figures(tmp_path / "run", data)["top1"]["total"] == 12
    moved = figures(tmp_path / "run", changed(data, tmp_path / "added", "added"))
    assert moved["seen"]["trained_on"] is None
    assert "image-digests" in moved["seen"]["cannot_be_checked"]


@pytest.mark.soak
def test_an_exported_file_knows_its_training_images(data: Path, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from resnets.commands import export

    noted = changed(data, tmp_path / "noted", "copied")
    (noted / "a" / "notes.txt").write_text("no image", encoding="utf-8")
    words = [run, "--to", "onnx", "--output", tmp_path / "out.onnx", "--data", noted]
    assert "notes.txt" in ran(export.main, *words)
    result = figures(tmp_path / "out.onnx", changed(data, tmp_path / "added", "added"))
    assert result["seen"]["left_out"] == SEEN
    assert result["top1"]["total"] == 13


def test_a_descendant_without_digests_cannot_be_split_again(
    data: Path, run: Path, tmp_path: Path
) -> None:
    """Its splits depend on what its ancestor saw, which its file does not say any more."""
    child = tmp_path / "child"
    ran(train.main, data, "--from", run, *BRIEFLY, "--no-image-digests", "--output", child)
    result = figures(child, data, "--split", "test")
    assert result["seen"]["trained_on"] is None
    old = read_description(child / "model.safetensors")
    assert replace(old, trained_on={}).data == old.data
