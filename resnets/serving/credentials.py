"""Files of keys and of TLS are read again when they change, as models are.

What cannot be used leaves in use what was read before.
"""

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from resnets.errors import UsageError
from resnets.serving.logs import log
from resnets.serving.served_model import stamp_of
from resnets.serving.threads import in_own_thread

_T = TypeVar("_T")

_INTERVAL = 1.0  # seconds between two looks at the files


@dataclass
class Watched(Generic[_T]):
    """Files that are read together.

    Attributes:
        paths: of them.
        read: their content, before it what changes with it; raises UsageError or OSError.
        use: puts their content in the place of the old.
        used: what changes with the content, of that in use.
    """

    paths: tuple[Path, ...]
    read: Callable[[], tuple[Hashable, _T]]
    use: Callable[[_T], None]
    used: Hashable
    _stamps: object = None

    def look(self, *, again: bool) -> None:
        """Use the files if they have changed.

        Args:
            again: whether to read them also where they are as they were at the last look.
        """
        stamps = [stamp_of(path) for path in self.paths]
        if stamps == self._stamps and not again:
            return
        self._stamps = stamps
        names = ", ".join(map(str, self.paths))
        try:
            mark, content = self.read()
        except (UsageError, OSError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            log("changed file not used", file=names, reason=f"{reason}; {_OLD}")
            return
        if mark != self.used:
            self.use(content)
            self.used = mark
            log("changed file used", file=names)


_OLD = "what was read before stays in use"


class Credentials:
    """Watches files, and has them used when they change."""

    def __init__(self) -> None:
        self._watched: list[Watched[Any]] = []
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, files: Watched[Any]) -> None:
        """Watch some files, too."""
        self._watched.append(files)

    async def begin(self) -> None:
        """Look at all files before the first request.

        They were read before the models were opened, and for a process that is started again in the
        place of one that died, when the first one was: a key may have been revoked since.
        """
        self._loop = asyncio.get_running_loop()
        await self._look(again=False)

    async def run(self) -> None:
        """Watch until cancelled."""
        while self._watched:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _INTERVAL)
            again = self._asked.is_set()
            self._asked.clear()
            await self._look(again=again)

    def ask(self) -> None:
        """Read all files at once, also those that failed; from any thread or signal."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked.set)

    async def _look(self, *, again: bool) -> None:
        """Look at all files once."""
        for files in self._watched:
            await in_own_thread(files.look, again=again)
