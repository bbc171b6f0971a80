"""What to do next, and whether the commands for it are ones that the program takes."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resnets
from resnets.commands.train import Arguments, _job_of, _parse, recipe_of
from resnets.evaluation.history import History
from resnets.evaluation.metrics import Metrics, measure
from resnets.evaluation.next_steps import Findings, _steps, findings_of, next_steps, wide_interval
from resnets.evaluation.overfitting import LossRise
from resnets.evaluation.proportion import Proportion
from resnets.model_file import Description
from resnets.runs.callbacks import Notice
from resnets.runs.job import Job
from resnets.training.recipe import Recipe
from tests.spread import spread

RECIPE = Recipe(network="resnet18", epochs=39).resolved(side=300, count=221)
# validation losses of a fine-tuning on photos of ants and bees: every fourth epoch of 55
OVERFITTED = (0.598, 0.596, 0.601, 0.627, 0.642, 0.807, 0.665, 0.762, 0.77, 0.822, 0.819, 0.891)
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


@pytest.mark.parametrize(
    ("right", "of", "is_named"),
    [
        ([12, 10], 12, False),  # Fisher's exact test, one-sided: p = 0.24
        ([120, 100], 120, True),
        ([46, 45, 39], 50, False),  # p = 0.028, but of three classes one is the lowest
        ([46, 45, 34], 50, True),
    ],
)
def test_the_lowest_recall_is_named_only_where_it_is_no_chance(
    right: list[int], of: int, is_named: bool
) -> None:
    run_findings = replace(findings([48, 45]), metrics=metrics(right, of))
    assert ("to the class" in told(run_findings)) == is_named
    assert "Add images" in told(run_findings)


def test_a_class_of_two_images_does_not_hide_the_one_that_is_weak() -> None:
    """Of 2 images none is right, which may be chance; of 36 are 16, of 60 of the third 55."""
    labels = np.repeat([0, 1, 2], [2, 36, 60])
    answers = np.concatenate([[2, 2], np.where(np.arange(36) < 16, 1, 2), np.full(60, 2)])
    answers[-5:] = 1
    measured = measure(np.eye(3)[answers] * 3, labels, ["ants", "bees", "wasps"])
    assert "to the class bees" in told(replace(findings([48, 45]), metrics=measured))


def test_a_weak_class_of_few_images_is_to_count_as_much_as_the_largest() -> None:
    counts = {"train": {"ants": 300, "bees": 100}}
    assert "--balanced-sampling" in told(findings([48, 31], counts=counts))
    frozen = SMALL.to_dict() | {"freeze": "all"}
    assert "--class-weights balanced" in told(findings([48, 31], counts=counts, recipe=frozen))
    other = {"train": {"ants": 299, "bees": 100}}
    done = SMALL.to_dict() | {"balanced_sampling": True}
    for fields in ({"counts": other}, {"counts": counts, "recipe": done}):
        assert "balanced" not in all_told(findings([48, 31], **fields))
    assert "balanced" not in all_told(findings([48, 47], counts=counts))


def test_few_validation_images_do_not_tell_when_to_stop() -> None:
    rise = LossRise(7, 0.559, 55, 0.868)
    for images in (49, 50):
        counts = {"train": {"ants": 123, "bees": 98}, "validation": {"ants": images}}
        run_findings = findings([36, 34], rise=rise, best_epoch=7, epochs=55, counts=counts)
        assert ("--patience" in all_told(run_findings)) == (images == 50)


def test_a_cross_validation_says_how_long_it_takes() -> None:
    few = replace(findings([48, 45], seconds=43.0), metrics=metrics([10, 9], 12))
    assert "4 min 18 s" in told(few)  # six networks


def test_labels_that_look_wrong_come_first() -> None:
    first, *_ = next_steps(findings([48, 45], suspects=3, report="resnets report run photos"))
    assert "3 labels" in first.text
    assert first.command == "resnets report run photos"


def test_no_report_is_named_where_none_is_written() -> None:
    first, *_ = next_steps(findings([48, 45], suspects=3, is_on_page=False))
    assert "a training that writes a report" in first.text
    assert first.command == "resnets train photos"


def test_labels_that_only_a_weak_network_doubts_are_no_step() -> None:
    weak = findings([36, 34], suspects=20, training=0.7, report="resnets report run photos")
    assert "labels" not in all_told(weak)


def test_nothing_is_concluded_about_classes_from_a_network_at_chance() -> None:
    steps = next_steps(findings([30, 12], training=1.0, look="resnets doctor photos"))
    assert "does not show that the network is better" in steps[0].text
    assert steps[0].command == "resnets doctor photos"
    assert not any("its recall" in step.text for step in steps)


@pytest.mark.parametrize(("right", "of"), [([5, 4], 6), ([1, 0], 1), ([6, 6], 6), ([30, 27], 50)])
def test_images_are_not_to_blame_where_too_few_were_measured(right: list[int], of: int) -> None:
    few = replace(findings([48, 45]), metrics=metrics(right, of))
    assert "Look at the images" not in all_told(few)
    assert next_steps(few)[0].command == "resnets train photos --folds 5"


def test_folds_are_for_few_images_of_which_fewer_were_measured_and_only_once() -> None:
    assert "--folds 5" in told(findings([48, 31]))
    hundred = {"train": {"ants": 900, "bees": 900}}
    for rest in ({"counts": hundred}, {"folds": 5}, {"counts": {}}):
        assert "--folds" not in all_told(findings([48, 31], **rest))
    sure = replace(findings([48, 45]), metrics=metrics([100, 100], 100))
    assert "--folds" not in all_told(sure)
    patient = findings([48, 31], recipe=SMALL.to_dict() | {"patience": 5, "validation": 0.2})
    assert "--patience 0 --validation 0.1 --folds 5" in all_told(patient)
    assert "--folds" not in all_told(findings([48, 31], "resnets train photos --other cats"))


@pytest.mark.parametrize("right", [[25, 25], [50, 50], [36, 34]])
def test_of_a_run_too_short_to_leave_chance_only_that_is_told(right: list[int]) -> None:
    recipe = RECIPE.to_dict() | {"epochs": 7}
    short = findings(right, recipe=recipe, steps=7, epochs=7, training=0.6, suspects=3)
    commands = [step.command.removeprefix("resnets train photos") for step in _steps(short)]
    assert commands == [" --from resnet18", " --epochs 500", ""]
    assert "larger network" not in all_told(short)
    for rest in ({"steps": 15}, {"from_scratch": False}, {"recipe": SMALL.to_dict()}):
        assert "teach next to nothing" not in all_told(replace(short, **rest))


def test_a_budget_is_to_be_larger_and_no_other_limit_is_set() -> None:
    short = {"recipe": RECIPE.to_dict(), "steps": 7, "epochs": 1, "seconds": 48.0, "budget": "2m"}
    text = all_told(findings([25, 25], **short))
    assert "--budget 1h" in text  # 500 steps at 48 / 7 seconds: 57 minutes
    assert "--steps" not in text
    assert "--epochs" not in text
    longer = short | {"steps": 600, "seconds": 550.0, "budget": "10m", "training": 0.6}
    assert "--budget 20m" in all_told(findings([36, 34], **longer))
    epoch = {"training": {"images": 70}, "images_per_second": 35.0}  # 2 of the 48 seconds
    told_apart = findings([25, 25], **short, epoch_records=[epoch])
    assert "--budget 4m" in all_told(told_apart)  # 46 seconds, and 500 steps at 2 / 7 seconds: 3:09
    in_folds = findings([25, 25], **short, folds=5)  # which share the time with the last network
    assert "--budget 6h" in all_told(in_folds)


def test_longer_is_no_step_where_the_validation_accuracy_was_best_early() -> None:
    def advice(best: int) -> str:
        return all_told(findings([36, 34], training=0.7, best_epoch=best, epochs=24))

    assert "Train longer" in advice(23)
    assert "Train longer" not in advice(4)
    assert "larger network" not in advice(4)
    assert "--patience 5" in advice(4)
    assert "epoch 4 of 24" in advice(4)


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
        (None, [38, 36], ["--folds 5", "--network resnet34"]),
    ],
)
def test_steps_follow_from_how_well_training_images_are_known(
    training: float | None, right: list[int], words: list[str]
) -> None:
    text = told(findings(right, training=training))
    assert all(word in text for word in words), text


def course(
    *losses: float,
    training: float = 0.9,
    right: list[int] | None = None,
    best: int = 1,
    **changes: Any,
) -> Findings:
    """The findings of a training with these validation losses, and its most accurate epoch."""
    epochs = [
        {
            **{"kind": "epoch", "epoch": number, "best": number == best},
            **{"training": {"accuracy": training}, "validation": {"loss": loss}},
        }
        for number, loss in enumerate(losses, 1)
    ]
    recipe = SMALL.to_dict() | changes
    example = resnets.load("resnet14_cifar10").description
    description = Description(
        example.architecture, ("ants", "bees"), example.preprocessing, recipe=recipe
    )
    history = History(None, ({"kind": "start"}, *epochs))
    plain = "resnets train photos"
    return findings_of(description, metrics(right or [38, 36]), 0, history, plain, plain)


def all_told(run_findings: Findings) -> str:
    return "\n".join(f"{step.text} {step.command}" for step in _steps(run_findings))


@pytest.mark.parametrize("right", [[38, 36], [46, 45], [30, 12]])
@pytest.mark.parametrize("training", [0.85, 1.0])
def test_a_network_that_overfits_is_never_to_be_trained_longer_or_made_larger(
    right: list[int], training: float
) -> None:
    overfitted = course(*OVERFITTED, training=training, right=right)
    text = all_told(overfitted)
    assert "--patience" in "".join(step.command for step in next_steps(overfitted))
    assert "Train longer" not in text
    assert "larger network" not in text
    losses = sorted(OVERFITTED, reverse=True)
    falling = course(*losses, training=training, right=right, best=len(losses))
    assert "--patience" not in all_told(falling)


def test_patience_is_no_step_where_it_would_have_kept_no_lower_loss() -> None:
    """It watches the accuracy, which was best where the loss was already high."""
    losses = (0.5, 0.6, 0.7, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.0, 1.0, 1.0)
    assert "--patience" in all_told(course(*losses, best=2))
    assert "--patience" not in all_told(course(*losses, best=4))
    assert "--patience" not in all_told(course(*losses, best=11))


@pytest.mark.parametrize(
    ("right", "of", "training", "count", "is_clear"),
    [
        ([1, 1], 2, 0.75, 4, False),  # 2 of 4 and 3 of 4
        ([7, 7], 10, 0.9, 20, False),  # 14 of 20 and 18 of 20: Fisher's exact test, p = 0.24
        ([38, 36], 50, 0.999, 221, True),
    ],
)
def test_learning_by_heart_is_told_only_where_it_is_no_chance(
    right: list[int], of: int, training: float, count: int, is_clear: bool
) -> None:
    counts = {"train": {"ants": count // 2, "bees": count - count // 2}}
    run_findings = replace(findings([38, 36]), metrics=metrics(right, of), counts=counts)
    for rise in (None, LossRise(2, 0.5, 30, 0.9)):
        text = all_told(replace(run_findings, training=training, rise=rise))
        assert ("of the training images are predicted correctly, and only" in text) == is_clear
        assert ("trivialaugment" in text) == (is_clear or rise is not None)


def test_a_spike_of_the_validation_loss_is_no_overfitting() -> None:
    for losses in (
        (0.6, 0.56, 0.55, 0.9),  # at the end
        (0.6, 0.5, 1.4, 0.9, 0.52, 0.5),  # where the learning rate is highest
        (0.011, 0.010, 0.02, 0.02),  # twice almost nothing
        (0.6, 0.9),
    ):
        assert "Train longer" in all_told(course(*losses, best=len(losses)))


def test_who_stopped_at_the_best_epoch_hears_of_other_means_than_stopping_there() -> None:
    text = all_told(course(*OVERFITTED, patience=11))
    assert "--patience" not in text
    assert "Train longer" not in text
    assert "trivialaugment" in text


def test_what_patience_ended_is_not_to_be_trained_longer() -> None:
    flat = (0.6,) * 6
    assert "Train longer" not in all_told(course(*flat, patience=5))
    assert "Train longer" in all_told(course(*flat, patience=6, best=5))


def test_what_was_stopped_is_to_go_on() -> None:
    recipe = SMALL.to_dict() | {"epochs": 30}
    fields = {"training": 0.7, "recipe": recipe, "planned": 300}
    stopped = findings([36, 34], epochs=10, steps=100, **fields)
    (step,) = next_steps(stopped)  # by curves that are not there nothing else is advised
    assert "100 of 300 steps" in step.text
    assert step.command == stopped.command()
    resumed = replace(stopped, resume="resnets train --resume run")
    assert next_steps(resumed)[0].command == resumed.resume
    late = replace(resumed, epochs=28, steps=280)
    assert next_steps(late)[0].command == resumed.resume
    assert len(next_steps(late)) > 1
    assert "longer" not in all_told(late)
    whole = replace(resumed, epochs=30, steps=300)
    assert "60 epochs instead of 30" in all_told(whole)
    assert resumed.resume not in all_told(whole)


def test_patience_is_long_enough_for_validations_that_are_seldom() -> None:
    recipe = SMALL.to_dict() | {"validation_every": 10}
    rise = LossRise(10, 0.5, 120, 0.9)
    assert "--patience 30" in told(findings([36, 34], recipe=recipe, rise=rise, best_epoch=10))


def test_the_training_accuracy_on_mixed_images_says_nothing_of_the_size() -> None:
    mixed = SMALL.to_dict()["augmentation"] | {"cutmix": 1.0}
    assert "too small" in all_told(course(0.6, 0.6, 0.6, training=0.8, best=3))
    assert "too small" not in all_told(
        course(0.6, 0.6, 0.6, training=0.8, best=3, augmentation=mixed)
    )


def test_a_network_that_has_learnt_by_heart_is_not_said_to_be_too_small() -> None:
    assert "larger network" not in all_told(course(0.6, 0.6, 0.6, training=0.95, right=[30, 40]))


@pytest.mark.soak
def test_overfitting_is_told_after_a_training(tmp_path: Path) -> None:
    """Noise with labels at random: what is learnt is learnt by heart."""
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (150, 8, 8, 3), np.uint8)
    data, lines = (images, random.integers(0, 2, 150)), []
    run = resnets.train(
        data,
        **{"network": "resnet14", "image_size": 8, "epochs": 20, "batch_size": 16, "flip": "none"},
        validation=0.4,  # 60 images: of fewer than 50 nothing is concluded
        output=tmp_path / "run",
        report=False,
        progress=False,
        callbacks=[lambda record: isinstance(record, Notice) and lines.append(record.text)],
    )
    losses = [epoch["validation"]["loss"] for epoch in run.history.epochs]
    assert losses[-1] > 1.15 * min(losses)  # so the case is one
    assert "Stop earlier" in "".join(lines)
    assert "Train longer" not in "".join(lines)


@pytest.mark.parametrize(
    ("last", "best", "advised"), [(30, 8, True), (6, 3, False), (30, 28, False)]
)
def test_patience_is_advised_where_it_would_have_stopped_earlier(
    last: int, best: int, advised: bool
) -> None:
    rise = LossRise(2, 0.5, last, 0.9)
    text = told(findings([36, 34], training=1.0, rise=rise, best_epoch=best))
    assert ("--patience" in text) == advised


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
        {"from_scratch": False, "recipe": photos | {"image_size": 224}},
        {"recipe": SMALL.to_dict()},
        {"recipe": photos, "counts": {"train": {"ants": 60_000, "bees": 60_000}}},
    ):
        assert "--from" not in told(findings([48, 31], **rest))
    small = findings([48, 31], from_scratch=False, recipe=photos | {"image_size": 32})
    assert "32 pixels" in next_steps(small)[0].text
    published = replace(small, start="timm/resnet18.a1_in1k@c0ffee")
    assert "--image-size" in next_steps(published)[0].text
    assert next_steps(published)[0].command.endswith("--from timm/resnet18.a1_in1k@c0ffee")
    frozen = replace(small, recipe=small.recipe | {"network": "resnet20", "freeze": "all"})
    assert "--from resnet18 --freeze all" in next_steps(frozen)[0].command
    assert "--freeze 2" not in all_told(frozen)  # the last stage does not make images larger
    by_itself = findings([48, 31], recipe=photos | {"network": "resnet18d"})
    assert "--from resnet18\n" in told(by_itself)  # what `train` says to fetch


@pytest.mark.parametrize("right", spread([[48, 31], [30, 30], [50, 50], [0, 50]], every=2))
@pytest.mark.parametrize("training", [None, 0.6, 1.0])
@pytest.mark.parametrize("rise", [None, LossRise(7, 0.559, 55, 0.868)])
@pytest.mark.parametrize("start", [None, "timm/resnet18.a1_in1k"])
def test_there_are_three_steps_whose_commands_are_taken(
    right: list[int],
    training: float | None,
    rise: LossRise | None,
    start: str | None,
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(Job(data="my photos", recipe=RECIPE).to_toml(), encoding="utf-8")
    again = shlex.join(["resnets", "train", "my photos", "--recipe", str(config)])
    if start is not None:
        again += f" --from {start}"
    rest = {"training": training, "rise": rise, "recipe": RECIPE.to_dict()}
    rest |= {"look": "resnets doctor 'my photos'", "suspects": 3}
    known = findings(right, again, from_scratch=start is None, **rest)
    few = start is not None and rise is None  # neither other weights nor a larger network
    assert len(next_steps(known)) >= (2 if few else 3)
    for step in _steps(known):
        if step.text.startswith("Look at"):
            assert shlex.split(step.command) == ["resnets", "doctor", "my photos"]
            continue
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
    assert ("points" in sentence) == wide


@pytest.mark.parametrize(("right", "total"), [(1, 2), (0, 24), (9, 16), (14, 24), (113, 153)])
def test_so_many_images_as_are_told_halve_the_interval(right: int, total: int) -> None:
    told_images = int(wide_interval(Proportion(right, total)).split("About ")[1].split()[0])
    low, high = Proportion(right, total).interval
    ends = Proportion(round(right / total * told_images), told_images).interval
    assert ends[1] - ends[0] == pytest.approx((high - low) / 2, rel=0.02)
