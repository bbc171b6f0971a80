"""Selection of the fastest runtime for a file on this machine, measured once and then stored."""

import contextlib
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from resnets.deployment.engines.accelerators import ACCELERATORS, runtime_of
from resnets.deployment.exported.reading import LARGEST
from resnets.files.folders import cache_folder, warn_of_cache
from resnets.files.reading import open_input, read_text
from resnets.files.writing import write_atomically
from resnets.json_text import to_json
from resnets.machine import cores, processor

_TIMING = "resnets.deployment.engines.timing"  # the module that a new process runs
_TIMEOUT = 60  # seconds after which a runtime counts as failed
_MAX_STORED = 200  # results; older ones are deleted


def installed(name: str) -> bool:
    """Whether the runtime of an engine can be imported, without importing it."""
    return importlib.util.find_spec(runtime_of(name)) is not None


def fastest(
    path: Path, runtimes: Sequence[str], threads: int = 0, measure: bool = True, usual: str = ""
) -> str:
    """The fastest of the installed runtimes that can run a file.

    Each is measured in a process of its own, since their waiting threads slow each other down. The
    result is stored in `_results_file()`, for this file's content, these versions and this machine.
    Where nothing can be stored, nothing is measured.

    Args:
        path: the file.
        runtimes: those that can run it, the preferred one first.
        threads: number of threads that will compute.
        measure: whether to measure where no result is stored.
        usual: the runtime to take where nothing is measured; else the first one.
    """
    candidates = [name for name in runtimes if installed(name)]
    if len(candidates) < 2:
        return candidates[0] if candidates else runtimes[0]
    key = _result_key(path, candidates, threads)
    results = _read_results()
    if results.get(key) in candidates:
        return results[key]
    if not measure or not _store_results(results):
        return usual if usual in candidates else candidates[0]
    rates = {name: _rate_of(name, path, threads) for name in candidates}
    best = max(candidates, key=lambda name: rates[name])
    _store_results({**results, key: best})
    return best


def _rate_of(name: str, path: Path, threads: int) -> float:
    """Images per second, measured by `timing` in a new process; 0 if that fails."""
    command = [sys.executable, "-m", _TIMING, str(path), name, str(threads)]
    try:
        process = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT, check=True, text=True
        )
        return float(process.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return 0.0


def _result_key(path: Path, candidates: Sequence[str], threads: int) -> str:
    """What a result depends on: the file's content, the versions and the machine."""
    versions = [f"{name} {_version_of(name)}" for name in candidates]
    machine = f"{processor()} x {cores()}"
    return " | ".join([digest(path), *versions, machine, f"{threads} threads"])


def _version_of(name: str) -> str:
    """The version of an engine's installed package; empty where it is not known."""
    packages = ACCELERATORS[name].packages if name in ACCELERATORS else ()
    for package in (*packages, runtime_of(name)):
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return ""


def digest(path: Path) -> str:
    """A digest of a file; of an .xml together with the .bin beside it.

    It is the SHA-256 of their SHA-256s, as files that name their origin by it have it; what people
    compare is `sha256_of`.
    """
    total = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with open_input(part, LARGEST) as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it; of an .xml followed by the .bin beside it.

    >>> _ = (tmp / "net.onnx").write_bytes(b"abc")
    >>> sha256_of(tmp / "net.onnx")[:16]
    'ba7816bf8f01cfea'
    """
    total = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with open_input(part, LARGEST) as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def _results_file() -> Path:
    """The file of stored results: engines.json in the cache folder."""
    return cache_folder() / "engines.json"


def _read_results() -> dict[str, str]:
    """The fastest runtime by key; empty where the file cannot be read."""
    try:
        results = json.loads(read_text(_results_file()))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(results, dict):
        return {}
    return {key: value for key, value in results.items() if isinstance(value, str)}


def _store_results(results: dict[str, str]) -> bool:
    """Store the newest results; False where that is not possible."""
    path, newest = _results_file(), dict(list(results.items())[-_MAX_STORED:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(newest, indent=1).encode())
    except OSError as error:
        warn_of_cache(error)
        return False
    return True
