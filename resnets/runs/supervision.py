"""Supervises a training: saves checkpoints, keeps it within its budget, stops it when asked."""

import copy
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from resnets.data.sources.names import listed
from resnets.data.splits import SourceContent, Splits
from resnets.errors import ContentError, OtherImages
from resnets.escaping import shell_line
from resnets.format import duration, plural
from resnets.model_file import Model
from resnets.runs.budget import Budget
from resnets.runs.callbacks import CallbackList, Plan
from resnets.runs.checkpoint import fitting, random_state, serialised, set_random_state
from resnets.runs.folder import RunFolder
from resnets.runs.logbook import Logbook
from resnets.runs.stop_signals import StopSignals
from resnets.training.parallel import any_process, from_all, from_first
from resnets.training.stragglers import WaitClock, straggler
from resnets.training.trainer import (
    Epoch,
    FeaturePass,
    Interval,
    NotFiniteError,
    Trainer,
    TrainerRecord,
    Validating,
)


@dataclass
class Checkpointer:
    """Saves checkpoints of a run, and keeps it within its budget.

    A state is turned into bytes between two steps. A thread writes them, reads them back and
    removes older states; the training goes on meanwhile, unless it computes with all cores.

    Attributes:
        trainer: whose state it is.
        logbook: of the run.
        identity: what a state must share with the run that goes on from it.
        folder: where states are saved; None in all processes but the first, and where nothing is
            written.
        steps: steps between two states, or None.
        seconds: time between two states, or None.
        budget: keeps the run within a time; None where it may take any.
        in_memory: whether the best network is kept here, because nothing is written.
        best: the best network by validation, if it is.
        beside: whether the training goes on while a state is written.
        saved: when the last state was saved.
        pending: the state that a thread is writing.
    """

    trainer: Trainer
    logbook: Logbook
    identity: dict[str, Any] = field(default_factory=dict)
    folder: RunFolder | None = None
    steps: int | None = None
    seconds: float | None = None
    budget: Budget | None = None
    in_memory: bool = False
    best: nn.Module | None = None
    beside: bool = True
    saved: float = field(default_factory=time.monotonic)
    pending: "Future[None] | None" = None

    def note(self, record: TrainerRecord) -> None:
        """Take a record of the trainer."""
        trainer = self.trainer
        self.logbook.note(record)
        if self.budget is not None:
            self.budget.note(record, trainer.recipe, trainer.batches.steps_per_epoch)
        if self.in_memory and trainer.recipe.patience and isinstance(record, Epoch) and record.best:
            self.best = copy.deepcopy(trainer.evaluation_network)

    def late(self, record: TrainerRecord) -> bool:
        """Whether the length of the run is to be planned anew."""
        return self.budget is not None and (isinstance(record, Epoch) or self.budget.late)

    def replan(self) -> bool:
        """Change the length of the run to what its time allows. All processes call it together.

        Returns:
            Whether it has changed.
        """
        if self.budget is None or self.trainer.finished:
            return False
        trainer, step = self.trainer, self.trainer.step
        per_epoch = trainer.batches.steps_per_epoch
        total = from_first(self.budget.total(trainer.recipe, per_epoch, step, trainer.epoch))
        if total == trainer.steps:
            return False
        trainer.replan(total)
        seconds = self.logbook.elapsed
        self.logbook.lines.write({"kind": "plan", "step": step, "steps": total, "seconds": seconds})
        return True

    def due(self) -> bool:
        """Whether it is time, as the first process sees it.

        Raises:
            OSError: the last state could not be written.
        """
        if self.folder is None:
            return False
        if self.pending is not None and self.pending.done():
            self.settle()
        if self.steps is not None and self.trainer.step % self.steps == 0:
            return True
        return self.seconds is not None and time.monotonic() - self.saved >= self.seconds

    def save(self) -> None:
        """Begin to save the state. All processes call it together; the first writes.

        Raises:
            OSError: the state before it could not be written.
        """
        self.settle()
        randoms = from_all(random_state(self.trainer.device))
        state = self.trainer.state()
        if self.folder is not None:
            self.pending = self.begin(self.folder, {"trainer": state, "random": randoms})
        if not self.beside:
            self.settle()
        self.saved = time.monotonic()

    def begin(self, folder: RunFolder, state: dict[str, Any]) -> "Future[None]":
        """Have a thread write a state, with how far the log is."""
        logbook = self.logbook
        log: dict[str, Any] = {"log": logbook.lines.size(), "seconds": logbook.elapsed}
        log |= {} if self.budget is None else {"budget": self.budget.state()}
        content = serialised(state | log | self.identity)
        step, best = self.trainer.step, self.trainer.best_step or None
        pool = ThreadPoolExecutor(1, "checkpoint")
        written = pool.submit(_write, folder, content, step, best)
        pool.shutdown(wait=False)  # the thread ends with its work
        return written

    def settle(self) -> None:
        """Wait until the state that was saved last is on the disk, and read back.

        Raises:
            OSError: it cannot be written. What was saved before is untouched.
        """
        pending = self.pending
        if pending is not None:
            wait([pending])  # Ctrl-C may interrupt it; the thread is then still known
            self.pending = None
            pending.result()


def _write(folder: RunFolder, content: memoryview, step: int, best: int | None) -> None:
    """Write a state, as a thread does it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        folder.checkpoints.write(content, step, best)
    except OSError as error:
        raise OSError(
            f"the state of step {step} could not be saved in {folder.checkpoints.folder} "
            f"({error.strerror}). What was saved before is whole: make room, then go on by "
            f"{shell_line('resnets', 'train', '--resume', folder.path)}"
        ) from error


@dataclass(frozen=True)
class Stop:
    """Why a training ended before its last step.

    Attributes:
        reason: the name of a signal, or what a callback said.
        number: of the signal; None if it was a callback.
        failed: whether a callback raised something else than StopTraining.
    """

    reason: str
    number: signal.Signals | None = None
    failed: bool = False


def follow(
    checkpointer: Checkpointer,
    callback_list: CallbackList,
    signals: StopSignals,
    model: Callable[[], Model],
) -> Stop | None:
    """Train to the end, or until a signal or a callback stops it; the state is saved either way.

    KeyboardInterrupt counts as SIGINT, whoever raises it, unless signals end the process. Within a
    step no state is saved, as it could not be continued bit for bit: the one before it is kept.
    Where images cannot be read, a process alone saves what it has; of several, others are in the
    middle of a step.

    Args:
        checkpointer: has the trainer, and saves its state.
        callback_list: gets every record, and may ask to stop.
        signals: tells whether to stop.
        model: makes a copy of the network for the callback_list; see `Plan`.

    Returns:
        What ended it before the last step; None at the end.

    Raises:
        BaseException: what a callback raised, once the state is saved.
        KeyboardInterrupt: before the first step is done, or with several processes.
        OSError: a state cannot be written.
    """
    try:
        return _follow(checkpointer, callback_list, signals, model)
    except KeyboardInterrupt:  # not by a callback: in the network, the loss or a checkpoint
        trainer = checkpointer.trainer
        alone = trainer.batches.process.world_size == 1  # else the others wait for this one
        if signals.exits or not alone or not trainer.step:
            raise
        return Stop(signal.SIGINT.name, signal.SIGINT)
    finally:
        checkpointer.settle()


def _follow(
    checkpointer: Checkpointer,
    callback_list: CallbackList,
    signals: StopSignals,
    model: Callable[[], Model],
) -> Stop | None:
    """`follow`, but for an interruption within a step."""
    trainer = checkpointer.trainer
    alone, failure = trainer.batches.process.world_size == 1, None
    if checkpointer.budget is not None:
        checkpointer.budget.start()
    callback_list.tell(_plan_of(trainer, model, checkpointer.budget))
    for record in _records(checkpointer):
        try:
            callback_list.tell(record)
        except BaseException as error:  # the state is saved first
            if isinstance(error, KeyboardInterrupt) and not signals.exits:
                signals.received = signals.received or signal.SIGINT
            else:
                failure = failure or error
        checkpointer.note(record)
        if isinstance(record, Interval):
            continue  # its step follows
        stop = bool(signals.received or callback_list.stop_request or failure)
        measured = isinstance(record, Epoch) and trainer.validates(record.epoch - 1)
        due = measured or checkpointer.due()
        # processes may have different numbers of batches
        if isinstance(record, Validating | FeaturePass):
            stop, due, late = stop and alone, False, False
        else:
            with nullcontext() if trainer.waits is None else trainer.waits.waiting():
                stop, due, late = any_process(stop, due, checkpointer.late(record))
        if isinstance(record, Epoch) and trainer.waits is not None:
            _tell_straggler(checkpointer, trainer.waits, callback_list)
        if late and checkpointer.replan():
            callback_list.tell(_plan_of(trainer, model, checkpointer.budget))
        if stop or due:
            checkpointer.save()
        if checkpointer.budget is not None and measured:
            checkpointer.budget.saved()
        if stop:
            checkpointer.settle()
            return _stop_reason(signals, callback_list, failure)
    return None


def _records(checkpointer: Checkpointer) -> Iterator[TrainerRecord]:
    """What the trainer does. Where it cannot read images, what it has is saved, if it is alone."""
    trainer = checkpointer.trainer
    try:
        yield from trainer.run()
    except (ContentError, OSError) as error:
        alone, sound = trainer.batches.process.world_size == 1, not trainer.is_in_step
        if alone and sound and trainer.step and not isinstance(error, NotFiniteError):
            with suppress(OSError):  # the reason for the end is the other one
                checkpointer.save()
        raise


def _tell_straggler(
    checkpointer: Checkpointer, waits: WaitClock, callback_list: CallbackList
) -> None:
    """Log which process was the slowest in an epoch; tell it where the others waited long for it.

    All processes call it together.
    """
    slowest = straggler(from_all(waits.so_far()))
    waits.restart()
    trainer = checkpointer.trainer
    begin = {"kind": "straggler", "epoch": trainer.epoch, "step": trainer.step}
    checkpointer.logbook.lines.write(begin | asdict(slowest))
    if slowest.matters:
        callback_list.notify(
            f"Process {slowest.rank} on {slowest.machine} is the slowest: in epoch "
            f"{trainer.epoch} the others waited {duration(slowest.others_waited)} of "
            f"{duration(slowest.elapsed)} for it"
        )


def _plan_of(trainer: Trainer, model: Callable[[], Model], limit: Budget | None) -> Plan:
    """How long the run is, as far as is known by now."""
    seconds = None if limit is None else limit.limit
    return Plan(trainer.step, trainer.batches.steps_per_epoch, trainer.recipe, model, seconds)


def _stop_reason(
    signals: StopSignals, callback_list: CallbackList, failure: BaseException | None
) -> Stop:
    """What ended a training, as the first process sees it; raises what one of its callbacks did."""
    received = signal.Signals(signals.received or signal.SIGTERM)
    local_stop = Stop(received.name, received)
    if failure is not None:
        local_stop = Stop(type(failure).__name__, failed=True)
    elif callback_list.stop_request is not None and signals.received is None:
        local_stop = Stop(str(callback_list.stop_request) or "a callback")
    stop = from_first(local_stop)
    if failure is not None:
        raise failure
    if stop.failed:
        raise ChildProcessError(f"the first process failed ({stop.reason})")
    return stop


def refuse_other_images(
    state: Mapping[str, Any], skip_unreadable: bool, content: SourceContent
) -> None:
    """Refuse images that cannot be those of a saved state, before any of them is read.

    Args:
        state: what a `Checkpointer` saved; empty for a new run.
        skip_unreadable: whether images that cannot be read are left out.
        content: the images.

    Raises:
        OtherImages: they have other classes, or there are fewer or more of them.
    """
    names, total = list(content.class_names), sum(map(len, content.images.values()))
    if names != state.get("class_names", names):
        raise OtherImages(
            "these are not the images that the run began with: they have the classes "
            f"{listed(names)}, and it began with {listed(state['class_names'])}"
        )
    with fitting("the run"):
        readable = int(state.get("images", total))  # earlier versions did not note it
    if total < readable or (total > readable and not skip_unreadable):
        raise OtherImages(
            "these are not the images that the run began with: there are "
            f"{plural(total, 'image')}, and it began with {readable:,}; give the same data, or "
            "start a new run"
        )


def restore(trainer: Trainer, state: dict[str, Any], splits: Splits) -> None:
    """Go on from a saved state.

    Args:
        trainer: freshly made; gets the state.
        state: what a `Checkpointer` saved.
        splits: the images.

    Raises:
        OtherImages: if the images are not those that the state was reached with.
    """
    if state["fingerprint"] != splits.fingerprint:
        raise OtherImages(
            "these are not the images that the run began with: they have changed, or are others "
            f"(fingerprint {splits.fingerprint[:12]}, it was {state['fingerprint'][:12]}); give "
            "the same data, or start a new run"
        )
    if state.get("stored", splits.stored) != splits.stored:  # earlier versions did not note it
        raise OtherImages(
            "the images are those that the run began with, but at another size or quality: their "
            "shards were written anew; write them with the same --size and --quality as before, "
            "or start a new run"
        )
    with fitting("the run"):
        trainer.load_state(state["trainer"])
        rank = trainer.batches.process.rank
        if rank < len(state["random"]):
            set_random_state(state["random"][rank], trainer.device)
