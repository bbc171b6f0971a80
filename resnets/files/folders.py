"""Folders of this machine: the home, the cache, those of other libraries, a temporary one."""

import atexit
import contextlib
import functools
import multiprocessing
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from resnets.errors import CacheWarning

_WARNED_OF: set[Path] = set()  # cache folders that cannot be written to


def in_home(path: str) -> Path:
    """A path with ~ expanded; for a user without a home, a path that cannot exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(os.devnull) / path


def has_netrc() -> bool:
    """Whether there is a .netrc file, with passwords for web servers, in the home folder."""
    with contextlib.suppress(RuntimeError):  # nobody knows where that is
        return any((Path.home() / name).exists() for name in (".netrc", "_netrc"))
    return False


def cache_folder(platform: str = sys.platform) -> Path:
    """The folder for caches; it may not exist, and may not be writable.

    $RESNETS_CACHE if that is set, else resnets in $XDG_CACHE_HOME, else in the system's folder for
    caches. If the user has no home, it is a path that cannot be written to: callers then work
    without a cache.

    >>> cache_folder().name
    'resnets'
    """
    if path := os.environ.get("RESNETS_CACHE"):
        return in_home(path)
    defaults = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():  # its specification says to ignore a relative path
        base = os.environ.get("LOCALAPPDATA", "") if platform == "win32" else ""
    return in_home(base or defaults.get(platform, "~/.cache")) / "resnets"


def is_cached(path: str | Path) -> bool:
    """Whether a file is in the folder for caches.

    >>> is_cached(cache_folder() / "pretrained" / "model.safetensors"), is_cached("run")
    (True, False)
    """
    return Path(path).is_relative_to(cache_folder())


@contextlib.contextmanager
def writing_to_cache() -> Iterator[None]:
    """Go on where the cache folder cannot be written to, which only costs time; say so once."""
    try:
        yield
    except OSError as error:
        warn_of_cache(error)


def warn_of_cache(error: OSError) -> None:
    """Say that the cache folder cannot be written to; once, and not in every worker process."""
    folder = cache_folder()
    if folder in _WARNED_OF or multiprocessing.parent_process() is not None:
        return
    _WARNED_OF.add(folder)
    warnings.warn(
        f"the cache, {folder}, cannot be written to ({error.strerror or error}), so nothing is "
        "kept there for later runs; set RESNETS_CACHE to a folder that can be written to",
        CacheWarning,
        stacklevel=2,
    )


def library_cache(variable: str, name: str) -> Path:
    """The folder in which another library keeps its files.

    Args:
        variable: of the environment, that names it.
        name: in the user's folder for caches, where the variable is not set.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return in_home(os.environ.get(variable) or f"{caches}/{name}")


@functools.cache
def temporary_folder() -> Path:
    """A private folder that is deleted when this process ends.

    Raises:
        OSError: it cannot be created.
    """
    folder = tempfile.mkdtemp(prefix="resnets-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
