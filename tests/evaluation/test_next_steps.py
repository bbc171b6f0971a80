"""What to do next, and whether the commands for it are ones that the program takes."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.commands.train import Arguments, _job_of, _parse, recipe_of
from resnets.evaluation.metrics import Metrics, measure
from resnets.evaluation.next_steps import Findings, _steps, next_steps, wide_interval
from resnets.evaluation.proportion import Proportion
from resnets.runs.job import Job
from resnets.training.recipe import Recipe

RECIPE = Recipe(network="resnet18", epochs=39).resolved(side=300, count=221)
SMALL = Recipe(network="resnet18", epochs=39).resolved(side=32, count=221)


def metrics(right: list[int], of: int = 50) -> Metrics:
    """So many right predictions of each class; the others are of the next class."""
    labels = np.repeat(np.arange(len(right)), of)
    answers = np.concatenate(
        [np.where(np.arange(of) < count, k, (k + 1) % len(right)) for k, count in enumerate(right)]
    )
    return measure(np.eye(len(right))[answers] * 3, labels, ["ants", "bees", "wasps"][: len(right)])


def findings(right: list[int], again: str = "resnets train photos", **rest: Any) -> Findings:
    counts = {"train": {"ants": 123, "bees": 98}}
    plain = again.partition(" --")[0]
    fields = {"recipe": SMALL.to_dict(), "counts": counts, "again": again, "by_default": plain}
    fields |= rest
    return Findings(metrics(right), **fields)


def told(run_findings: Findings) -> str:
    return "\n".join(f"{step.text} {step.command}" for step in next_steps(run_findings))


def test_the_weakest_class_is_named_with_its_images() -> None:
    text = told(findings([48, 31], training=0.99))
    assert "bees" in text
    assert "62.0 %" in text
    assert "98" in text
    assert "ants" not in text


def test_labels_that_look_wrong_come_first() -> None:
    first, *_ = next_steps(findings([48, 45], suspects=3, report="resnets report run photos"))
    assert "3 labels" in first.text
    assert first.command == "resnets report run photos"


def test_no_report_is_named_where_none_is_written() -> None:
    first, *_ = next_steps(findings([48, 45], suspects=3, is_on_page=False))
    assert "a training that writes a report" in first.text
    assert not first.command


def test_what_a_weak_network_doubts_comes_last_as_most_of_it_is_its_own_mistakes() -> None:
    weak = findings([36, 34], suspects=20, training=0.7, report="resnets report run photos")
    assert "Check the labels" not in told(weak)
    *_, last = _steps(weak)
    assert "Check the labels: 20 labels" in last.text
    assert "70.0 % most of them are the network's mistakes" in last.text


def test_nothing_is_concluded_about_classes_from_a_network_at_chance() -> None:
    steps = next_steps(findings([30, 12], training=1.0))
    assert "does not show that the network is better" in steps[0].text
    assert not any("its recall" in step.text for step in steps)


def test_no_class_is_said_to_have_the_fewest_images_where_all_have_as_many() -> None:
    assert "first to bees" in told(findings([25, 25]))
    equal = told(findings([25, 25], counts={"train": {"ants": 13, "bees": 13}}))
    assert "13 training images" in equal
    assert "fewest" not in equal


def test_a_network_without_a_threshold_asks_for_calibration() -> None:
    assert "resnets calibrate" in next_steps(findings([48, 45], calibrated=False))[0].text
    assert "calibrate" not in told(findings([48, 45]))


@pytest.mark.parametrize(
    ("training", "right", "words"),
    [
        (0.7, [36, 34], ["longer", "--epochs 78", "--network resnet34"]),  # it has not learnt yet
        (0.999, [38, 36], ["trivialaugment", "--mixup"]),  # it has learnt them by heart
        (0.999, [49, 50], ["--network resnet34", "Add images", "bees"]),
        (None, [38, 36], ["--network resnet34", "--epochs 78"]),
    ],
)
def test_steps_follow_from_how_well_training_images_are_known(
    training: float | None, right: list[int], words: list[str]
) -> None:
    text = told(findings(right, training=training))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(("limit", "words"), [("epochs", "50 epochs"), ("steps", "550 steps")])
def test_longer_is_longer_than_a_budget_has_left_of_the_plan(limit: str, words: str) -> None:
    limits = {"epochs": 0, "steps": 0} | {limit: 40 * (11 if limit == "steps" else 1)}
    recipe = Recipe(network="resnet18", **limits).resolved(side=32, count=121)
    shortened = recipe.replan(step=22, total=275, steps_per_epoch=11)
    assert words in told(findings([36, 34], training=0.7, recipe=shortened.to_dict()))
    # a plan of another length, as in a recipe that was changed afterwards, has no part in it
    other = shortened.to_dict() | {"epochs": 3, "steps": 0}
    assert "6 epochs" in told(findings([36, 34], training=0.7, recipe=other))


def test_few_photos_from_scratch_ask_for_published_weights() -> None:
    photos = RECIPE.to_dict()
    steps = next_steps(findings([48, 31], recipe=photos))
    assert "ImageNet" in steps[0].text
    assert steps[0].command == "resnets train photos --from resnet18"
    other = photos | {"network": "resnet20"}  # of which no weights are published
    assert "--from resnet18" in told(findings([48, 31], recipe=other))
    for rest in (
        {"from_scratch": False, "recipe": photos},
        {"recipe": SMALL.to_dict()},
        {"recipe": photos, "counts": {"train": {"ants": 60_000, "bees": 60_000}}},
    ):
        assert "--from" not in told(findings([48, 31], **rest))


@pytest.mark.parametrize("right", [[48, 31], [30, 30], [50, 50], [0, 50]])
@pytest.mark.parametrize("training", [None, 0.6, 1.0])
def test_there_are_three_steps_whose_commands_are_taken(
    right: list[int], training: float | None, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(Job(data="my photos", recipe=RECIPE).to_toml(), encoding="utf-8")
    again = shlex.join(["resnets", "train", "my photos", "--recipe", str(config)])
    recipe = RECIPE.to_dict()
    steps = next_steps(findings(right, again, training=training, recipe=recipe))
    assert len(steps) == 3
    for step in steps:
        if step.text.startswith("Look at"):
            continue  # nothing to run
        program, command, *words = shlex.split(step.command)
        assert (program, command) == ("resnets", "train")
        job = _job_of(_parse(words, Arguments(recipe=recipe_of(words))))
        assert job.data == "my photos"
        assert job.start or job.recipe.image_size == RECIPE.image_size


def test_what_has_no_command_is_told_all_the_same() -> None:
    steps = next_steps(findings([48, 31], again=""))
    assert steps
    assert not any(step.command for step in steps)


@pytest.mark.parametrize(
    ("right", "total", "wide"), [(113, 153, True), (9, 10, True), (950, 1000, False)]
)
def test_an_interval_of_ten_points_is_told(right: int, total: int, wide: bool) -> None:
    sentence = wide_interval(Proportion(right, total))
    assert ("points" in sentence) == (f"{4 * total}" in sentence) == wide
    widths = [
        high - low for low, high in (Proportion(n * right, n * total).interval for n in (1, 4))
    ]
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.1)
