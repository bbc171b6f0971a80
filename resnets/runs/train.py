"""A training run from its start to its result."""

import contextlib
import copy
import datetime
import signal
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from resnets.data.batches import ProcessRank
from resnets.data.labelled import LabelledImages
from resnets.data.sources.checks import all_unreadable
from resnets.data.sources.opening import read_source, source_name
from resnets.errors import UsageError
from resnets.evaluation.calibration import check_error_rate
from resnets.evaluation.fit_familiarity import most_for_familiarity
from resnets.evaluation.history import History
from resnets.evaluation.outputs import Logits
from resnets.fields import check
from resnets.format import duration, milliseconds, parse_duration, plural
from resnets.machine import cores, machine, settle_memory, settle_threads
from resnets.model_file import CONFIG, Description, Model, current_versions
from resnets.networks import ResNet, build
from resnets.networks.resnet import least_side, refuse_small
from resnets.runs import budget
from resnets.runs.batch_size import with_fitting_batch
from resnets.runs.budget import Bottleneck
from resnets.runs.callbacks import Callback, CallbackList, End, Record
from resnets.runs.checkpoint import State, fitting, random_state, set_random_state
from resnets.runs.cross_validation import CrossValidation, cross_validate, refuse_with_folds
from resnets.runs.custom_parts import NO_CUSTOM_PARTS, CustomParts, refuse_fit
from resnets.runs.folder import (
    FOLD,
    RunFolder,
    existing_run,
    folds_in,
    has_state,
    new_run,
    refuse,
)
from resnets.runs.frozen_features import FeatureReader, features_in_words
from resnets.runs.job import Job, names_weights
from resnets.runs.logbook import Logbook
from resnets.runs.loggers import (
    JsonLines,
    MemoryLines,
    open_loggers,
    reach_services,
    require_services,
)
from resnets.runs.notices import too_few_steps
from resnets.runs.prepare import Notify, images_of, prepare, refuse_moved
from resnets.runs.published_start import ask_at_terminal
from resnets.runs.restarts import begun_before, folder_again, goes_on, identity_of
from resnets.runs.result import Result, describe, score_and_save
from resnets.runs.run import Run
from resnets.runs.setup import Setup
from resnets.runs.starting_point import final_weights, from_state
from resnets.runs.stop_signals import STOPPING, Interrupted, StopSignals
from resnets.runs.supervision import Checkpointer, Stop, follow, restore
from resnets.training.devices import (
    choose_device,
    computing,
    memory_advice,
    refuse_other_launchers,
)
from resnets.training.head import FeatureTrainer, HeadFirstTrainer, HeadTrainer
from resnets.training.parallel import (
    batch_norm_notice,
    exchange_of,
    from_first,
    processes,
    share_buffers,
)
from resnets.training.recipe import Recipe
from resnets.training.trainer import ONE_VALUE, Trainer, copied

_STATE: dict[str, type | tuple[type, ...]] = {  # required fields of a checkpoint
    **{"trainer": dict, "architecture": dict, "preprocessing": dict},
    **{"random": list, "class_names": list, "fingerprint": str},
    **{"log": int, "seconds": (int, float)},
}


def train(
    job: Job,
    output: Path | Literal[False] | None = None,
    *,
    custom: CustomParts = NO_CUSTOM_PARTS,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    as_command: bool | float = False,
) -> Run:
    """Train, score and save a network.

    Random numbers, the number of threads and signal handlers are afterwards as they were.

    Args:
        job: what is asked for.
        output: the run's folder; None takes a fresh one below `runs`, False writes nothing.
        custom: what the user's program brings of its own.
        resume: go on with the run that is in the folder.
        overwrite: replace the run that is in the folder.
        callbacks: get every record, in the first of several processes only.
        as_command: whether the process is there for this run alone, and, if not just True, when it
            began by `time.monotonic`, from which --budget counts. SIGINT and SIGTERM then save
            the state and raise Interrupted, and a second one ends the process at once. If not,
            SIGINT (a notebook's stop button), or a KeyboardInterrupt that a callback, the network
            or the loss raises, ends the training, and the network so far is scored; in a fold of a
            cross-validation, which must be whole, it raises KeyboardInterrupt.

    Raises:
        UsageError, ContentError, OSError: as their messages say; UsageError also where a callback
            stops a fold of a cross-validation.
        Interrupted: a signal has stopped it; only `as_command`.
        KeyboardInterrupt: SIGINT in a fold, before the first step is done, or for the second time
            while the network is scored.
    """
    began = time.monotonic() if isinstance(as_command, bool) else as_command
    how = _Manner(custom, resume, overwrite, as_command is not False, began)
    return _carry_out(job, output, how, callbacks)[0]


@dataclass(frozen=True)
class _Manner:
    """How a run is carried out; see `train`."""

    custom: CustomParts = NO_CUSTOM_PARTS
    resume: bool = False
    overwrite: bool = False
    as_command: bool = False
    began: float = 0.0  # by time.monotonic
    again: bool = False  # torchrun has started the processes again, and so the run goes on


def _carry_out(
    job: Job, output: Path | Literal[False] | None, how: _Manner, callbacks: Sequence[Callback]
) -> tuple[Run, Result]:
    """Train, score and save a network; what came out, and what it was measured on."""
    job, custom = _accepted(job, how)
    device = choose_device(job.device)
    with _restored_surroundings(device), computing(device, job.recipe), ExitStack() as stack:
        configure_process(job)
        patience = map(parse_duration, filter(None, [job.wait_for_processes]))
        process = stack.enter_context(processes(device, *patience))
        places = [output] if how.resume and output else []
        early = stack.enter_context(ExitStack())
        early.enter_context(_stopped_early(how, process, places))
        stack.enter_context(all_unreadable(partial(images_of, job, custom)))
        begun = begun_before(job, output, process)
        if begun is None:
            job = replace(job, torchrun_id=identity_of(job, process))
        else:
            output, job = (output, job) if how.resume else begun
            how = replace(how, resume=True, again=True)
        if job.folds:
            refuse_with_folds(job, process.world_size)
        writes = process.rank == 0 and output is not False
        callback_list = CallbackList(callbacks if process.rank == 0 else ())
        notify = callback_list.notify
        if how.resume and output:
            refuse_moved(job, custom, output)
        folder = _folder_to_go_on(job, output or None, how, stack) if writes else None
        state = from_first(_newest_state(folder, notify))
        if state is not None and (how.again or len(state["random"]) != process.world_size):
            notify(goes_on(state, process.world_size))
        agree = ask_at_terminal if how.as_command else None
        setup = prepare(job, state, device, process, notify, custom, agree)
        if job.recipe.batch_size == "auto":
            setup = with_fitting_batch(setup, job.recipe, notify)
        may_choose_size = _asks_for_no_size(job, custom) and not setup.job.start
        setup, limit = _budgeted(setup, state, notify, may_choose_size, how.began)
        if state is not None:
            _refuse_missing_folds(job, custom, folder)
        trainer = _trainer_at(setup, state, output, notify)
        if writes:
            folder = folder or _new_folder(setup.job, output or None, how.overwrite, stack)
            places.append(folder.path)
            folder.checkpoints.clear_unfinished()
            folder.write_config(setup.job.to_toml())
        session = _Session(
            setup, callback_list, folder, limit, output is False, replace(how, custom=custom)
        )
        early.close()
        with memory_advice(device, setup.job.recipe):
            return _train_to_end(session, trainer, state, _cross_validated(session))


@contextlib.contextmanager
def _stopped_early(how: _Manner, process: ProcessRank, places: list[Path]) -> Iterator[None]:
    """Say what stands where Ctrl-C stops a command before its training takes note of signals.

    Args:
        how: the run is carried out.
        process: the first one has something to say.
        places: the folder of the run, once it is there.

    Raises:
        Interrupted: Ctrl-C stopped it.
    """
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        if not how.as_command:
            raise
        first = process.rank == 0
        folder = places[-1] if places and first else None
        raise Interrupted(signal.SIGINT, 0, folder, early=first) from None


def _accepted(job: Job, how: _Manner) -> tuple[Job, CustomParts]:
    """A job and the user's own parts, with the data read where a program gives the images.

    Raises:
        UsageError: something of them is not allowed, or cannot be used here.
    """
    custom = how.custom
    _refuse_settings(job)
    if not how.resume:  # which goes on without them
        require_services(job.log_to)
    custom.refuse_others(job)
    refuse_fit(custom, job.recipe, job.start)
    if how.as_command:
        refuse_other_launchers()
    if custom.data is None:
        return job, custom
    content = read_source(custom.data)
    return replace(job, data=source_name(custom.data, content)), replace(custom, data=content)


def _folder_to_go_on(
    job: Job, output: Path | None, how: _Manner, stack: ExitStack
) -> RunFolder | None:
    """The folder of the run that goes on, until the stack is left; None for a new run.

    Raises:
        UsageError: there is no such run, or a new one may not take the place of what is there.
    """
    if how.again and output:
        return folder_again(output, job.keep, stack)
    if how.resume and output:
        return stack.enter_context(closing(existing_run(output, job.keep)))
    refuse(output, how.overwrite, job.start if names_weights(job.start) else None)
    return None


def _new_folder(job: Job, output: Path | None, overwrite: bool, stack: ExitStack) -> RunFolder:
    """The folder of a new run, until the stack is left.

    It is made once nothing may be refused any more: a refused run leaves all files as they are.
    """
    reach_services(job.log_to)
    folder = new_run(output, job.recipe.network, overwrite, job.keep)
    return stack.enter_context(closing(folder))


def _cross_validated(session: "_Session") -> CrossValidation | None:
    """What the networks of all folds predict; None where there are none, and in a fold itself."""
    job, how = session.setup.job, session.how
    if not job.folds or job.fold:
        return None

    def train_fold(
        fold: Job, place: Path | Literal[False], callbacks: list[Callback]
    ) -> tuple[LabelledImages, Logits]:
        resume = place is not False and (place / CONFIG).is_file()
        if resume and place is not False:
            fold = replace(Job.of_run(place), data=fold.data, device=fold.device)
        custom = replace(how.custom, network=copy.deepcopy(how.custom.network))
        manner = replace(how, custom=custom, resume=resume, overwrite=False)
        run, result = _carry_out(fold, place, manner, callbacks)
        on = "nothing was written" if place is False else "resnets.resume goes on there"
        if result.interrupted:
            raise KeyboardInterrupt(f"stopped in fold {fold.fold}; {on}")
        if run.stopped:
            raise UsageError(
                f"a callback stopped fold {fold.fold} ({run.stopped}): cross-validation measures "
                f"networks that were trained to the end; {on}"
            )
        assert result.setup.splits.test is not None
        return result.setup.splits.test, result.logits["test"]

    folder = None if session.folder is None else session.folder.path
    return cross_validate(session.setup, folder, session.callback_list, train_fold)


def _refuse_missing_folds(job: Job, custom: CustomParts, folder: RunFolder | None) -> None:
    """Refuse to train a fold from a module of the user's own that may have seen all images.

    Once the run itself has a state, its folds have finished, and go on from states of their own. A
    fold without one would start from the weights of the module, which may be those of that state.

    Raises:
        UsageError: a fold has no state.
    """
    if folder is None or custom.network is None or not job.folds or job.fold:
        return
    places = [folder.path / FOLD.format(fold) for fold in range(1, job.folds + 1)]
    missing = [place.name for place in places if not has_state(place)]
    if missing:
        raise UsageError(
            f"{folder.path}: the saved state of {', '.join(missing)} is missing, and your network "
            "may know all images from this run, so it cannot be trained without them any more; "
            "start a new run with a fresh network"
        )


def _refuse_settings(job: Job) -> None:
    """Refuse what would fail only in the middle or at the end of a run.

    Raises:
        UsageError: a value is not allowed; it names the flag.
    """
    check(job)
    check_error_rate(job.max_error)
    durations = {
        "--budget": (job.budget, parse_duration),
        "--wait-for-processes": (job.wait_for_processes, parse_duration),
        "--checkpoint-every": (job.checkpoint_every, budget.checkpoint_interval),
    }
    for flag, (text, parsed) in durations.items():
        try:
            _ = None if text is None else parsed(text)
        except UsageError as error:
            raise UsageError(f"{flag} {error}") from None


def _trainer_at(
    setup: Setup, state: State | None, output: Path | Literal[False] | None, notify: Notify
) -> Trainer:
    """What trains the network, at its beginning or where a state has left it.

    Raises:
        UsageError: what is refused before a run has a folder.
    """
    trainer = _trainer(setup)
    if state is None:
        _refuse_small_images(setup, trainer)
        return trainer
    restore(trainer, state, setup.splits)
    if trainer.finished:
        notify(_finished_already(trainer, output))
    return trainer


def _trainer(setup: Setup) -> Trainer:
    """What trains the network, or fits its classifier where all else is frozen."""
    if setup.fits_head_first:
        return head_first_trainer(setup)
    if setup.job.recipe.freeze != "all":
        return setup.trainer(setup.network)
    if setup.process.world_size > 1:
        raise UsageError(
            f"freeze is 'all', which takes one pass in one process; these are "
            f"{setup.process.world_size}: start it without torchrun"
        )
    return setup.trainer(setup.network, partial(HeadTrainer, FeatureReader(setup)))


def _refuse_small_images(setup: Setup, trainer: Trainer) -> None:
    """Refuse images or batches too small for the network, before the run has a folder.

    Raises:
        UsageError: less than one pixel would be left of an image, or one value of a batch.
    """
    if not isinstance(setup.network, ResNet):
        return
    recipe, architecture = setup.job.recipe, setup.network.architecture
    size = setup.preprocessing.size
    training_size = recipe.training_size or size
    first = recipe.size_in(0, trainer.batches.steps_per_epoch) or training_size
    for side in (size, training_size, first):
        refuse_small(architecture, side, side)
    one_pixel = first <= least_side(architecture)
    one_image = recipe.batch // setup.process.world_size <= recipe.accumulate
    if one_pixel and one_image and architecture.norm == "batch" and recipe.freeze != "all":
        raise UsageError(ONE_VALUE)


def head_first_trainer(setup: Setup) -> HeadFirstTrainer:
    """What fits the classifier to features, by one process, and then trains the network."""
    read = FeatureReader(replace(setup, process=ProcessRank()), to_begin=True)
    trainer = setup.trainer(setup.network, partial(HeadFirstTrainer, read))
    assert isinstance(trainer, HeadFirstTrainer)
    return trainer


def _finished_already(trainer: Trainer, output: Path | Literal[False] | None) -> str:
    """What to say where a run that is resumed has nothing left to do."""
    return (
        f"This run is finished ({trainer.steps:,} of {plural(trainer.steps, 'step')} done), so it "
        f"is only scored again. To train further, start a new run from its weights: `resnets train "
        f"DATA --from {output}`"
    )


@contextlib.contextmanager
def _restored_surroundings(device: torch.device) -> Iterator[None]:
    """Put the random numbers and threads of this process back to where they were before."""
    before, threads = random_state(device), torch.get_num_threads()
    try:
        yield
    finally:
        set_random_state(before, device)
        torch.set_num_threads(threads)


def configure_process(job: Job) -> None:
    """Set up this process for arithmetic."""
    settle_memory()
    settle_threads(job.recipe.threads)


def _newest_state(folder: RunFolder | None, notify: Notify) -> State | None:
    """The newest whole state of a run that goes on."""
    if folder is None:
        return None
    checkpoint = folder.checkpoints.newest()
    if checkpoint is None:
        if any(map(has_state, folds_in(folder.path))):
            notify(f"{folder.path}: goes on with the folds that were begun")
        else:
            notify(f"{folder.path}: nothing was saved yet, so this starts from the beginning")
        return None
    state, damaged = checkpoint
    with fitting(folder.path):
        _check_state(state)
    for text in damaged:
        notify(f"{text}; going on from the one before it")
    return state


def _check_state(state: State) -> None:
    """Check the fields that identify a checkpoint. Raises KeyError or TypeError."""
    for name, kind in _STATE.items():
        if not isinstance(state[name], kind):
            raise TypeError(f"{name} is a {type(state[name]).__name__}")


def _asks_for_no_size(job: Job, custom: CustomParts) -> bool:
    """Whether the user neither asked for a size nor has a network that was trained with one."""
    recipe = job.recipe
    size = recipe.image_size or recipe.training_size or recipe.resize
    return not size and custom.network is None


def _budgeted(
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
        notify(f"--budget {setup.job.budget}: {duration(limit)} for each of the networks")
    if state is None:
        return _within_budget(setup, limit, notify, may_choose_size, began)
    # a run of 0.1.0 was planned once, before it began, and ends as it would have there
    going_on = budget.Budget.resumed(limit, state["budget"]) if "budget" in state else None
    return setup, going_on


def _within_budget(
    setup: Setup, limit: float, notify: Notify, may_choose_size: bool, began: float
) -> tuple[Setup, budget.Budget]:
    """A recipe whose length fits the time limit, by the speed of its first steps."""
    large = replace(setup.job.recipe, progressive_resizing_scale=1.0)
    prepared = budget.preparing(limit, time.monotonic() - began)
    speed, per_epoch, spent = _measure_speed(setup, large, limit)
    spent += prepared
    if may_choose_size:
        smaller = setup.at_size(from_first(budget.fitting_size(large, speed, limit - spent)))
        if smaller is not setup:
            size = smaller.job.recipe.image_size
            notify(f"--budget {setup.job.budget}: images at {size} pixels, so that more steps fit")
            setup, large = smaller, replace(smaller.job.recipe, progressive_resizing_scale=1.0)
            speed, per_epoch, more = _measure_speed(setup, large, limit)
            spent += more
    job = setup.job
    if job.recipe.first_share < 1:
        small = replace(job.recipe, progressive_resizing_until=1.0)
        smallest, _, more = _measure_speed(setup, small, limit)
        speed, spent = replace(speed, first=smallest.step), spent + more
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


def _with_ending(setup: Setup, speed: budget.Speed, limit: float) -> budget.Speed:
    """The speed with all that follows the last step: statistics, familiarity and the report."""
    splits = setup.splits
    known = 0 if splits.validation is None else len(splits.validation)
    known += 0 if splits.test is None else len(splits.test)
    sample = 0 if splits.validation is None else most_for_familiarity(splits.train)
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


@dataclass(frozen=True)
class _Session:
    """What a run works with while it trains.

    Attributes:
        setup: what was decided before.
        callback_list: gets the records.
        folder: of the run; None where nothing is written, and in all processes but the first.
        limit: keeps it to its time; None where it may take any.
        in_memory: whether no process writes anything.
        how: it is carried out.
    """

    setup: Setup
    callback_list: CallbackList
    folder: RunFolder | None = None
    limit: budget.Budget | None = None
    in_memory: bool = False
    how: _Manner = _Manner()


def _train_to_end(
    session: _Session,
    trainer: Trainer,
    state: State | None,
    cross_validation: CrossValidation | None = None,
) -> tuple[Run, Result]:
    """Train as far as it gets, from a state that the trainer has or from the start; score, save."""
    setup, folder, notify = session.setup, session.folder, session.callback_list.notify
    path = None if folder is None else folder.path
    with _stopped_early(session.how, setup.process, [path] if path else []):
        for line in _introduction(setup, trainer):
            notify(line)
        new_logbook = _open_logbook(session, state, trainer)
    with new_logbook as logbook:
        checkpointer = _checkpointer(session, trainer, logbook)
        stop = _train_supervised(checkpointer, session)
        if isinstance(trainer, FeatureTrainer) and trainer.kept:
            notify(trainer.kept)
        if stop and stop.number and session.how.as_command:
            raise Interrupted(stop.number, trainer.step, path)
        session = replace(session, setup=_with_trained_recipe(setup, trainer, folder))
        with _resumable(session, trainer.step, path):
            result = _scored(session, checkpointer, stop, cross_validation)
        _write_end(logbook, trainer.step, result)
    stopped = stop.reason if stop else "SIGINT" if result.interrupted else None
    run = Run(_plain_model(result), _history_of(folder, logbook), path, stopped)
    try:
        session.callback_list.tell(End(trainer.step, run.metrics, run.path, stopped))
    except KeyboardInterrupt:
        if session.how.as_command:
            raise
    return run, result


def _checkpointer(session: _Session, trainer: Trainer, logbook: Logbook) -> Checkpointer:
    """What saves the state of a run, as often as its job says."""
    setup = session.setup
    every = budget.checkpoint_interval(setup.job.checkpoint_every)
    return Checkpointer(
        *(trainer, logbook, setup.identity(), session.folder, *every, session.limit),
        in_memory=session.in_memory,
        beside=_has_idle_core(setup),
    )


def _has_idle_core(setup: Setup) -> bool:
    """Whether the training leaves a core to a thread: on a GPU, or with few threads."""
    on_machine = setup.process.on_machine or 1
    return setup.device.type != "cpu" or on_machine * torch.get_num_threads() < cores()


def _scored(
    session: _Session,
    checkpointer: Checkpointer,
    stop: Stop | None,
    cross_validation: CrossValidation | None,
) -> Result:
    """The network that is kept, scored and saved.

    A first KeyboardInterrupt before it is there only cuts the run short, as within a step: what it
    broke off is done again.

    Raises:
        KeyboardInterrupt: of a command, with several processes, or after another one.
    """
    setup, notify = session.setup, session.callback_list.notify
    interrupted = stop is not None and stop.number is not None
    try:
        network = _final_network(checkpointer, notify)
    except KeyboardInterrupt:
        if session.how.as_command or interrupted or setup.process.world_size > 1:
            raise
        interrupted, network = True, _final_network(checkpointer, notify)
    description, chosen = describe(setup, network), _candidates(checkpointer.trainer, stop)
    result = Result(setup, network, description, session.folder, notify, chosen, interrupted)
    result = replace(result, cross_validation=cross_validation)
    return score_and_save(result, may_be_cut_short=not session.how.as_command)


def _write_end(logbook: Logbook, step: int, result: Result) -> None:
    """Log the figures of a run that was not cut short, and hand its files to the loggers."""
    if not result.interrupted:
        logbook.write({"kind": "end", "step": step} | result.description.metrics)
    if result.folder is not None:
        logbook.store((result.folder.model, result.folder.path / "report.html"))
    logbook.outcome = "stopped" if result.interrupted else "finished"


@contextlib.contextmanager
def _resumable(session: _Session, step: int, folder: Path | None) -> Iterator[None]:
    """What follows the training of a command, whose last checkpoint is there.

    Raises:
        Interrupted: Ctrl-C stopped it.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not session.how.as_command:
            raise
        raise Interrupted(signal.SIGINT, step, folder) from None


def _plain_model(result: Result) -> Model:
    """The network as its file would give it back: on the CPU, neither compiled nor frozen."""
    if not isinstance(result.network, ResNet):
        copied = replace(result, network=copy.deepcopy(result.network).cpu().eval())
        return copied.model
    network = build(result.network.architecture)
    network.load_state_dict(result.network.state_dict())
    described = Description.from_header(result.description.to_header(), "this run")
    return Model(network.eval(), described)


def _history_of(folder: RunFolder | None, logbook: Logbook) -> History:
    """What the log says."""
    if folder is not None:
        return History.read(folder.log)
    assert isinstance(logbook.lines, MemoryLines)
    return History(None, tuple(logbook.lines.records))


def _with_trained_recipe(setup: Setup, trainer: Trainer, folder: RunFolder | None) -> Setup:
    """The same with the length that a budget gave the run, so that its recipe repeats it."""
    if trainer.recipe == setup.job.recipe:
        return setup
    setup = replace(setup, job=replace(setup.job, recipe=trainer.recipe))
    if folder is not None:
        folder.write_config(setup.job.to_toml())
    return setup


def _introduction(setup: Setup, trainer: Trainer) -> Iterator[str]:
    """What is about to be trained, in a few words; and what is unusual about it."""
    recipe, splits = setup.job.recipe, setup.splits
    weights = sum(weight.numel() for weight in setup.network.parameters())
    steps_done = f" ({trainer.step:,} are done)" if trainer.step else ""
    if recipe.freeze == "all":
        if trainer.finished:
            return
        yield (
            f"{recipe.network}: its classifier is fitted to the features of "
            f"{plural(len(splits.train), 'image')} of "
            f"{plural(len(splits.class_names), 'class')} at {recipe.image_size} pixels, on "
            f"{setup.device}"
        )
        yield features_in_words(setup)
        return
    yield (
        f"{recipe.network} ({plural(weights, 'weight')}) on {plural(len(splits.train), 'image')} "
        f"of {plural(len(splits.class_names), 'class')} at {recipe.training_size} pixels, "
        f"{plural(trainer.steps, 'step')} of {trainer.batches.batch_size}{steps_done} "
        f"on {setup.device}"
    )
    if not trainer.step:
        yield from too_few_steps(setup, trainer.steps)
        if trainer.recipe.patience and trainer.measured.validation is None:
            yield "--patience has no effect: there are no validation images."
    notice = batch_norm_notice(
        setup.network.train(),
        trainer.batches.batch_size,
        setup.process.world_size,
        trainer.recipe.accumulate,
        trainer.recipe.sync_batch_norm,
    )
    if notice is not None:
        yield notice


def _open_logbook(session: _Session, state: State | None, trainer: Trainer) -> Logbook:
    """The run's log, cut back to what the state has seen, with a record of this beginning."""
    setup, folder, notify = session.setup, session.folder, session.callback_list.notify
    seconds = state["seconds"] if state else 0.0
    beginning = {
        "kind": "resume" if state else "start",
        "step": trainer.step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": trainer.steps,
        "fingerprint": setup.splits.fingerprint,
        "device": _device_name(setup.device),
        "threads": torch.get_num_threads(),
        "processes": setup.process.world_size,
        **exchange_of(setup.job.recipe, setup.process.world_size),
        "machine": machine(setup.device),
        "versions": current_versions(),
    }
    if folder is None:
        logbook = Logbook(MemoryLines(), (), seconds)
    else:
        config = tomllib.loads(setup.job.to_toml()) | {"beginning": beginning}
        going_on = notify if session.how.resume else None
        loggers = open_loggers(folder.path, setup.job.log_to, trainer.step, config, going_on)
        lines = JsonLines(folder.log, state["log"] if state else 0)
        logbook = Logbook(lines, loggers, seconds, notify)
    logbook.write(beginning)
    return logbook


def _device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _train_supervised(checkpointer: Checkpointer, session: _Session) -> Stop | None:
    """Train, and say early on what limits the speed. Returns what stopped it, None at the end."""
    trainer, callback_list = checkpointer.trainer, session.callback_list
    bottleneck = Bottleneck(trainer.recipe, trainer.batches)

    def look(record: Record) -> None:
        sentence = bottleneck.note(record)
        if sentence is not None:
            callback_list.notify(sentence)

    callback_list.add(look)
    numbers = STOPPING if session.how.as_command else (signal.SIGINT,)
    with StopSignals(numbers, exits=session.how.as_command) as signals:
        return follow(checkpointer, callback_list, signals, partial(_snapshot, session, trainer))


def _snapshot(session: _Session, trainer: Trainer) -> Model:
    """A copy of the network as it would be kept if training ended now."""
    setup, notify = session.setup, session.callback_list.notify
    network = trainer.evaluation_network
    if setup.process.world_size == 1:  # one process alone cannot estimate what all share
        network = copy.deepcopy(network)
        trainer.estimate_statistics(network)
    return _plain_model(Result(setup, network, describe(setup, network), None, notify))


def _candidates(trainer: Trainer, stop: Stop | None) -> int:
    """Among how many networks the validation images may have chosen.

    With patience they choose among those of all epochs. Who stops a run, a callback or a user, may
    have done so by what it showed: that is a choice among the epochs until then.
    """
    if trainer.measured.validation is None:
        return 1
    if isinstance(trainer, HeadTrainer):  # one a penalty
        return trainer.candidates
    if trainer.recipe.patience:
        return trainer.epochs
    return 1 if stop is None else max(1, trainer.epoch)


def _final_network(checkpointer: Checkpointer, notify: Notify) -> nn.Module:
    """What is kept: the last weights, or their mean; with patience, the best by validation."""
    trainer, folder = checkpointer.trainer, checkpointer.folder
    trainer.estimate_statistics()  # again, if it was stopped within an epoch
    network = trainer.evaluation_network
    if trainer.recipe.patience and trainer.best_step:
        notify(f"Kept: epoch {trainer.best_epoch}, the best by validation.")
        if not checkpointer.in_memory:
            state = from_first(folder.checkpoints.at(trainer.best_step) if folder else None)
            assert state is not None
            return _of_state(state, trainer.network).to(trainer.device).eval()
        assert checkpointer.best is not None
        network = checkpointer.best
    elif network is not trainer.network:
        notify("Kept: the mean of the weights.")
    network = network.eval()
    share_buffers(network)
    return network


def _of_state(state: State, network: nn.Module) -> nn.Module:
    """The network of a saved state; of the user's own, which has just been trained, a copy."""
    if isinstance(network, ResNet):
        return from_state(state, "checkpoint").network
    copied = copy.deepcopy(network)
    copied.load_state_dict(final_weights(state))
    return copied
