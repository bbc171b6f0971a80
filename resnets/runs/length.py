"""The length of a run that keeps to its `--budget`, by the speed of its first steps."""

import time
from dataclasses import replace

import torch

from resnets.errors import UsageError
from resnets.evaluation.fit_familiarity import most_for_familiarity
from resnets.format import duration, milliseconds, parse_duration, plural
from resnets.runs import budget
from resnets.runs.checkpoint import State
from resnets.runs.prepare import Notify
from resnets.runs.setup import Setup
from resnets.training.parallel import from_first
from resnets.training.recipe import Recipe
from resnets.training.trainer import copied


def within_budget(
    setup: Setup, state: State | None, notify: Notify, may_choose_size: bool, began: float
) -> tuple[Setup, budget.Budget | None]:
    """The same with as many epochs as there is time for, and what will keep it to its time.

    Args:
        setup: of the run.
        state: the state to go on from; None for a new run.
        notify: takes lines for the user.
        may_choose_size: whether images may be made smaller.
        began: when the run began, by `time.monotonic`.
    """
    if setup.job.budget and setup.job.recipe.freeze == "all":
        notify("--budget is not used: --freeze all takes one pass over the images")
        return setup, None
    if not setup.job.budget:
        return setup, None
    limit = parse_duration(setup.job.budget)
    if setup.job.folds:  # each fold has its share, and so has the network that is kept
        limit /= setup.job.folds + 1
        notify(
            f"--budget {setup.job.budget}: {duration(limit)} for each of the networks; config.toml "
            "will have the length of the last one, by which a repetition trains all of them"
        )
    if state is None:
        return _planned(setup, limit, notify, may_choose_size, began)
    # a run of 0.1.0 was planned once, before it began, and ends as it would have there
    going_on = budget.Budget.resumed(limit, state["budget"]) if "budget" in state else None
    return setup, going_on


def _planned(
    setup: Setup, limit: float, notify: Notify, may_choose_size: bool, began: float
) -> tuple[Setup, budget.Budget]:
    """A recipe whose length fits the time limit, by the speed of its first steps."""
    _import_compiler()
    prepared = budget.preparing(limit, time.monotonic() - began)
    setup, speed, per_epoch, spent = _speed_at_sizes(
        setup, limit, prepared, notify, may_choose_size
    )
    spent += prepared
    job = setup.job
    whole = _with_ending(setup, speed, limit)
    try:
        recipe = budget.fitted(job.recipe, whole, limit, per_epoch, spent)
        speed = whole
    except UsageError:  # as before: training and scores alone may fit
        spent, prepared = spent - prepared, budget.preparing(limit, limit)
        recipe = budget.fitted(job.recipe, speed, limit, per_epoch, spent)
        notify(f"--budget {job.budget}: too short for reading the data and the report, too")
    speed, recipe = from_first((speed, recipe))
    steps = recipe.total_steps(per_epoch)
    step = speed.of_updates(recipe, per_epoch) / steps
    notify(
        f"--budget {job.budget}: time for {plural(steps, 'step')}, {steps / per_epoch:.1f} epochs "
        f"({milliseconds(step)} a step, {duration(speed.validation)} a validation); "
        "planned anew on the way"
    )
    setup = replace(setup, job=replace(job, recipe=recipe))
    in_folds = bool(job.folds)  # the outer run waits for them
    rest = 0.0 if in_folds else budget.preparing(limit, limit) - prepared
    return setup, budget.Budget(limit, speed, spent=spent, preparing=rest)


def _import_compiler() -> None:
    """Have torch import its compiler, as it does with the first optimizer of a process.

    That takes seconds, once. They are not the speed of this run, and are not to be measured as it.
    """
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])


def _speed_at_sizes(
    setup: Setup, limit: float, prepared: float, notify: Notify, may_choose_size: bool
) -> tuple[Setup, budget.Speed, int, float]:
    """How fast a run goes, with the size of its images chosen for its budget.

    Other sizes are measured too, unless measuring has taken its part of a short budget by then:
    their steps are taken to be faster in proportion to the pixels, and the plan is made anew on
    the way.

    Returns:
        the setup with that size, the speed, the steps of an epoch and the seconds of measuring.
    """
    large = replace(setup.job.recipe, progressive_resizing_scale=1.0)
    speed, per_epoch, spent = _measure_speed(setup, large, limit)
    estimates = from_first(budget.measured_enough(limit, spent))
    if may_choose_size:
        began, left = time.monotonic(), limit - prepared - spent
        smaller = setup.at_size(from_first(budget.fitting_size(large, speed, left)))
        spent += time.monotonic() - began
        if smaller is not setup:
            size, before = smaller.job.recipe.image_size or 1, setup.job.recipe.image_size or 1
            notify(f"--budget {setup.job.budget}: images at {size} pixels, so that more steps fit")
            setup, speed = smaller, speed.with_pixels((size / before) ** 2)
            if not estimates:
                large = replace(smaller.job.recipe, progressive_resizing_scale=1.0)
                speed, per_epoch, more = _measure_speed(setup, large, limit)
                spent += more
    recipe = setup.job.recipe
    if recipe.first_share < 1:
        first = speed.step * recipe.first_share
        if not estimates:
            small = replace(recipe, progressive_resizing_until=1.0)
            smallest, _, more = _measure_speed(setup, small, limit)
            first, spent = smallest.step, spent + more
        speed = replace(speed, first=first)
    return setup, speed, per_epoch, spent


def _with_ending(setup: Setup, speed: budget.Speed, limit: float) -> budget.Speed:
    """The speed with all that follows the last step: statistics, familiarity and the report."""
    splits = setup.splits
    known = 0 if splits.validation is None else len(splits.validation)
    known += 0 if splits.test is None else len(splits.test)
    has_scores = splits.validation is not None or setup.job.fold
    sample = most_for_familiarity(splits.train) if has_scores else 0
    images = 2 * known + sample + len(setup.statistics_images or ())
    return budget.with_ending(speed, limit, images / max(1, known), report=setup.job.report)


def _measure_speed(setup: Setup, recipe: Recipe, seconds: float) -> tuple[budget.Speed, int, float]:
    """How fast a recipe goes, the steps of an epoch, and the seconds that it took to find out."""
    began, splits = time.monotonic(), setup.splits
    trainer = replace(setup, job=replace(setup.job, recipe=recipe)).trainer(
        copied(setup.network, recipe)
    )
    validation, test = (
        0 if images is None else len(images) for images in (splits.validation, splits.test)
    )
    each_epoch = validation + (test if setup.job.follow_test else 0)
    each_epoch += len(setup.statistics_images or ())
    speed = budget.measure(trainer, seconds / 2, each_epoch, validation + test)
    return speed, trainer.batches.steps_per_epoch, time.monotonic() - began
