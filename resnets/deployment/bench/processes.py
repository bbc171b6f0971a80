"""Contenders for speed, each in a process of its own, of which only one runs at a time.

Engines keep threads that spin for a while after their work is done and take the cores from
whoever is next; therefore who is not at turn is stopped (SIGSTOP), where the system can.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from resnets.deployment.bench.contenders import Contender
from resnets.json_text import to_json

_CAN_STOP = sys.platform != "win32"
_PROGRAM = ("-m", "resnets.deployment.bench.contenders")  # what Python runs in each process
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_FAREWELL = 10.0  # seconds that a process has to end by itself


class _Failure(RuntimeError):  # noqa: N818  (what failed is a contender, not this program)
    """A contender that cannot run, with the reason in its words."""


@dataclass(frozen=True)
class Turn:
    """What a contender did when it was its turn.

    Attributes:
        seconds: of each call, in order.
        peak_memory: most bytes that its process has held so far; None where that is not known.
    """

    seconds: tuple[float, ...]
    peak_memory: int | None


class _Process:
    """A contender, ready to run.

    Attributes:
        contender: who it is.
        cold_start: seconds from the start of its process to its first answer.
    """

    def __init__(self, contender: Contender, program: Sequence[str] = _PROGRAM) -> None:
        """Start it and wait for its first answer; afterwards it is stopped.

        Raises:
            Failure: it cannot run.
        """
        self.contender = contender
        limits = dict.fromkeys(_THREAD_LIMITS, str(contender.threads))
        began = time.perf_counter()
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
            self.ask(asdict(contender))
        except BaseException:
            self.end()
            raise
        self.cold_start = time.perf_counter() - began
        self.pause()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def turn(self, batch_size: int, seconds: float) -> Turn:
        """Run for so many seconds after warming up, then stop.

        Raises:
            Failure: it cannot run.
        """
        self.wake()
        found = self.ask({"batch_size": batch_size, "seconds": seconds})
        self.pause()
        return Turn(tuple(found["seconds"]), found["peak_memory"])

    def ask(self, question: Mapping[str, Any]) -> Any:
        """The answer to a line of JSON."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(to_json(question) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise _Failure(f"its process ended with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise _Failure(answer["error"])
        return answer

    def pause(self) -> None:
        """Take the processor from it."""
        if sys.platform != "win32" and _CAN_STOP:
            self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Give it the processor back."""
        if sys.platform != "win32" and _CAN_STOP:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End its process, whatever it does."""
        self.process.kill()
        self.process.wait(_FAREWELL)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass(frozen=True)
class Record:
    """What was measured of a contender.

    Attributes:
        cold_start: seconds from the start of its process to its first answer.
        turns: by batch size, one a round.
    """

    cold_start: float
    turns: dict[int, list[Turn]]


def take_turns(
    contenders: Sequence[Contender],
    batch_sizes: Sequence[int],
    rounds: int,
    seconds: float,
    program: Sequence[str] = _PROGRAM,
) -> tuple[dict[Contender, Record], dict[Contender, str]]:
    """Let each contender run each batch size once a round, every second round the other way about.

    Args:
        contenders: who runs.
        batch_sizes: images a call, from few to many: what memory is held only grows.
        rounds: at least 1.
        seconds: of each turn.
        program: what Python runs in each process: the contenders of this package, or more.

    Returns:
        What was measured of each contender, and of those that cannot run, why.
    """
    failed: dict[Contender, str] = {}
    found: dict[Contender, Record] = {}
    with ExitStack() as stack:
        running: list[_Process] = []
        for contender in contenders:
            try:
                process = stack.enter_context(_Process(contender, program))
            except _Failure as failure:
                failed[contender] = str(failure)
            else:
                running.append(process)
                found[contender] = Record(process.cold_start, {})
        for number in range(rounds):
            for process in running[:: (1, -1)[number % 2]]:
                contender = process.contender
                try:
                    for size in batch_sizes:
                        turn = process.turn(size, seconds)
                        found[contender].turns.setdefault(size, []).append(turn)
                except _Failure as failure:
                    failed[contender] = f"batch size {size}: {failure}"
                    running = [other for other in running if other is not process]
    return {who: record for who, record in found.items() if who not in failed}, failed
