"""A training run from its start to its result."""

import copy
import datetime
import signal
import time
import tomllib
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import torch

from resnets.data.sources.opening import Data
from resnets.escaping import say
from resnets.machine import machine, settle_memory, settle_threads
from resnets.model_file import current_versions
from resnets.networks import ResNet
from resnets.runs import budget
from resnets.runs.budget import Bottleneck
from resnets.runs.checkpoint import State, fitting
from resnets.runs.finish import Result, describe, finish
from resnets.runs.folder import RunFolder, new_run, old_run, refuse
from resnets.runs.job import Job
from resnets.runs.loggers import JsonLines, open_loggers, require_services
from resnets.runs.prepare import Ready, Say, from_state, get_ready
from resnets.runs.progress import Pace, open_screen
from resnets.runs.supervise import Keeper, Logbook, StopSignals, follow, restore
from resnets.training.parallel import (
    batch_norm_notice,
    choose_device,
    from_first,
    processes,
    share_buffers,
)
from resnets.training.recipe import Recipe
from resnets.training.trainer import Record, Trainer

STATE: dict[str, type | tuple[type, ...]] = {  # what a training state says of itself
    **{"trainer": dict, "architecture": dict, "preprocessing": dict},
    **{
        "random": list,
        "class_names": list,
        "fingerprint": str,
        "log": int,
        "seconds": (int, float),
    },
}


def carry_out(
    job: Job,
    output: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    data: Data | None = None,
) -> int:
    """Train, score and save a network.

    Args:
        job: what is asked for.
        output: the run's folder; None takes a fresh one below `runs`.
        resume: go on with the run that is there.
        overwrite: replace the run that is there.
        data: what to train on, where it is not on disk under the name that `job.data` has for it.

    Returns:
        The exit code: 0, or 128 plus the number of the signal that stopped it.

    Raises:
        UsageError, ContentError, OSError: as their messages say.
    """
    require_services(job.log_to)
    settle(job)
    device = choose_device(job.device)
    with processes(device) as place, ExitStack() as stack:
        first = place.rank == 0
        say = say_line if first else say_nothing
        folder = None
        if first and resume and output:
            folder = stack.enter_context(closing(old_run(output, job.keep)))
        elif first:
            refuse(output, overwrite, job.start)
        state = from_first(newest(folder, say))
        ready = get_ready(job, state, device, place, say, data)
        ready, limit = keep_to_budget(ready, state, say)
        if first and folder is None:
            network = ready.job.recipe.network
            folder = stack.enter_context(closing(new_run(output, network, overwrite, job.keep)))
        if folder is not None:
            folder.write_config(ready.job.to_toml())
        return train(ready, folder, state, say, limit)


def say_line(text: str) -> None:
    """Print a line at once, in a pipe too."""
    say(text, flush=True)


def say_nothing(text: str) -> None:
    """What every process but the first says."""


def settle(job: Job) -> None:
    """Set up this process for arithmetic."""
    settle_memory()
    settle_threads(job.recipe.threads)


def newest(folder: RunFolder | None, say: Say) -> State | None:
    """The newest whole state of a run that goes on."""
    if folder is None:
        return None
    folder.checkpoints.clear_unfinished()
    found = folder.checkpoints.newest()
    if found is None:
        say(f"{folder.path}: nothing was saved yet, so this starts from the beginning")
        return None
    state, damaged = found
    with fitting(folder.path):
        check_state(state)
    for text in damaged:
        say(f"{text}; going on from the one before it")
    return state


def check_state(state: State) -> None:
    """Refuse a state that lacks what says what it is of. Raises KeyError or TypeError."""
    for name, kind in STATE.items():
        if not isinstance(state[name], kind):
            raise TypeError(f"{name} is a {type(state[name]).__name__}")


def keep_to_budget(
    ready: Ready, state: State | None, say: Say
) -> tuple[Ready, budget.Budget | None]:
    """The same with as many epochs as there is time for, and what will keep it to its time."""
    if not ready.job.budget:
        return ready, None
    limit = budget.seconds(ready.job.budget)
    if state is None:
        return within_budget(ready, limit, say)
    # a run of 0.1.0 was planned once, before it began, and ends as it would have there
    going_on = budget.Budget.resumed(limit, state["budget"]) if "budget" in state else None
    return ready, going_on


def within_budget(ready: Ready, limit: float, say: Say) -> tuple[Ready, budget.Budget]:
    """A recipe whose length fits into so many seconds, by the speed of its first steps."""
    job = ready.job
    speed, per_epoch, spent = measured(ready, replace(job.recipe, first_scale=1.0), limit)
    if job.recipe.first_share < 1:
        small, _, more = measured(ready, replace(job.recipe, grown=1.0), limit)
        speed, spent = replace(speed, first=small.step), spent + more
    recipe = from_first(budget.fitted(job.recipe, speed, limit - spent, per_epoch))
    steps = recipe.total_steps(per_epoch)
    each = speed.of_updates(recipe, per_epoch) / steps
    say(
        f"--budget {job.budget}: {steps} weight updates fit, {steps / per_epoch:.1f} epochs "
        f"({each:.3f} s each, {speed.validation:.1f} s a validation); planned anew on the way"
    )
    ready = replace(ready, job=replace(job, recipe=recipe))
    return ready, budget.Budget(limit, speed, spent=spent)


def measured(ready: Ready, recipe: Recipe, seconds: float) -> tuple[budget.Speed, int, float]:
    """How fast a recipe goes, the steps of an epoch, and the seconds that it took to find out.

    Reading the images, for this and for the run, does not count: it is not training.
    """
    splits = ready.splits
    trainer = replace(ready, job=replace(ready.job, recipe=recipe)).trainer(
        copy.deepcopy(ready.network)
    )
    validation, test = (
        0 if images is None else len(images) for images in (splits.validation, splits.test)
    )
    each_epoch = validation + (test if ready.job.follow_test else 0)
    began = time.monotonic()
    speed = budget.measure(trainer, seconds / 2, each_epoch, validation + test)
    return speed, trainer.batches.steps_per_epoch, time.monotonic() - began


def train(
    ready: Ready,
    folder: RunFolder | None,
    state: State | None,
    say: Say,
    limit: budget.Budget | None = None,
) -> int:
    """Train to the end or to a signal; at the end, score and save. Returns the exit code."""
    trainer = ready.trainer(ready.network)
    if state is not None:
        restore(trainer, state, ready.splits.fingerprint)
    say(introduction(ready, trainer))
    notice = batch_norm_notice(
        ready.network.train(),
        trainer.batches.batch_size,
        ready.place.world_size,
        trainer.recipe.accumulate,
        trainer.recipe.sync_batch_norm,
    )
    if notice is not None:
        say(notice)
    logbook = None if folder is None else open_logbook(ready, folder, state, trainer)
    with ExitStack() as stack:
        if logbook is not None:
            stack.enter_context(closing(logbook))
        every = budget.cadence(ready.job.checkpoint_every)
        stopped = watch(Keeper(trainer, folder, logbook, ready.identity(), *every, limit), ready)
        if stopped is not None:
            run = folder and folder.path
            say(f"Stopped by {stopped.name} and saved after step {trainer.step}.")
            say(f"To go on: resnets train --resume {run}")
            return 128 + stopped
        ready = as_trained(ready, trainer, folder)
        network = final_network(trainer, folder, say)
        description, chosen = describe(ready, network), candidates(trainer)
        metrics = finish(Result(ready, network, description, folder, say, chosen))
        if logbook is not None:
            logbook.write({"kind": "end", "step": trainer.step} | metrics)
    return 0


def as_trained(ready: Ready, trainer: Trainer, folder: RunFolder | None) -> Ready:
    """The same with the length that a budget gave the run, so that its recipe repeats it."""
    if trainer.recipe == ready.job.recipe:
        return ready
    ready = replace(ready, job=replace(ready.job, recipe=trainer.recipe))
    if folder is not None:
        folder.write_config(ready.job.to_toml())
    return ready


def introduction(ready: Ready, trainer: Trainer) -> str:
    """What is about to be trained, in a few words."""
    recipe, splits = ready.job.recipe, ready.splits
    weights = sum(weight.numel() for weight in ready.network.parameters())
    done = f" ({trainer.step:,} are done)" if trainer.step else ""
    return (
        f"{recipe.network} ({weights:,} weights) on {len(splits.train):,} images of "
        f"{len(splits.class_names)} classes at {recipe.training_size} pixels, "
        f"{trainer.steps:,} steps of {trainer.batches.batch_size}{done} on {ready.device}"
    )


def open_logbook(ready: Ready, folder: RunFolder, state: State | None, trainer: Trainer) -> Logbook:
    """The run's log, cut back to what the state has seen, with a record of this beginning."""
    lines = JsonLines(folder.log, state["log"] if state else 0)
    config = tomllib.loads(ready.job.to_toml())
    loggers = open_loggers(folder.path, ready.job.log_to, trainer.step, config)
    logbook = Logbook(lines, loggers, state["seconds"] if state else 0.0)
    logbook.write(
        {
            "kind": "resume" if state else "start",
            "step": trainer.step,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "steps": trainer.steps,
            "fingerprint": ready.splits.fingerprint,
            "device": device_name(ready.device),
            "threads": torch.get_num_threads(),
            "processes": ready.place.world_size,
            "machine": machine(),
            "versions": current_versions(),
        }
    )
    return logbook


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def watch(keeper: Keeper, ready: Ready) -> signal.Signals | None:
    """Train before a person's eyes. Returns the signal that stopped it, None at the end."""
    trainer, first = keeper.trainer, ready.place.rank == 0
    bottleneck = Bottleneck(trainer.recipe, trainer.batches)
    pace = Pace(trainer.steps, trainer.epochs, trainer.ahead)
    with closing(open_screen(pace, first)) as screen, StopSignals() as stops:

        def show(record: Record) -> None:
            pace.steps, pace.epochs = trainer.steps, trainer.epochs  # a budget may change them
            screen.show(record)
            sentence = bottleneck.note(record)
            if sentence is not None:
                screen.say(sentence)

        return follow(trainer, keeper, show, stops)


def candidates(trainer: Trainer) -> int:
    """Among how many networks the validation images may choose: with patience, all the epochs'."""
    if not trainer.recipe.patience or trainer.validation is None:
        return 1
    return -(-trainer.steps // trainer.batches.steps_per_epoch)


def final_network(trainer: Trainer, folder: RunFolder | None, say: Say) -> ResNet:
    """What is kept: the last weights, or their mean; with patience, the best by validation."""
    if trainer.recipe.patience and trainer.best_step:
        state = from_first(folder.checkpoints.at(trainer.best_step) if folder else None)
        assert state is not None
        say(f"Kept: epoch {trainer.best_epoch}, the best by validation.")
        return from_state(state, "checkpoint").network.to(trainer.device).eval()
    network = trainer.evaluated.eval()
    assert isinstance(network, ResNet)
    share_buffers(network)
    if network is not trainer.network:
        say("Kept: the mean of the weights.")
    return network
