import copy
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import resnets
from resnets.data.batches import Batch, TrainingBatches
from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage
from resnets.errors import UsageError
from resnets.format import duration, parse_duration
from resnets.images import Preprocessing
from resnets.networks import ResNet
from resnets.runs.budget import (
    _MOST,
    Budget,
    Speed,
    _for_compute,
    checkpoint_interval,
    fitted,
    fitting_size,
    measure,
    with_ending,
)
from resnets.runs.callbacks import CallbackList, Record
from resnets.runs.job import Job
from resnets.runs.length import _speed_at_sizes
from resnets.runs.logbook import Logbook
from resnets.runs.loggers import MemoryLines
from resnets.runs.prepare import prepare
from resnets.runs.stop_signals import StopSignals
from resnets.runs.supervision import Checkpointer, follow
from resnets.training.optimisation import make_loss
from resnets.training.parallel import ProcessRank
from resnets.training.recipe import Recipe
from resnets.training.schedules import make_schedule
from resnets.training.trainer import Epoch, Score, Step, Trainer


def test_a_cadence_of_zero_steps_is_refused() -> None:
    with pytest.raises(UsageError):
        checkpoint_interval("0")


@settings(max_examples=50)
@given(
    step=st.floats(1e-4, 10),
    validation=st.floats(0, 100),
    budget=st.floats(1, 1e5),
    per_epoch=st.integers(1, 5000),
    scale=st.sampled_from([1.0, 0.75, 0.3]),
)
def test_what_fits_takes_no_longer_than_the_budget_and_uses_most_of_it(
    step: float, validation: float, budget: float, per_epoch: int, scale: float
) -> None:
    start = Recipe(training_size=32, progressive_resizing_scale=scale, validation_every=1)
    speed = Speed(step, validation, step * start.first_share)
    try:
        recipe = fitted(start, speed, budget, per_epoch)
    except UsageError:
        assert 0.97 * budget < step + validation + 1e-6
        return
    steps = recipe.total_steps(per_epoch)
    validations = -(-steps // per_epoch)
    pixels = 0.0
    for epoch in range(validations):
        side = recipe.size_in(epoch, per_epoch) or 32
        pixels += side**2 * min(per_epoch, steps - epoch * per_epoch)
    time = pixels / 32**2 * step + validations * validation
    assert time <= budget
    unused = 0.97 * budget - time
    one_more = per_epoch * step + validation if recipe.epochs else step + validation
    assert recipe.epochs == _MOST or unused <= one_more + 1e-6 * budget


@given(
    step=st.floats(0.01, 100),
    validation=st.floats(0, 100),
    final=st.floats(0, 100),
    per_epoch=st.integers(1, 500),
    budget=st.floats(1, 1e3),
    measuring=st.floats(0, 2e3),
)
def test_a_budget_too_short_is_refused_with_one_that_is_enough(
    step: float, validation: float, final: float, per_epoch: int, budget: float, measuring: float
) -> None:
    """Measuring takes as long again, or up to a quarter of the budget that is advised."""
    speed = Speed(step, validation, final=final)
    try:
        fitted(Recipe(), speed, budget, per_epoch, measuring)
        return
    except UsageError as error:
        text = str(error)
    assert f"--budget {duration(budget)} " in text
    assert "smaller network" in text
    assert f"epoch takes {duration(per_epoch * step + validation + final)}:" in text
    assert not re.search(r"-\d", text), "no negative time"
    advised = re.search(r"give it ([\d.,]+ \w+( [\d.]+ \w+)?) or more", text)
    assert advised is not None
    enough = parse_duration(advised[1])
    assert fitted(Recipe(), speed, enough, per_epoch, max(measuring, enough / 4))


def test_the_parts_of_a_budget_that_is_too_short_add_up_as_they_are_shown() -> None:
    with pytest.raises(UsageError) as refused:
        fitted(Recipe(), Speed(0.3, 0.1, final=0.14), 1.0, 10, 0.84)
    shown = [float(number) for number in re.findall(r"([\d.]+) s\b", str(refused.value))]
    assert shown[:4] == [1.0, 0.8, 0.5, 1.3]
    assert shown[4] == pytest.approx(1.5 * shown[3], abs=0.2)


def test_the_schedule_ends_with_the_budget() -> None:
    """58.685 s are planned: five epochs of 11 s, 26 steps more and their validation."""
    recipe = fitted(Recipe(), Speed(0.1, 1.0), 60.5, 100)
    assert recipe.total_steps(100) == recipe.steps == 526


@pytest.mark.parametrize(("first", "epochs"), [(0.1, 52), (0.05, 60), (0.2, 52)])
def test_smaller_images_save_what_was_measured(first: float, epochs: int) -> None:
    """582 s are planned, of 11 s an epoch; at 168 of 224 pixels, of 6 s where they take half."""
    start = Recipe(training_size=224, progressive_resizing_scale=0.75, validation_every=1)
    recipe = fitted(start, Speed(0.1, 1.0, first), 600, 100)
    assert recipe.epochs == epochs
    spent = sum(
        1 + 10 * (1 - (1 - side**2 / 224**2) / (1 - 168**2 / 224**2) * max(0, 1 - first / 0.1))
        for epoch in range(epochs)
        for side in [recipe.size_in(epoch, 100) or 224]
    )
    assert 582 - 11 < spent <= 582


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def played(
    limit: float, per_epoch: int, factor: float, when: float, scale: float, validation: float
) -> tuple[float, float, Recipe]:
    """Play a run of updates of 1 s, which take `factor` times as long from a part of the time on.

    Returns what it took with its scores at the end, the longest epoch with its validation, and the
    recipe with its changes.
    """
    clock = Clock()
    recipe = Recipe(training_size=32, progressive_resizing_scale=scale, validation_every=1)
    speed = Speed(1.0, validation, recipe.first_share, final=1.5 * validation)
    recipe = fitted(recipe, speed, limit, per_epoch)
    budget, done, epoch, longest = Budget(limit, speed, clock), 0, 0, 0.0

    def plan(recipe: Recipe) -> Recipe:
        total = budget.total(recipe, per_epoch, done, epoch)
        return (
            recipe
            if total == recipe.total_steps(per_epoch)
            else recipe.replan(done, total, per_epoch)
        )

    while epoch * per_epoch < recipe.total_steps(per_epoch):
        began, share = clock.now, recipe.share_in(epoch, per_epoch)
        while done < min((epoch + 1) * per_epoch, recipe.total_steps(per_epoch)):
            slow = factor if clock.now > when * limit else 1.0
            clock.now += slow * share
            done += 1
            budget.note(Step(epoch + 1, done, 8, 0.0, 0.0), recipe, per_epoch)
            if budget.late:
                recipe = plan(recipe)
        slow = factor if clock.now > when * limit else 1.0
        clock.now += slow * validation
        epoch += 1
        score = Score(1, 2, 0.5)
        budget.note(Epoch(epoch, done, score, score, False), recipe, per_epoch)
        longest = max(longest, clock.now - began)
        if epoch * per_epoch < recipe.total_steps(per_epoch):
            recipe = plan(recipe)
        budget.saved()
    return clock.now + slow * 1.5 * validation, longest, recipe


@settings(max_examples=50)
@given(
    factor=st.sampled_from([1.5, 1.5, 1.0, 2.0, 0.5, 0.67]),
    when=st.floats(0, 0.9),
    epochs=st.floats(0.4, 60),
    per_epoch=st.integers(5, 60),
    scale=st.sampled_from([1.0, 0.5]),
    validation=st.floats(0, 5),
)
def test_a_run_whose_pace_changes_uses_its_time_and_no_more(
    factor: float, when: float, epochs: float, per_epoch: int, scale: float, validation: float
) -> None:
    """Within a tenth, or one epoch with its validation, whichever is longer; scores included."""
    limit = epochs * (per_epoch + validation) + 3 * validation + 3
    took, longest, _ = played(limit, per_epoch, factor, when, scale, validation)
    allowed = max(0.1 * limit, longest, max(factor, 1) * (per_epoch + validation))
    assert limit - allowed <= took <= limit + allowed


@pytest.mark.parametrize(("factor", "ends"), [(1.5, range(35, 45)), (0.5, range(60, 95))])
def test_the_schedule_goes_on_smoothly_to_its_end_where_the_length_changes(
    factor: float, ends: range
) -> None:
    """50 epochs are planned; in the middle, updates take 1.5 or 0.5 times as long."""
    *_, recipe = played(1530, 30, factor, 0.5, 1.0, 0.0)
    total, planned = recipe.total_steps(30), recipe.planned_steps(30)
    assert total // 30 in ends
    assert recipe.changes(30)
    rates = [make_schedule(recipe, 30)(step) for step in range(total + 1)]
    steepest = max(abs(b - a) for a, b in pairwise(rates))
    rest = planned - recipe.warmup_length(30)
    assert steepest < 3 / min(rest, planned - rest)
    assert rates.index(max(rates)) < total / 2
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_reading_the_images_is_no_training() -> None:
    """What passes between the first measurement and the first step does not count."""
    clock = Clock()
    budget = Budget(100.0, Speed(1.0, 0.0), clock, spent=5.0)
    clock.now += 60.0
    budget.start()
    assert budget.spent == 5.0
    clock.now += 1.0
    budget.note(Step(1, 1, 8, 0.0, 0.0), Recipe(), 10)
    assert (budget.took, budget.expected) == (1.0, 1.0)


def test_reading_counts_for_as_long_as_the_budget_allows_and_the_report_is_provided_for() -> None:
    clock = Clock()
    budget = Budget(100.0, Speed(1.0, 0.0), clock, spent=5.0, preparing=20.0)
    clock.now += 60.0
    budget.start()
    assert budget.spent == 25.0
    speed = Speed(1.0, 2.0, final=1.0)
    assert with_ending(speed, 100.0, 4.0, report=False).final == 4.0
    assert 4.0 < with_ending(speed, 100.0, 4.0, report=True).final <= 25.0
    assert with_ending(speed, 100.0, 1000.0, report=True).final == 25.0
    assert with_ending(speed, 2.0, 4.0, report=True).final == speed.final


def test_another_length_or_other_data_make_a_recorded_plan_void() -> None:
    recipe = Recipe(epochs=4).replan(20, 60, 10)
    assert recipe.total_steps(10) == 60
    assert recipe.total_steps(11) == 44
    assert replace(recipe, epochs=5).total_steps(10) == 50


def learner(clock: Clock, recipe: Recipe) -> Trainer:
    """A trainer of a tiny network, for which getting images takes time by the clock."""
    torch.manual_seed(0)
    network = ResNet("residual", (1,), width=4, num_classes=2)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
    images = LabelledImages(PixelStorage(pixels, "noise"), np.arange(48) % 2, ["a", "b"])
    seen = Preprocessing(size=8, resize=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    batches = TrainingBatches(images, seen, recipe.augmentation, batch_size=8)
    original = batches.epoch

    def slowly(*asked: Any) -> Iterator[Batch]:
        for batch in original(*asked):
            clock.now += 1.0 if clock.now < 30 else 1.5
            yield batch

    batches.epoch = slowly  # type: ignore[method-assign]
    return Trainer(network, recipe, batches, make_loss(recipe, images.labels, 2), log_every=99)


def followed(trainer: Trainer, budget: Budget, steps: int = 10**9) -> list[torch.Tensor]:
    """Train under a budget for so many steps; the weights after it."""
    checkpointer = Checkpointer(trainer, Logbook(MemoryLines(), ()), budget=budget)
    signals = StopSignals()

    def look(record: Record) -> None:
        if isinstance(record, Step) and record.step >= steps:
            signals.received = 15

    follow(checkpointer, CallbackList([look]), signals, NotImplemented)
    return [value.clone() for value in trainer.network.state_dict().values()]


def test_under_a_budget_a_run_resumes_and_repeats_to_the_bit() -> None:
    """100 updates of 1 s are planned; from the 30th second on each takes 1.5 s."""
    recipe = Recipe(
        optimizer="sgd", learning_rate=0.05, average_decay=0.9, average_from=0.5, batch_size=8
    )
    speed, limit = Speed(1.0, 0.0), 100.0
    recipe = fitted(recipe, speed, limit, steps_per_epoch=6)
    clock = Clock()
    trainer = learner(clock, recipe)
    unbroken = followed(trainer, Budget(limit, speed, clock))
    assert clock.now == pytest.approx(limit, abs=9)
    assert trainer.steps < recipe.total_steps(6)
    clock = Clock()
    broken, budget = learner(clock, recipe), Budget(limit, speed, clock)
    followed(broken, budget, steps=40)
    states = copy.deepcopy((broken.state(), budget.state()))
    later = Clock()
    later.now = clock.now  # the slow updates go by it; a clock that starts elsewhere is no matter
    resumed = learner(later, recipe)
    resumed.load_state(states[0])
    ends = followed(resumed, Budget.resumed(limit, states[1], later))
    assert resumed.recipe == trainer.recipe
    assert all(torch.equal(one, other) for one, other in zip(ends, unbroken, strict=True))
    repeated = learner(Clock(), trainer.recipe)
    list(repeated.run())
    assert repeated.step == trainer.step
    weights = repeated.network.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(weights, unbroken, strict=True))


@pytest.mark.parametrize(
    ("size", "seconds", "fitting"),
    [(224, 600, 224), (224, 510, 192), (224, 200, 128), (224, 5, 96), (128, 600, 128), (96, 5, 96)],
)
def test_photos_are_made_smaller_until_enough_steps_fit(
    size: int, seconds: float, fitting: int
) -> None:
    """500 steps of 1 s each; at 192 of 224 pixels these are of 0.73 s, at 128 of 0.33 s."""
    recipe = Recipe(image_size=size, training_size=size)
    assert fitting_size(recipe, Speed(1.0, 0.0), seconds) == fitting


@pytest.mark.parametrize(("budget", "steps"), [(2.0, 2), (20.0, 4), (200.0, 6)])
def test_measuring_stops_early_where_the_budget_is_short(budget: float, steps: int) -> None:
    """An update takes 1 s by the clock, an epoch has six; a short budget has few of them."""
    clock = Clock()
    recipe = Recipe(optimizer="sgd", learning_rate=0.05, batch_size=8)
    speed = measure(learner(clock, recipe), budget, 0, clock=clock)
    assert clock.now == steps
    assert speed.step == 1.0


@pytest.mark.parametrize(("limit", "sizes"), [(0.5, [128]), (1000.0, [128, 96, 72])])
def test_a_short_budget_is_spent_on_one_measurement(
    limit: float, sizes: list[int], tmp_path: Path, draw_noise: Any, monkeypatch: Any
) -> None:
    """Each takes a fifth of the short one; steps of 10 s by 128 pixels are too slow for both."""
    for seed in range(12):
        draw_noise(tmp_path / f"{'ab'[seed % 2]}/{seed}.png", 300, 300, seed)
    job = Job(data=str(tmp_path), recipe=Recipe(network="resnet10t"))
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), lambda _: None)
    measured = []

    def measure(trainer: Trainer, *_: Any) -> Speed:
        time.sleep(0.1)
        measured.append(trainer.recipe.first_side)
        return Speed(10.0 * trainer.recipe.first_share, 1.0)

    monkeypatch.setattr("resnets.runs.budget.measure", measure)
    sized, speed, _, _ = _speed_at_sizes(setup, limit, 0.0, lambda _: None, True)
    assert measured == sizes
    assert sized.preprocessing.size == 96
    share = 1.0 if len(sizes) > 1 else (96 / 128) ** 2
    assert (speed.step, speed.first) == pytest.approx((10 * share, 10 * share * (72 / 96) ** 2))


@pytest.mark.soak
def test_most_of_a_budget_of_20_seconds_goes_into_training() -> None:
    seconds = []

    def note(record: Record) -> None:
        if isinstance(record, Step):
            seconds.append(record.seconds)

    options: dict[str, Any] = {"report": False, "output": False, "progress": False}
    began = time.monotonic()
    resnets.train("digits", budget="20s", callbacks=[note], **options)
    assert sum(seconds) >= 10
    assert time.monotonic() - began <= 25


SLOW_IMPORT = """
import sys, time, types
clock, late = time.monotonic, 0.0
time.monotonic = lambda: clock() + late
class Slow:  # the import of torch's compiler takes two minutes more by the clock
    def find_spec(self, name, *_):
        global late
        late += 120 * (name == "torch._dynamo")
sys.meta_path.insert(0, Slow())
import resnets
assert "torch._dynamo" not in sys.modules
def stop(record):
    if isinstance(record, resnets.Step):
        raise resnets.StopTraining("it trains")
    if isinstance(record, resnets.Notice):
        print(record.text)
run = resnets.train("digits", network="resnet14", image_size=8, budget="60s", output=False,
                    report=False, progress=False, callbacks=[stop])
assert late, "torch no longer imports it: this test has no object"
print(run.stopped)
"""


@pytest.mark.soak
def test_what_torch_imports_with_the_first_optimizer_is_not_the_speed_of_the_run() -> None:
    """A busy machine: importing the compiler takes twice as long as the run may."""
    done = subprocess.run(
        [sys.executable, "-c", SLOW_IMPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("it trains\n")
    assert "time for" in done.stdout


def test_a_long_run_of_short_epochs_validates_seldom() -> None:
    recipe = fitted(Recipe(), Speed(0.1, 1.0), 600, 10)  # 2 s an epoch if each were validated
    assert recipe.epochs > 400
    assert 20 <= recipe.validations(10) <= 48
    assert fitted(Recipe(validation_every=1), Speed(0.1, 1.0), 600, 10).epochs < 300


@pytest.mark.parametrize("has_unit", [True, False])
def test_bf16_is_advised_only_on_a_cpu_that_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has_unit: bool
) -> None:
    monkeypatch.setattr("resnets.runs.budget.computes_bf16", lambda _: has_unit)
    cpu = torch.device("cpu")
    assert ("bf16" in _for_compute(Recipe(), cpu)) is has_unit
    assert "bf16" not in _for_compute(Recipe(precision="bf16"), cpu)
