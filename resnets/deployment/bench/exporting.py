"""Exports of model files for the engines that need one, each in a process that can be ended.

`python -m resnets.deployment.bench.exporting` is such a process: its arguments are the model file,
the format and the file to write. Where that fails, the last line of its output is the error, as a
pickle in base64.
"""

import base64
import math
import pickle
import subprocess
import sys
import time
import traceback
from pathlib import Path

from resnets import model_file
from resnets.format import duration

_PROGRAM = ("-m", "resnets.deployment.bench.exporting")  # what Python runs
_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
_FAILED = 3  # exit code where the error is told; Python itself ends with 1 and 2
_CHECKED_ON = 4  # images on which an export for this benchmark is checked


class Exports:
    """The exported files of a benchmark, as far as there is time for them.

    Args:
        folder: where they are written.
        limit: seconds for all of them together.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.deadline = folder, time.monotonic() + limit
        self._files: dict[tuple[Path, str], Path] = {}
        self._unavailable: dict[Path, str] = {}

    def exported(self, model: Path, kind: str, in_any_case: bool = False) -> Path:
        """The file of a format that is exported from a model file, once; see `why_missing`.

        Args:
            model: the model file.
            kind: the format.
            in_any_case: whether it is exported however long that takes.

        Raises:
            Exception: of `export`.
        """
        if (model, kind) in self._files:
            return self._files[model, kind]
        folder = self.folder / str(len(self._files))
        folder.mkdir()
        target = self._files[model, kind] = folder / f"model{_ENDINGS[kind]}"
        left = math.inf if in_any_case else self.deadline - time.monotonic()
        if left <= 0:
            self._unavailable[target] = f"no time was left for its export to {kind} (--limit)"
        elif not _export(model, kind, target, left):
            self._unavailable[target] = (
                f"its export to {kind} was not done after {duration(left)}, all the time that was "
                "left for it (--limit)"
            )
        return target

    def why_missing(self, file: Path) -> str:
        """Why a file was not exported; empty for any other file."""
        return self._unavailable.get(file, "")


def _export(model: Path, kind: str, target: Path, seconds: float) -> bool:
    """Export in a process of its own; whether it was done in time.

    Raises:
        Exception: of `export`, with the traceback of the process as a note.
        RuntimeError: the process was killed.
    """
    command = [sys.executable, *_PROGRAM, str(model), kind, str(target)]
    limit = seconds if math.isfinite(seconds) else None
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode == 0:
        return True
    if done.returncode == _FAILED:
        pickled = base64.b64decode(done.stdout.splitlines()[-1])
        raise pickle.loads(pickled)  # noqa: S301  (of our own process)
    error = RuntimeError(f"the process that exports to {kind} ended with code {done.returncode}")
    error.add_note(done.stderr.decode(errors="replace"))
    raise error


def _main() -> int:
    """Export as the arguments say; the exit code."""
    from resnets.deployment.export.files import export, images_for

    path, kind, target = sys.argv[1:]
    try:
        model = model_file.load(Path(path))
        images = images_for(model, None, _CHECKED_ON)
        export(model, target, kind, *images)  # type: ignore[arg-type]
    except Exception as error:
        line = base64.b64encode(_pickled(error)).decode()
        sys.stdout.write(f"\n{line}\n")  # libraries print there, too
        return _FAILED
    return 0


def _pickled(error: Exception) -> bytes:
    """An error with its traceback; one of another type where its own cannot be unpickled."""
    error.add_note(traceback.format_exc())
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301  (of our own)
    except Exception:
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.add_note(traceback.format_exc())
        return pickle.dumps(other)
    return pickled


if __name__ == "__main__":
    sys.exit(_main())
