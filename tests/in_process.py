"""The command line called in this process: importing torch anew takes longer than most commands."""

import contextlib
import io
import sys
from pathlib import Path
from subprocess import CompletedProcess

from resnets.cli import main


def call(*words: object, stdin: bytes = b"", cwd: Path | None = None) -> CompletedProcess[str]:
    """Run ``resnets WORDS``, as a process of its own would in UTF-8.

    A process is still needed where exit by signal, memory, output of C libraries, several processes
    or what is imported is the point.

    Returns:
        The exit code, and what was printed to each of the two streams.
    """
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2)]
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(outputs[0]),
            contextlib.redirect_stderr(outputs[1]),
        ):
            code = main([str(word) for word in words])
    finally:
        sys.stdin = before
    for output in outputs:
        output.flush()
    printed = [output.buffer.getvalue().decode() for output in outputs]  # type: ignore[attr-defined]
    return CompletedProcess(words, code, *printed)
