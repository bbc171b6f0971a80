"""`--group-by` from the command line to the model file, and back to the same splits."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import evaluate, load, model_file
from resnets.commands import doctor, find_lr
from resnets.commands.train import main
from resnets.data.sources.opening import open_source
from resnets.errors import UsageError
from resnets.evaluation.exposure import redraw_splits

QUICK = ["--network", "resnet14", "--image-size", "16", "--epochs", "1", "--no-report"]
PEOPLE, IMAGES = 10, 3


def picture(label: str, person: int, number: int) -> Image.Image:
    random = np.random.default_rng([len(label), person, number])
    return Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of people, and a run on them that keeps people together."""
    folder = tmp_path_factory.mktemp("people")
    for label in ("ill", "well"):
        for person in range(PEOPLE):
            (folder / "data" / label / f"p{person}").mkdir(parents=True)
            for number in range(IMAGES):
                image = picture(label, person, number)
                image.save(folder / "data" / label / f"p{person}" / f"{number}.png")
    words = [str(folder / "data"), *QUICK, "--group-by", "folder:1", "--validation", "0.2"]
    assert main([*words, "--output", str(folder / "run")]) == 0
    return folder


def people(names: object) -> set[str]:
    return {str(name).split("/")[1] for name in names}  # type: ignore[attr-defined]


def test_training_keeps_and_writes_down_what_belongs_together(trained: Path) -> None:
    config = tomllib.loads((trained / "run/config.toml").read_text(encoding="utf-8"))
    assert config["group_by"] == "folder:1"
    data = model_file.read_description(trained / "run/model.safetensors").data
    assert data["group_by"] == "folder:1"
    assert sum(data["groups"].values()) == PEOPLE


def test_evaluate_measures_on_the_people_that_were_held_back(trained: Path) -> None:
    model = load(trained / "run")
    known, splits = redraw_splits(open_source(trained / "data", to_learn=False), model.description)
    assert known
    parts = [splits.train, splits.validation, splits.test]
    assert all(parts)
    people_by_part = [people(part.names) for part in parts if part is not None]
    assert sum(map(len, people_by_part)) == len(set.union(*people_by_part)) == PEOPLE
    result = evaluate(model, trained / "data", split="test").metrics
    assert result.top1.to_dict() == model.description.metrics["test"]["top1"]
    assert result.top1.total == len(splits.test or ())


def test_of_the_same_pictures_without_their_groups_only_new_ones_are_measured(
    trained: Path, tmp_path: Path
) -> None:
    for label in ("ill", "well"):
        (tmp_path / "flat" / label).mkdir(parents=True)
        for file in (trained / "data" / label).rglob("*.png"):
            shutil.copy(file, tmp_path / "flat" / label / f"{file.parent.name}-{file.name}")
    known, _ = redraw_splits(open_source(tmp_path / "flat"), load(trained / "run").description)
    assert not known
    here, there = (
        evaluate(trained / "run", folder).metrics.top1
        for folder in (trained / "data", tmp_path / "flat")
    )
    assert here == there


def test_other_pictures_need_no_groups(trained: Path, tmp_path: Path) -> None:
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        for number in range(4):
            picture(label, 100, number).save(tmp_path / label / f"{number}.png")
    assert evaluate(trained / "run", tmp_path).metrics.top1.total == 8


def test_a_run_goes_on_with_its_groups_and_no_others(trained: Path) -> None:
    before = model_file.read_description(trained / "run/model.safetensors").metrics
    assert main(["--resume", str(trained / "run")]) == 0
    assert model_file.read_description(trained / "run/model.safetensors").metrics == before
    with pytest.raises(UsageError, match="group_by"):
        main(["--resume", str(trained / "run"), "--group-by", "folder:2"])


def test_what_cannot_be_used_is_wrong_usage_and_makes_no_folder(
    trained: Path, tmp_path: Path
) -> None:
    for by in ("folder:2", "camera", "pattern:(", "pattern:(png)", "column:who"):
        words = [str(trained / "data"), *QUICK, "--group-by", by]
        with pytest.raises(UsageError, match="--group-by"):
            main([*words, "--output", str(tmp_path / "run")])
        assert not (tmp_path / "run").exists()


def test_find_lr_trains_on_the_same_images(trained: Path, tmp_path: Path) -> None:
    words = [str(trained / "data"), *QUICK[:4], "--tries", "10", "--plot", str(tmp_path / "a.png")]
    assert find_lr.main([*words, "--group-by", "folder:1"]) == 0
    with pytest.raises(UsageError, match="--group-by"):
        find_lr.main([*words, "--group-by", "folder:2"])


def test_doctor_finds_people_in_two_splits_and_classes_of_few_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, label, persons in (
        ("train", "ill", (0, 1)), ("train", "well", (2, 3, 4)), ("test", "ill", (1, 5)),
        ("test", "well", (6,)),
    ):  # fmt: skip
        for person in persons:
            (tmp_path / split / label / f"p{person}").mkdir(parents=True)
            for number in range(6):
                image = picture(label, 10 * person + (split == "test"), number)
                image.save(tmp_path / split / label / f"p{person}" / f"{number}.png")
    assert doctor.main([str(tmp_path), "--json"]) == 0
    capsys.readouterr()
    assert doctor.main([str(tmp_path), "--json", "--group-by", "folder:1"]) == 1
    findings = {each["kind"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["group-leak"]["images"] == ["p1"]
    assert findings["group-leak"]["level"] == "error"
    assert "'ill'" in findings["few-groups"]["text"]
    assert "'well'" not in findings["few-groups"]["text"]
    with pytest.raises(UsageError, match="--group-by"):
        doctor.main([str(tmp_path), "--group-by", "column:who"])
