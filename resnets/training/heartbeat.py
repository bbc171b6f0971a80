"""Signs of life by which processes that wait for each other can name the one that is missing."""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from resnets.files.reading import read_text
from resnets.format import duration, plural

_EVERY = 2.0  # seconds between two signs
_LATE = 2.5  # of these without a new sign: there is none
_LOST = 30  # of these without a new sign, where there is no time limit: the process is lost
_POLLS = 10  # in the time between two signs
_NOISE = 0.01  # seconds of a processor that say nothing
_NOTICED = "failed exchange noticed"  # the word of a process that is then not the lost one
_THREADS = Path("/proc/self/task")


@dataclass(frozen=True)
class _Sign:
    """What a process tells of itself.

    Attributes:
        number: of signs that it has given.
        exchanges: how many exchanges with the others it has begun.
        worked: seconds for which it has computed, or waited for others.
        machine: where it runs.
    """

    number: int
    exchanges: int
    worked: float
    machine: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `__str__` made."""
        number, exchanges, worked, machine = text.split(" ", 3)
        return cls(int(number), int(exchanges), float(worked), machine)

    def __str__(self) -> str:
        return f"{self.number} {self.exchanges} {self.worked:.4f} {self.machine}"


class _Watch:
    """Notices which of the processes that are waited for has gone, or hangs.

    Args:
        every: seconds between two signs.
        patience: seconds for which a process may do nothing.
    """

    def __init__(self, every: float, patience: float) -> None:
        self.every, self.patience = every, patience
        self.lives: dict[int, tuple[float, int]] = {}  # when a new sign was seen last, its number
        self.works: dict[int, tuple[float, float]] = {}  # and when it had done something more

    def look(self, signs: Mapping[int, _Sign]) -> None:
        """Take the last signs of the processes that are waited for, by rank.

        Raises:
            ChildProcessError: one gives no sign of life any more, or has done nothing for too long.
        """
        now = time.monotonic()
        for rank, sign in signs.items():
            if self.lives.get(rank, (now, 0))[1] != sign.number:
                self.lives[rank] = (now, sign.number)
            _, worked = self.works.setdefault(rank, (now, sign.worked))
            if abs(sign.worked - worked) > _NOISE:  # less where threads have ended
                self.works[rank] = (now, sign.worked)
        silent = {rank: now - self.lives[rank][0] for rank in signs}
        idle = {rank for rank in signs if now - self.works[rank][0] > self.patience}
        lost = [
            rank
            for rank, seconds in silent.items()
            if seconds >= _LOST * self.every or (rank in idle and seconds > _LATE * self.every)
        ]
        if lost:
            raise ChildProcessError(f"{_names({r: signs[r] for r in lost})} gives no sign of life")
        if idle:
            raise ChildProcessError(
                f"{_names({rank: signs[rank] for rank in idle})} lives, but has done nothing for "
                f"{duration(self.patience)}: the disk or server that it reads from may not answer "
                "(--wait-for-processes says how long to wait)"
            )


class Heartbeat:
    """Gives signs of life while it lasts, in a thread, and reads those of the others.

    Args:
        store: of all processes of this attempt.
        rank: of this process.
        size: how many there are.
        every: seconds between two signs.
        patience: seconds for which another process may do nothing while this one waits for it.

    Attributes:
        exchanges: how many exchanges this process has begun; who waits counts them up.
        waited: seconds for which this process has waited for others, see `wait_for`.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        every: float = _EVERY,
        patience: float = math.inf,
    ) -> None:
        self.store, self.rank, self.size, self.every = store, rank, size, every
        self.patience = patience
        self.exchanges = self.signs = 0
        self.waited = 0.0
        self.machine = socket.gethostname()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="signs of life", daemon=True)

    def __enter__(self) -> Self:
        self.give()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End.

        Raises:
            ChildProcessError: an exchange with another process failed; it names that one.
        """
        try:
            if error is not None and is_failed_exchange(error):
                raise ChildProcessError(self.missing()) from error
        finally:
            self.ended.set()
            self.thread.join(self.every)

    def give(self) -> None:
        """Give a sign."""
        self.signs += 1
        worked = _worked(self.thread) + self.waited
        sign = _Sign(self.signs, self.exchanges, worked, self.machine)
        self.store.set(_key(self.rank), str(sign))

    def tell(self, word: str) -> None:
        """Tell the others a word, by which they learn how far this process has come."""
        self.store.set(_key_of_word(word, self.rank), "")

    def wait_for(self, word: str, ranks: Sequence[int], say: Callable[[str, str], None]) -> None:
        """Wait until other processes have told a word, for as long as they live and do something.

        A process that neither computes nor waits for others hangs, as where a disk or a server
        does not answer; its thread gives signs of life all the same.

        Args:
            word: see `tell`.
            ranks: of the processes that are waited for.
            say: takes who is missing, such as "process 0 on node1", and for how long, such as
                "5 s"; again and again.

        Raises:
            ChildProcessError: one of them gives no sign of life any more, or has done nothing for
                as long as `patience` says; it names that one.
        """
        began = look_at = time.monotonic()
        pause, watch = _LATE * self.every, _Watch(self.every, self.patience)
        while not self.store.check([_key_of_word(word, rank) for rank in ranks]):
            time.sleep(self.every / _POLLS)
            self.waited += self.every / _POLLS
            if time.monotonic() < look_at + pause:
                continue
            look_at += pause
            signs = self._without(word, ranks)
            watch.look(signs)
            if signs:
                say(_names(signs), duration(time.monotonic() - began))
            pause = min(2 * pause, _LOST * self.every, max(self.patience / 4, self.every))

    def _without(self, word: str, ranks: Sequence[int]) -> dict[int, _Sign]:
        """The last sign of each process that has not told a word yet, by rank."""
        keys = {rank: _key_of_word(word, rank) for rank in ranks}
        return self._read([rank for rank, key in keys.items() if not self.store.check([key])])

    def _beat(self) -> None:
        """Give signs until the end, or until there is no store any more."""
        while not self.ended.wait(self.every):
            try:
                self.give()
            except RuntimeError:
                return

    def missing(self) -> str:
        """Which process the others wait for, as far as their signs tell."""
        try:
            self.tell(_NOTICED)
            before = self._read(range(self.size))
            time.sleep(_LATE * self.every)
            after = self._read(range(self.size))
            noticed = [r for r in after if self.store.check([_key_of_word(_NOTICED, r)])]
        except RuntimeError:
            in_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            holder = "the torchrun of the first machine" if in_torchrun else "process 0"
            return f"{holder}, which holds what the processes share, has ended or is lost"
        others = [rank for rank in after if rank != self.rank and rank not in noticed]
        gone = [rank for rank in others if after[rank] == before.get(rank)]
        most = max([self.exchanges, *(sign.exchanges for sign in after.values())])
        late = [rank for rank in others if after[rank].exchanges < most and rank not in gone]
        names = {rank: _names({rank: sign}) for rank, sign in after.items()}
        lines = [f"{names[rank]} gives no sign of life" for rank in gone]
        lines += [f"{names[rank]} lives, and the others waited for it in vain" for rank in late]
        absent = set(range(self.size)) - after.keys()
        lines += [f"process {rank} never came" for rank in sorted(absent)]
        text = "; ".join(lines) or "all processes live, and have come to the same exchange"
        return f"processes do not answer each other: {text}"

    def _read(self, ranks: Iterable[int]) -> dict[int, _Sign]:
        """The last sign of processes, by rank. The number of this one's own does not matter."""
        there = [rank for rank in ranks if self.store.check([_key(rank)])]
        return {rank: _Sign.parse(self.store.get(_key(rank)).decode()) for rank in there}


def _names(signs: Mapping[int, _Sign]) -> str:
    """Who gave signs, at least one: "process 0 on node1 and 2 others"."""
    rank, *others = sorted(signs)
    more = f" and {plural(len(others), 'other')}" if others else ""
    return f"process {rank} on {signs[rank].machine}{more}"


def _key_of_word(word: str, rank: int) -> str:
    return f"resnets/{word} by {rank}"


def _worked(besides: threading.Thread) -> float:
    """Seconds for which the threads of Python that live have computed, without one of them.

    Threads of other libraries wake up again and again for nothing, those of gloo a hundred times a
    second. Where the system does not tell the time of a thread, it is that of the clock: who hangs
    is then not told from who works.
    """
    others = [each for each in threading.enumerate() if each is not besides]
    numbers = {each.native_id for each in others if each is not threading.main_thread()}
    numbers.add(os.getpid())  # the main thread, whose number Python may not know after a fork
    try:
        return sum(_seconds_of(number) for number in numbers if number is not None)
    except FileNotFoundError:
        return time.monotonic()


def _seconds_of(thread: int) -> float:
    """Seconds for which a thread has computed; 0 where it has ended."""
    try:
        return int(read_text(_THREADS / str(thread) / "schedstat").split()[0]) / 1e9
    except OSError:
        if not (_THREADS / str(threading.get_native_id()) / "schedstat").exists():
            raise FileNotFoundError from None
        return 0.0


def _key(rank: int) -> str:
    return f"resnets/life of {rank}"


def is_failed_exchange(error: BaseException) -> bool:
    """Whether an exchange between processes failed; gloo raises a plain RuntimeError."""
    of_gloo = isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    return isinstance(error, dist.DistError) or of_gloo
