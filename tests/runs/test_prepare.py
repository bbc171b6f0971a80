"""What a run says of its data before the first step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import resnets
from resnets.data.batches import Batch, ProcessRank
from resnets.errors import UsageError
from resnets.model_file import load, update
from resnets.runs.job import Job
from resnets.runs.prepare import prepare
from resnets.training.named_recipes import RECIPES

Draw = Callable[..., None]


@pytest.mark.parametrize(
    ("own", "drawn"), [(("train", "val"), "test"), (("train", "test"), "validation")]
)
def test_images_that_are_drawn_from_train_are_counted_with_those_that_are_left(
    own: tuple[str, ...],
    drawn: str,
    tmp_path: Path,
    draw_noise: Draw,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in range(60):
        split, label = own[seed % 2], "ab"[seed // 2 % 2]
        draw_noise(tmp_path / f"{split}/{label}/{seed}.png", 8, 8, seed)
    resnets.train(tmp_path, "resnet14", epochs=1, report=False, output=False)
    captured = capsys.readouterr()
    (line,) = [line for line in (captured.out + captured.err).splitlines() if "rawn from" in line]
    assert "train" in line
    assert f"4 {drawn} images" in line  # a tenth of either class, rounded: 2 of 15
    assert "26 images left" in line


def test_a_run_on_look_alike_folders_of_an_earlier_version_goes_on(
    tmp_path: Path, draw_noise: Draw
) -> None:
    for seed in range(24):
        place = f"{('ill', 'well')[seed % 2]}/{('p1', 'p2')[seed // 2 % 2]}"
        draw_noise(tmp_path / f"photos/{place}/{seed}.png", 8, 8, seed)
    output, quick = tmp_path / "run", {"epochs": 1, "report": False, "progress": False}
    with pytest.raises(UsageError, match="level"):
        resnets.train(tmp_path / "photos", "resnet14", output=output, **quick)
    resnets.train(tmp_path / "photos", "resnet14", output=output, class_level=1, **quick)
    config = output / "config.toml"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "class_level" not in line), "utf-8")
    assert resnets.resume(output, progress=False).model.description.class_names == ("ill", "well")


def test_what_is_passed_over_is_named_where_that_is_asked_for(
    tmp_path: Path, draw_noise: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(4):
        draw_noise(tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.png", 8, 8, seed)
        (tmp_path / f"photos/a/{seed}.txt").write_text("notes", encoding="utf-8")
    quick = {"epochs": 1, "report": False, "output": False}
    for verbose in (False, True):
        resnets.train(tmp_path / "photos", "resnet14", verbose=verbose, **quick)
        captured = capsys.readouterr()
        assert "and 3 more ignored" in captured.out + captured.err
        assert all((f"a/{n}.txt" in captured.out + captured.err) == verbose for n in range(1, 4))


def test_statistics_of_batch_norms_are_estimated_on_images_of_all_classes_mixed(
    tmp_path: Path, draw_noise: Draw
) -> None:
    """A batch of one class has another variance than the images have; folders are read in order."""
    for seed in range(96):
        draw_noise(tmp_path / f"{'ab'[seed // 48]}/{seed}.png", 16, 16, seed)
    recipe = replace(RECIPES["quick"], network="resnet14", batch_size=16)
    job = Job(data=str(tmp_path), recipe=recipe)

    def batches(process: ProcessRank) -> list[Batch]:
        setup = prepare(job, None, torch.device("cpu"), process, lambda _: None)
        return list(setup.trainer(setup.network).measured.statistics or ())

    alone = batches(ProcessRank())
    assert [len(batch.images) for batch in alone] == [64, 14]
    assert all(0.2 < batch.targets.float().mean() < 0.8 for batch in alone)
    for processes in (2, 3):  # the third gets no batch
        parts = [batches(ProcessRank(rank, processes)) for rank in range(processes)]
        assert [len(part) for part in parts] == [1, 1, 0][:processes]
        for batch, (same,) in zip(alone, parts, strict=False):
            assert torch.equal(batch.images, same.images)


@pytest.mark.parametrize(
    ("asked", "size", "first"), [(None, 32, 32), (None, 48, 36), (0.75, 32, 24)]
)
def test_images_begin_no_smaller_than_the_network_takes_unless_that_is_asked_for(
    asked: float | None, size: int, first: int, tmp_path: Path, draw_noise: Draw
) -> None:
    for seed in range(12):  # resnet10t halves images down to 1/32
        draw_noise(tmp_path / f"{'ab'[seed % 2]}/{seed}.png", size, size, seed)
    recipe = replace(RECIPES["quick"], network="resnet10t", progressive_resizing_scale=asked)
    job = Job(data=str(tmp_path), recipe=recipe)
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), lambda _: None)
    assert setup.job.recipe.first_side == first


def test_another_size_changes_recipe_and_preprocessing_alike(
    tmp_path: Path, draw_noise: Draw
) -> None:
    for seed in range(12):
        draw_noise(tmp_path / f"{'ab'[seed % 2]}/{seed}.png", 300, 300, seed)
    job = Job(data=str(tmp_path), recipe=RECIPES["quick"])
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), lambda _: None)
    smaller = setup.at_size(96)
    assert setup.at_size(128) is setup
    assert (smaller.preprocessing.size, smaller.preprocessing.resize) == (96, 110)
    again = prepare(smaller.job, None, torch.device("cpu"), ProcessRank(), lambda _: None)
    assert smaller.preprocessing == again.preprocessing  # as config.toml repeats it
    assert max(smaller.preprocessing.std) < min(setup.preprocessing.std)
    batch = next(smaller.trainer(smaller.network).batches.epoch(0))
    assert batch.images.shape[2:] == (96, 96)


def test_a_start_network_keeps_how_its_images_were_prepared(
    tmp_path: Path, draw_noise: Draw, untrained: Callable[..., Path]
) -> None:
    for seed in range(24):
        draw_noise(tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.png", seed=seed)
    start = untrained(("cat", "dog"))
    kept: dict[str, Any] = {"interpolation": "bicubic", "crop_mode": "squash"}
    before = update(start, preprocessing=replace(load(start).description.preprocessing, **kept))
    job = Job(data=str(tmp_path / "photos"), start=str(start), recipe=RECIPES["quick"])
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), lambda _: None)
    prepared = setup.preprocessing
    assert prepared == before.preprocessing
    assert (prepared.mean, prepared.interpolation, prepared.crop_mode) == (
        (0.5, 0.5, 0.5),
        "bicubic",
        "squash",
    )
