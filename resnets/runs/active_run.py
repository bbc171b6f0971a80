"""A run under way: trained as far as it gets, then scored and saved."""

import contextlib
import copy
import datetime
import signal
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from resnets.errors import Advice, ContentError
from resnets.evaluation.history import History
from resnets.interrupting import STOPPING
from resnets.machine import cores, machine
from resnets.model_file import Model, current_versions
from resnets.run_files import REPORT
from resnets.runs import budget
from resnets.runs.budget import Bottleneck
from resnets.runs.callbacks import CallbackList, End, Record
from resnets.runs.checkpoint import State
from resnets.runs.cross_validation import CrossValidation
from resnets.runs.folder import RunFolder, has_state, how_to_continue, processes_here
from resnets.runs.kept_network import candidates, final_network, plain_model
from resnets.runs.logbook import Logbook
from resnets.runs.loggers import JsonLines, MemoryLines, open_loggers
from resnets.runs.manner import Manner
from resnets.runs.notices import introduction
from resnets.runs.result import Result, describe, score_and_save
from resnets.runs.run import Run
from resnets.runs.setup import Setup
from resnets.runs.stop_signals import (
    Interrupted,
    StopSignals,
    interrupted_after_training,
    interrupted_before_training,
)
from resnets.runs.supervision import Checkpointer, Stop, follow
from resnets.torchrun import is_first_of_machine, speaks_for_machine
from resnets.training.head import FeatureTrainer
from resnets.training.parallel import exchange_of
from resnets.training.trainer import NotFiniteError, Trainer


@dataclass(frozen=True)
class ActiveRun:
    """What a run works with while it trains.

    Attributes:
        setup: what was decided before.
        callback_list: gets the records.
        folder: of the run; None where nothing is written, and in all processes but the first.
        limit: keeps it to its time; None where it may take any.
        in_memory: whether no process writes anything.
        how: it is carried out.
        place: the folder of the run, in all processes.
    """

    setup: Setup
    callback_list: CallbackList
    folder: RunFolder | None = None
    limit: budget.Budget | None = None
    in_memory: bool = False
    how: Manner = field(default_factory=Manner)
    place: Path | None = None


def train_to_end(
    active: ActiveRun,
    trainer: Trainer,
    state: State | None,
    cross_validation: CrossValidation | None = None,
) -> tuple[Run, Result]:
    """Train as far as it gets, from a state that the trainer has or from the start; score, save."""
    setup, folder, notify = active.setup, active.folder, active.callback_list.notify
    path = None if folder is None else folder.path
    with interrupted_before_training(active.how.as_command, setup.process, [path] if path else []):
        for line in introduction(setup, trainer):
            notify(line)
        new_logbook = _open_logbook(active, state, trainer)
    with new_logbook as logbook:
        checkpointer = _checkpointer(active, trainer, logbook)
        with _failure_says_how_to_continue(active, path):
            stop = _train_supervised(checkpointer, active)
        if isinstance(trainer, FeatureTrainer) and trainer.kept:
            notify(trainer.kept)
        if stop and stop.number and active.how.as_command:
            elsewhere = active.place if is_first_of_machine() else None
            raise Interrupted(stop.number, trainer.step, path, elsewhere=elsewhere)
        active = replace(active, setup=_with_trained_recipe(setup, trainer, folder))
        with (
            interrupted_after_training(active.how.as_command, setup.process, trainer.step, path),
            _failure_says_how_to_continue(active, path),
        ):
            result = _scored(active, checkpointer, stop, cross_validation)
        _write_end(logbook, trainer.step, result)
    stopped = stop.reason if stop else "SIGINT" if result.interrupted else None
    run = Run(plain_model(result), _history_of(folder, logbook), path, stopped)
    try:
        active.callback_list.tell(End(trainer.step, run.metrics, run.path, stopped))
    except KeyboardInterrupt:
        if active.how.as_command:
            raise
    return run, result


@contextlib.contextmanager
def _failure_says_how_to_continue(active: ActiveRun, folder: Path | None) -> Iterator[None]:
    """Add how to go on where a command's training fails, as by a data server, after it was saved.

    It is a note of the error, which the command line prints below the reason.

    Args:
        active: the run.
        folder: of it; None in all processes but the first.
    """
    try:
        yield
    except (OSError, ContentError) as error:
        path = folder if active.how.as_command else None
        if path is not None and has_state(path) and speaks_for_machine():
            whole = path.parent if active.setup.job.fold else path  # a fold alone is of no use
            if not isinstance(error, NotFiniteError):  # which would be met again
                error.add_note(Advice(how_to_continue(whole)))
        raise


def _open_logbook(active: ActiveRun, state: State | None, trainer: Trainer) -> Logbook:
    """The run's log, cut back to what the state has seen, with a record of this beginning."""
    setup, folder, notify = active.setup, active.folder, active.callback_list.notify
    seconds, machines = state["seconds"] if state else 0.0, processes_here()[1]
    beginning = {
        "kind": "resume" if state else "start",
        "step": trainer.step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": trainer.steps,
        "fingerprint": setup.splits.fingerprint,
        "device": _device_name(setup.device),
        "threads": torch.get_num_threads(),
        "processes": setup.process.world_size,
        **({"machines": machines} if machines > 1 else {}),
        **exchange_of(setup.job.recipe, setup.process.world_size),
        "machine": machine(setup.device),
        "versions": current_versions(),
    }
    if folder is None:
        logbook = Logbook(MemoryLines(), (), seconds)
    else:
        config = tomllib.loads(setup.job.to_toml()) | {"beginning": beginning}
        going_on = notify if active.how.resume else None
        loggers = open_loggers(folder.path, setup.job.log_to, trainer.step, config, going_on)
        lines = JsonLines(folder.log, state["log"] if state else 0)
        logbook = Logbook(lines, loggers, seconds, notify)
    logbook.write(beginning)
    return logbook


def _device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _checkpointer(active: ActiveRun, trainer: Trainer, logbook: Logbook) -> Checkpointer:
    """What saves the state of a run, as often as its job says."""
    setup = active.setup
    every = budget.checkpoint_interval(setup.job.checkpoint_every)
    return Checkpointer(
        *(trainer, logbook, setup.identity(), active.folder, *every, active.limit),
        in_memory=active.in_memory,
        beside=_has_idle_core(setup),
    )


def _has_idle_core(setup: Setup) -> bool:
    """Whether the training leaves a core to a thread: on a GPU, or with few threads."""
    on_machine = setup.process.on_machine or 1
    return setup.device.type != "cpu" or on_machine * torch.get_num_threads() < cores()


def _train_supervised(checkpointer: Checkpointer, active: ActiveRun) -> Stop | None:
    """Train, and say early on what limits the speed. Returns what stopped it, None at the end."""
    trainer, callback_list = checkpointer.trainer, active.callback_list
    bottleneck = Bottleneck(trainer.recipe, trainer.batches)

    def look(record: Record) -> None:
        sentence = bottleneck.note(record)
        if sentence is not None:
            callback_list.notify(sentence)

    callback_list.add(look)
    numbers = STOPPING if active.how.as_command else (signal.SIGINT,)
    with StopSignals(numbers, exits=active.how.as_command) as signals:
        return follow(checkpointer, callback_list, signals, partial(_snapshot, active, trainer))


def _snapshot(active: ActiveRun, trainer: Trainer) -> Model:
    """A copy of the network as it would be kept if training ended now."""
    setup, notify = active.setup, active.callback_list.notify
    network = trainer.evaluation_network
    if setup.process.world_size == 1:  # one process alone cannot estimate what all share
        network = copy.deepcopy(network)
        trainer.estimate_statistics(network)
    return plain_model(Result(setup, network, describe(setup, network), None, notify))


def _with_trained_recipe(setup: Setup, trainer: Trainer, folder: RunFolder | None) -> Setup:
    """The same with the length that a budget gave the run, so that its recipe repeats it."""
    if trainer.recipe == setup.job.recipe:
        return setup
    setup = replace(setup, job=replace(setup.job, recipe=trainer.recipe))
    if folder is not None:
        folder.write_config(setup.job.to_toml())
    return setup


def _scored(
    active: ActiveRun,
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
    setup, notify = active.setup, active.callback_list.notify
    interrupted = stop is not None and stop.number is not None
    try:
        network = final_network(checkpointer, notify)
    except KeyboardInterrupt:
        if active.how.as_command or interrupted or setup.process.world_size > 1:
            raise
        interrupted, network = True, final_network(checkpointer, notify)
    description, chosen = describe(setup, network), candidates(checkpointer.trainer, stop)
    result = Result(setup, network, description, active.folder, notify, chosen, interrupted)
    result = replace(result, cross_validation=cross_validation)
    return score_and_save(result, may_be_cut_short=not active.how.as_command)


def _write_end(logbook: Logbook, step: int, result: Result) -> None:
    """Log the figures of a run that was not cut short, and hand its files to the loggers."""
    if not result.interrupted:
        logbook.write({"kind": "end", "step": step} | result.description.metrics)
    if result.folder is not None:
        logbook.store((result.folder.model, result.folder.path / REPORT))
    logbook.outcome = "stopped" if result.interrupted else "finished"


def _history_of(folder: RunFolder | None, logbook: Logbook) -> History:
    """What the log says."""
    if folder is not None:
        return History.read(folder.log)
    assert isinstance(logbook.lines, MemoryLines)
    return History(None, tuple(logbook.lines.records))
