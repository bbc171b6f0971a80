"""Candidates, each in a process of its own, of which only one runs at a time.

The threads of an engine spin for a while after their work is done, and take cores from the next
candidate. Therefore all other processes are stopped (SIGSTOP), where the system can do that.
"""

import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from resnets.deployment.bench.runtimes import PEAK, Candidate, turn_seconds
from resnets.format import duration, plural
from resnets.json_text import to_json

Note = Callable[[str], object]  # takes what is done next, for whoever waits

_CAN_STOP = sys.platform != "win32"
_PROGRAM = ("-m", "resnets.deployment.bench.runtimes")  # what Python runs in each process
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_EXIT_TIMEOUT = 10.0  # seconds that a killed process has to end


class _Failure(RuntimeError):  # noqa: N818  (what failed is a candidate, not this program)
    """A candidate cannot run; the message is its error."""


class _Late(_Failure):
    """A candidate was not ready in time."""


@dataclass(frozen=True)
class Turn:
    """What was measured of a candidate in one of its turns.

    Attributes:
        seconds: of each call, in order.
        peak_memory: of its process so far, in bytes; None where that is not known.
    """

    seconds: tuple[float, ...]
    peak_memory: int | None


class _Process:
    """The process of a candidate.

    Attributes:
        candidate: what runs in it.
        cold_start: seconds from the start of its process to its first prediction.
        call: seconds of the second one, of one image.
    """

    def __init__(
        self, candidate: Candidate, program: Sequence[str] = _PROGRAM, limit: float = math.inf
    ) -> None:
        """Start it and wait for its first predictions; afterwards it is stopped.

        Args:
            candidate: what runs in it.
            program: arguments of Python.
            limit: seconds that it may take.

        Raises:
            _Late: it took longer.
            _Failure: it cannot run.
        """
        self.candidate = candidate
        limits = dict.fromkeys(_THREAD_LIMITS, str(candidate.threads))
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ) | limits,
            encoding="utf-8",
            # of its own group: if this process dies, the kernel wakes and ends a stopped one
            process_group=0 if _CAN_STOP else None,
        )
        try:
            with self._ended_after(limit):
                self.request(asdict(candidate))
                self.cold_start = time.perf_counter() - start
                self.call = float(self.response()["call"])
        except BaseException:
            self.end()
            raise
        self.pause()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def turn(self, batch_size: int, seconds: float) -> Turn:
        """Run for `seconds` after warming up, then stop.

        Raises:
            _Failure: it cannot run.
        """
        self.resume()
        response = self.request({"batch_size": batch_size, "seconds": seconds})
        self.pause()
        return Turn(tuple(response["seconds"]), response["peak_memory"])

    def request(self, message: Mapping[str, Any]) -> Any:
        """The response to a message, both one line of JSON."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the response tells that it has ended
            self.process.stdin.write(to_json(message) + "\n")
            self.process.stdin.flush()
        return self.response()

    def response(self) -> Any:
        """The next response."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise _Failure(f"its process ended with exit code {self.process.wait()}")
        response = json.loads(line)
        if "error" in response:
            raise _Failure(response["error"])
        return response

    @contextlib.contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """Kill the process where the context takes longer, which then raises `_Late`."""
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self.process.kill()

        timer = threading.Timer(min(max(seconds, 0), threading.TIMEOUT_MAX), end)
        timer.start()
        try:
            yield
        except _Failure:
            if not is_late.is_set():
                raise
        finally:
            timer.cancel()
            timer.join()  # it may be at it
        if is_late.is_set():
            raise _Late

    def pause(self) -> None:
        """Stop the process, so that others have the cores."""
        if sys.platform != "win32" and _CAN_STOP:
            self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process continue."""
        if sys.platform != "win32" and _CAN_STOP:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait(_EXIT_TIMEOUT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # of what it did not read any more
                    pipe.close()


@dataclass(frozen=True)
class Record:
    """What was measured of a candidate.

    Attributes:
        cold_start: seconds from the start of its process to its first prediction.
        turns: by batch size, one per round.
    """

    cold_start: float
    turns: dict[int, list[Turn]]


class _Rounds:
    """The candidates that run, in turns, as long as the time allows.

    Attributes:
        records: what was measured of each.
        failed: why those that failed did.
    """

    def __init__(self, seconds: float, deadline: float, note: Note) -> None:
        self.seconds, self.deadline, self.note = seconds, deadline, note
        self.running: list[_Process] = []
        self.records: dict[Candidate, Record] = {}
        self.failed: dict[Candidate, str] = {}
        self.starts: dict[Candidate, float] = {}  # seconds, by candidate with no threads

    def start(self, candidate: Candidate, program: Sequence[str], stack: ExitStack) -> None:
        """Start the process of a candidate, which ends with the stack, if there is time for it.

        The first one, and the one that measures the machine, are started in any case.
        """
        in_any_case = candidate.runtime == PEAK or all(one.runtime == PEAK for one in self.starts)
        left = math.inf if in_any_case else self.deadline - time.monotonic() - self._first_round()
        usual = self.starts.get(replace(candidate, threads=0), 0.0)  # with other threads
        if candidate.unavailable or left <= usual:
            self.failed[candidate] = candidate.unavailable or _no_time(left, usual)
            return
        self.note(f"starting {_in_words(candidate)}")
        try:
            process = stack.enter_context(_Process(candidate, program, left))
        except _Late:
            self.failed[candidate] = _no_time(left, left)
        except _Failure as failure:
            self.failed[candidate] = str(failure)
        else:
            self.running.append(process)
            self.records[candidate] = Record(process.cold_start, {})
            self.starts[replace(candidate, threads=0)] = process.cold_start

    def _first_round(self) -> float:
        """Seconds that the first turns of the running candidates will take."""
        return sum(turn_seconds(process.call, self.seconds) for process in self.running)

    def first(self, batch_sizes: Sequence[int]) -> list[int]:
        """Make the first round; the batch sizes that it had time for, at least the smallest."""
        sizes: list[int] = []
        for size in batch_sizes:
            if sizes and time.monotonic() + self._expected(sizes[-1], size) > self.deadline:
                break
            self._measure(size, 0)
            sizes.append(size)
        return sizes

    def more(self, sizes: Sequence[int], rounds: int, last: float) -> None:
        """Make the other rounds, as many as there is time for.

        Args:
            sizes: the batch sizes.
            rounds: how many there are with the first one.
            last: seconds that the first one took.
        """
        for number in range(1, rounds):
            start = time.monotonic()
            if start + last > self.deadline:
                break
            for size in sizes:
                self._measure(size, number)
            last = time.monotonic() - start

    def _measure(self, size: int, number: int) -> None:
        """Measure every candidate once; every second round in the reverse order."""
        for process in self.running[:: (1, -1)[number % 2]]:
            candidate = process.candidate
            self.note(f"round {number + 1}, batch size {size}: {_in_words(candidate)}")
            try:
                turn = process.turn(size, self.seconds)
            except _Failure as failure:
                self.failed[candidate] = f"batch size {size}: {failure}"
                self.running.remove(process)
            else:
                self.records[candidate].turns.setdefault(size, []).append(turn)

    def _expected(self, size: int, larger: int) -> float:
        """Seconds that a larger batch size will take, if its calls take as much longer."""
        expected = 0.0
        for process in self.running:
            call = statistics.median(self.records[process.candidate].turns[size][-1].seconds)
            is_peak = process.candidate.runtime == PEAK  # which takes no images
            expected += turn_seconds(call * (1 if is_peak else larger / size), self.seconds)
        return expected


def _no_time(left: float, needed: float) -> str:
    """Why a candidate was not started, or not to its end. Both in seconds."""
    if left <= 0:
        return "no time was left to start it (--limit)"
    with_others = f"; with other threads it took {duration(needed)}" if needed > left else ""
    return f"its start takes longer than the {duration(left)} that were left (--limit){with_others}"


def _in_words(candidate: Candidate) -> str:
    """A candidate for progress: its name and threads."""
    return f"{candidate.name}, {plural(candidate.threads, 'thread')}"


def measure_in_turns(
    candidates: Sequence[Candidate],
    batch_sizes: Sequence[int],
    rounds: int,
    seconds: float,
    program: Sequence[str] = _PROGRAM,
    *,
    limit: float = math.inf,
    note: Note = lambda _: None,
) -> tuple[dict[Candidate, Record], dict[Candidate, str]]:
    """Measure each candidate at each batch size once per round, in alternating order.

    Args:
        candidates: what is measured.
        batch_sizes: images per call, in ascending order, as peak memory only grows.
        rounds: at least 1.
        seconds: per turn.
        program: arguments of Python in each process: the runtimes of this package, or more.
        limit: seconds after which no more is begun: candidates that would not have started by
            then are left out, then batch sizes that would not be done in the first round, the
            largest first, and then rounds. One round of the smallest is made in any case with what
            has started, the first candidate at least.
        note: takes what is done next, a few words.

    Returns:
        The records of the candidates, and the reasons of those that failed.
    """
    measurement = _Rounds(seconds, time.monotonic() + limit, note)
    with ExitStack() as stack:
        for candidate in candidates:
            measurement.start(candidate, program, stack)
        start = time.monotonic()
        sizes = measurement.first(batch_sizes)
        measurement.more(sizes, rounds, time.monotonic() - start)
    records, failed = measurement.records, measurement.failed
    for candidate in failed:
        records.pop(candidate, None)
    return records, failed
