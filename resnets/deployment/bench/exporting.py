"""Exports of model files for the engines that need one, each in a process that can be ended.

`python -m resnets.deployment.bench.exporting` is such a process: its arguments are the model file,
the format and the file to write. Where that fails, its output is a line of JSON that says why.
"""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

from resnets import model_file
from resnets.errors import ContentError, MissingExtra, UsageError
from resnets.format import duration
from resnets.json_text import to_json

_PROGRAM = ("-m", "resnets.deployment.bench.exporting")  # what Python runs
_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
_CHECKED_ON = 4  # images on which an export for this benchmark is checked
_ERRORS = {kind.__name__: kind for kind in (MissingExtra, UsageError, ContentError)}


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

    def exported(self, model: Path, kind: str) -> Path:
        """The file of a format that is exported from a model file, once; see `why_missing`.

        Raises:
            ContentError, MissingExtra, UsageError: of `export`.
        """
        if (model, kind) in self._files:
            return self._files[model, kind]
        folder = self.folder / str(len(self._files))
        folder.mkdir()
        target = self._files[model, kind] = folder / f"model{_ENDINGS[kind]}"
        left = self.deadline - time.monotonic()
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
        ContentError, MissingExtra, UsageError: of `export`.
        RuntimeError: the process failed otherwise.
    """
    command = [sys.executable, *_PROGRAM, str(model), kind, str(target)]
    limit = seconds if math.isfinite(seconds) else None
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode == 0:
        return True
    try:
        outcome = json.loads(done.stdout.splitlines()[-1])
        raise _ERRORS[outcome["kind"]](outcome["error"])
    except (IndexError, KeyError, TypeError, json.JSONDecodeError):
        raise RuntimeError(f"the export to {kind} failed: {done.stderr[-2000:]}") from None


def _main() -> int:
    """Export as the arguments say; the exit code."""
    from resnets.deployment.export.files import export, images_for

    path, kind, target = sys.argv[1:]
    try:
        model = model_file.load(Path(path))
        images = images_for(model, None, _CHECKED_ON)
        export(model, target, kind, *images)  # type: ignore[arg-type]
    except tuple(_ERRORS.values()) as error:
        names = (name for name, kind in _ERRORS.items() if isinstance(error, kind))
        outcome = to_json({"kind": next(names), "error": str(error)})
        sys.stdout.write(f"\n{outcome}\n")  # libraries print there, too
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
