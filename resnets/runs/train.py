"""A training run from its start to its result."""

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from resnets.data.sources.checks import all_unreadable
from resnets.data.sources.opening import read_source, source_name
from resnets.errors import UsageError
from resnets.evaluation.calibration import check_error_rate
from resnets.fields import check
from resnets.format import parse_duration
from resnets.machine import settle_memory, settle_threads
from resnets.run_files import CONFIG
from resnets.runs import budget
from resnets.runs.active_run import ActiveRun, train_to_end
from resnets.runs.batch_size import with_fitting_batch
from resnets.runs.callbacks import Callback, CallbackList
from resnets.runs.checkpoint import random_state, set_random_state
from resnets.runs.cross_validation import (
    CrossValidation,
    Predicted,
    cross_validate,
    refuse_with_folds,
)
from resnets.runs.custom_parts import NO_CUSTOM_PARTS, CustomParts, refuse_fit
from resnets.runs.job import Job
from resnets.runs.length import within_budget
from resnets.runs.loggers import require_services
from resnets.runs.lost_processes import loss_says_how_to_continue, reason_says_how_to_continue
from resnets.runs.manner import Manner
from resnets.runs.opening import folder_to_go_on, new_folder, newest_state, refuse_missing_folds
from resnets.runs.prepare import images_of, naming_first_data, prepare, refuse_moved
from resnets.runs.published_start import ask_at_terminal
from resnets.runs.restarts import begun_before, goes_on, identity_of
from resnets.runs.result import Result, familiarity_scores
from resnets.runs.run import Run
from resnets.runs.stop_signals import interrupted_before_training
from resnets.runs.trainers import says_finished, trainer_at
from resnets.training.devices import (
    choose_device,
    computing,
    memory_advice,
    refuse_other_launchers,
)
from resnets.training.parallel import from_first, processes, refused_by_all


def train(
    job: Job,
    output: Path | Literal[False] | None = None,
    *,
    custom: CustomParts = NO_CUSTOM_PARTS,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train, score and save a network for a program, such as a notebook.

    Random numbers, the number of threads and signal handlers are afterwards as they were.

    SIGINT (a notebook's stop button), or a KeyboardInterrupt that a callback, the network or the
    loss raises, ends the training, and the network so far is scored; in a fold of a
    cross-validation, which must be whole, it raises KeyboardInterrupt.

    Args:
        job: what is asked for.
        output: the run's folder; None takes a fresh one below `runs`, False writes nothing.
        custom: what the user's program brings of its own.
        resume: go on with the run that is in the folder.
        overwrite: replace the run that is in the folder.
        callbacks: get every record, in the first of several processes only.

    Raises:
        UsageError, ContentError, OSError: as their messages say; UsageError also where a callback
            stops a fold of a cross-validation.
        KeyboardInterrupt: SIGINT in a fold, before the first step is done, or for the second time
            while the network is scored.
    """
    how = Manner(custom, resume, overwrite, began=time.monotonic())
    return _carry_out(job, output, how, callbacks)[0]


def train_as_command(
    job: Job,
    output: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    began: float | None = None,
) -> Run:
    """Train, score and save a network, in a process that is there for this run alone.

    SIGINT and SIGTERM save the state, and a second one ends the process at once. A run that starts
    from weights that are not there may ask at a terminal whether to fetch them.

    Args:
        job: as for `train`.
        output: the run's folder; None takes a fresh one below `runs`.
        resume: as for `train`.
        overwrite: as for `train`.
        callbacks: as for `train`.
        began: when the command began, by `time.monotonic`: --budget counts from then. None: now.

    Raises:
        UsageError, ContentError, OSError: as their messages say.
        Interrupted: a signal has stopped it.
    """
    began = time.monotonic() if began is None else began
    how = Manner(resume=resume, overwrite=overwrite, as_command=True, began=began)
    return _carry_out(job, output, how, callbacks)[0]


def _carry_out(
    job: Job, output: Path | Literal[False] | None, how: Manner, callbacks: Sequence[Callback]
) -> tuple[Run, Result]:
    """Train, score and save a network; what came out, and what it was measured on."""
    job, custom = _accepted(job, how)
    device = choose_device(job.device)
    with _restored_surroundings(device), computing(device, job.recipe), ExitStack() as stack:
        configure_process(job)
        patience = map(parse_duration, filter(None, [job.wait_for_processes]))
        places = [output] if how.resume and output else []
        stack.enter_context(reason_says_how_to_continue(how.as_command, places))
        process = stack.enter_context(processes(device, *patience))
        stack.enter_context(loss_says_how_to_continue(how.as_command, places))
        early = stack.enter_context(ExitStack())
        early.enter_context(interrupted_before_training(how.as_command, process, places))
        stack.enter_context(all_unreadable(partial(images_of, job, custom)))
        begun = begun_before(job, output, process)
        if begun is None:
            job = replace(job, torchrun_id=identity_of(job, process))
        else:
            output, job = (output, job) if how.resume else begun
            how = replace(how, resume=True, again=True)
            places[:] = [begun[0]]
        if job.folds:
            refuse_with_folds(job, process.world_size)
        writes = process.rank == 0 and output is not False
        callback_list = CallbackList(callbacks if process.rank == 0 else ())
        notify = callback_list.notify
        if how.resume and output:
            refuse_moved(job, custom, output)
        with refused_by_all():
            folder = folder_to_go_on(job, output or None, how, stack) if writes else None
        state = from_first(newest_state(folder, notify))
        is_said = says_finished(state, folder, notify)
        agree = ask_at_terminal if how.as_command else None
        with naming_first_data(job, output if how.resume and output else None):
            setup = prepare(job, state, device, process, notify, custom, agree)
        if job.recipe.batch_size == "auto":
            setup = with_fitting_batch(setup, job.recipe, notify)
        may_choose_size = _asks_for_no_size(job, custom) and not setup.job.start
        setup, limit = within_budget(setup, state, notify, may_choose_size, how.began)
        if state is not None:
            refuse_missing_folds(job, custom, folder)
        trainer = trainer_at(setup, state, output, notify, is_said)
        if state is not None and not trainer.finished:
            before = len(state["random"])  # processes
            if how.again or before != process.world_size:
                notify(goes_on(state, process.world_size))
        with refused_by_all():
            if writes and not folder:
                folder = new_folder(setup.job, output or None, how.overwrite, stack)
        if folder:
            folder.checkpoints.clear_unfinished()
            folder.write_config(setup.job.to_toml())
        places += filter(None, [from_first(folder.path if folder else None)])
        active = ActiveRun(
            *(setup, callback_list, folder, limit, output is False),
            replace(how, custom=custom),
            places[-1] if places else None,
        )
        early.close()
        with memory_advice(device, setup.job.recipe):
            return train_to_end(active, trainer, state, _cross_validated(active))


def _accepted(job: Job, how: Manner) -> tuple[Job, CustomParts]:
    """A job and the user's own parts, with the data read where a program gives the images.

    Raises:
        UsageError: something of them is not allowed, or cannot be used here.
    """
    custom = how.custom
    refuse_settings(job)
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


def refuse_settings(job: Job) -> None:
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


def _asks_for_no_size(job: Job, custom: CustomParts) -> bool:
    """Whether the user neither asked for a size nor has a network that was trained with one."""
    recipe = job.recipe
    size = recipe.image_size or recipe.training_size or recipe.resize
    return not size and custom.network is None


def _cross_validated(active: ActiveRun) -> CrossValidation | None:
    """What the networks of all folds predict; None where there are none, and in a fold itself."""
    job, how = active.setup.job, active.how
    if not job.folds or job.fold:
        return None

    def train_fold(fold: Job, place: Path | Literal[False], callbacks: list[Callback]) -> Predicted:
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
        held_out, scores = result.images["test"], familiarity_scores(result, result.images["test"])
        return Predicted(held_out, result.logits["test"], scores, result.left_copies("test"))

    folder = None if active.folder is None else active.folder.path
    return cross_validate(active.setup, folder, active.callback_list, train_fold)


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
