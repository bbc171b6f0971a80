"""Which runtime is fastest for a file on this machine: measured once, then remembered."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from resnets.deployment.exported.reading import LARGEST
from resnets.files import cache_folder, open_input, read_text, write_atomically
from resnets.json_text import to_json
from resnets.machine import cores, processor

_TIMING = "resnets.deployment.engines.timing"  # the module that a new process runs
_PATIENCE = 60  # seconds after which a runtime counts as unfit
_MOST = 200  # measurements that are remembered


def installed(name: str) -> bool:
    """Whether a runtime can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def fastest(path: Path, able: Sequence[str], threads: int = 0, measure: bool = True) -> str:
    """The fastest of the installed runtimes that can run a file.

    Each is measured in a process of its own, since their waiting threads slow each other down. The
    result is kept in `memory()`, for this file's content, these versions and this machine; where
    nothing can be kept, nothing is measured.

    Args:
        path: the file.
        able: the runtimes, the likeliest first.
        threads: that shall compute.
        measure: whether to measure what is not remembered; else the first one is taken.
    """
    candidates = [name for name in able if installed(name)]
    if len(candidates) < 2:
        return candidates[0] if candidates else able[0]
    key = _identity(path, candidates, threads)
    known = _remembered()
    if known.get(key) in candidates:
        return known[key]
    if not measure or not _remember(known):
        return candidates[0]
    rates = {name: _rate_of(name, path, threads) for name in candidates}
    best = max(candidates, key=lambda name: rates[name])
    _remember({**known, key: best})
    return best


def _rate_of(name: str, path: Path, threads: int) -> float:
    """Images a second, measured by `timing` in a new process; 0 if that fails."""
    command = [sys.executable, "-m", _TIMING, str(path), name, str(threads)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PATIENCE, check=True, text=True
        )
        return float(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return 0.0


def _identity(path: Path, candidates: Sequence[str], threads: int) -> str:
    """What a measurement is true for: this content, these versions, this machine."""
    versions = [f"{name} {_version_of(name)}" for name in candidates]
    machine = f"{processor()} x {cores()}"
    return " | ".join([digest(path), *versions, machine, f"{threads} threads"])


def _version_of(name: str) -> str:
    """Of an installed package; empty where it does not tell."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def digest(path: Path) -> str:
    """SHA-256 of a file, with that of the .bin beside an .xml."""
    found = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with open_input(part, LARGEST) as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _memory() -> Path:
    """Where measurements are kept: engines.json in the cache folder."""
    return cache_folder() / "engines.json"


def _remembered() -> dict[str, str]:
    """The fastest runtime of each thing that was measured; empty where nothing can be read."""
    try:
        found = json.loads(read_text(_memory()))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _remember(known: dict[str, str]) -> bool:
    """Keep measurements, the newest of them; False where that is not possible."""
    path, newest = _memory(), dict(list(known.items())[-_MOST:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(newest, indent=1).encode())
    except OSError:
        return False
    return True
