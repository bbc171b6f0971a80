"""Commands and scripts called in this process: importing torch anew takes longer than most do.

A process of its own is still needed where signals, memory, the output of C libraries, several
processes or what is imported is the point.
"""

import contextlib
import io
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from resnets.cli import main


def call(*words: object, stdin: bytes = b"", cwd: Path | None = None) -> CompletedProcess[str]:
    """The exit code of ``resnets WORDS``, and what it printed to each of the two streams."""
    return _captured(lambda: main([str(word) for word in words]), stdin, cwd)


def call_script(
    script: Path, *words: object, stdin: bytes = b"", cwd: Path | None = None
) -> CompletedProcess[str]:
    """The same for ``python SCRIPT WORDS``; what it does not catch is raised."""

    def run() -> int:
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
                return 1
            return end.code or 0
        return 0

    argv, path = sys.argv, sys.path
    sys.argv = [str(script), *map(str, words)]
    sys.path = [str(script.parent), *path]
    try:
        return _captured(run, stdin, cwd)
    finally:
        sys.argv, sys.path = argv, path


def _captured(run: Callable[[], int], stdin: bytes, cwd: Path | None) -> CompletedProcess[str]:
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n") for _ in range(2)]
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(outputs[0]),
            contextlib.redirect_stderr(outputs[1]),
        ):
            code = run()
    finally:
        sys.stdin = before
    for output in outputs:
        output.flush()
    printed = [output.buffer.getvalue().decode() for output in outputs]  # type: ignore[attr-defined]
    return CompletedProcess((), code, *printed)
