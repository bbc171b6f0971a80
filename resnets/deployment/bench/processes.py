"""Candidates, each in a process of its own, of which only one runs at a time.

The threads of an engine spin for a while after their work is done, and take cores from the next
candidate. Therefore all other processes are stopped (SIGSTOP), where the system can do that.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Self

from resnets.deployment.bench.runtimes import Candidate
from resnets.json_text import to_json

_CAN_STOP = sys.platform != "win32"
_PROGRAM = ("-m", "resnets.deployment.bench.runtimes")  # what Python runs in each process
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_EXIT_TIMEOUT = 10.0  # seconds that a killed process has to end


class _Failure(RuntimeError):  # noqa: N818  (what failed is a candidate, not this program)
    """A candidate cannot run; the message is its error."""


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
    """

    def __init__(self, candidate: Candidate, program: Sequence[str] = _PROGRAM) -> None:
        """Start it and wait for its first prediction; afterwards it is stopped.

        Raises:
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
            self.request(asdict(candidate))
        except BaseException:
            self.end()
            raise
        self.cold_start = time.perf_counter() - start
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
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(to_json(message) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise _Failure(f"its process ended with exit code {self.process.wait()}")
        response = json.loads(line)
        if "error" in response:
            raise _Failure(response["error"])
        return response

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


def measure_in_turns(
    candidates: Sequence[Candidate],
    batch_sizes: Sequence[int],
    rounds: int,
    seconds: float,
    program: Sequence[str] = _PROGRAM,
) -> tuple[dict[Candidate, Record], dict[Candidate, str]]:
    """Measure each candidate at each batch size once per round, in alternating order.

    Args:
        candidates: what is measured.
        batch_sizes: images per call, in ascending order, as peak memory only grows.
        rounds: at least 1.
        seconds: per turn.
        program: arguments of Python in each process: the runtimes of this package, or more.

    Returns:
        The records of the candidates, and the reasons of those that failed.
    """
    failed: dict[Candidate, str] = {}
    records: dict[Candidate, Record] = {}
    with ExitStack() as stack:
        running: list[_Process] = []
        for candidate in candidates:
            try:
                process = stack.enter_context(_Process(candidate, program))
            except _Failure as failure:
                failed[candidate] = str(failure)
            else:
                running.append(process)
                records[candidate] = Record(process.cold_start, {})
        for round_number in range(rounds):
            for process in running[:: (1, -1)[round_number % 2]]:
                candidate = process.candidate
                try:
                    for size in batch_sizes:
                        turn = process.turn(size, seconds)
                        records[candidate].turns.setdefault(size, []).append(turn)
                except _Failure as failure:
                    failed[candidate] = f"batch size {size}: {failure}"
                    running = [other for other in running if other is not process]
    for candidate in failed:
        records.pop(candidate, None)
    return records, failed
