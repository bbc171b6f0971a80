"""Models whose files have changed are loaded beside the old ones, and then take their places.

A request keeps the model that it began with, so none fails. An old model is freed once the last
request that uses it has ended.
"""

import asyncio
import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Mapping
from weakref import ref

from resnets.escaping import escaped
from resnets.serving.logs import log
from resnets.serving.served_model import ServedModel, digests_of, stamps_of
from resnets.serving.threads import in_own_thread

_SHOWN = 12  # characters of a digest
_INTERVAL = 1.0  # seconds between two looks at the files
_SEEN = "it is being loaded and checked; what was read before serves until then"


class Reloading:
    """Watches the files of models, and replaces the models whose files have changed.

    Args:
        models: by name.
        replace: puts a model in the place of that of the same name, which it lets go.
        loading: is held while a model is loaded.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        replace: Callable[[ServedModel], None],
        loading: asyncio.Lock,
    ) -> None:
        self._models, self._replace, self._loading = models, replace, loading
        self._stamps: dict[str, object] = {}
        self._old: list[ref[ServedModel]] = []
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _INTERVAL)
            self._asked.clear()
            for name in list(self._models):
                await self._look(name)
            self._free()

    def ask(self) -> None:
        """Look at all files at once, also at those that failed; from any thread or signal."""
        self._stamps.clear()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked.set)

    @property
    def old(self) -> int:
        """Number of replaced models that are still in memory."""
        return sum(model() is not None for model in self._old)

    def let_go(self, model: ServedModel) -> None:
        """Free a model that was taken from the others, once no request uses it any more."""
        self._old.append(ref(model))

    async def _look(self, name: str) -> None:
        """Replace a model if its file has changed. A file that cannot be loaded changes nothing."""
        model = self._models.get(name)
        if model is None or model.reopen is None:
            return
        stamps = await in_own_thread(stamps_of, model.path)
        if stamps == self._stamps.get(name):
            return
        self._stamps[name] = stamps
        if stamps[0] is None:
            log("file removed", model=name, reason=_removed(model))
            return
        try:
            if await in_own_thread(digests_of, model.path) == model.digests:
                return
            log("changed file seen", model=name, reason=_SEEN)
            async with self._loading:
                new = await in_own_thread(model.reopen)
        except Exception as error:  # whatever is wrong with the new file, the old model serves on
            log("changed file not served", model=name, reason=str(error))
            return
        if self._models.get(name) is not model:  # unloaded or replaced meanwhile
            new.close()
            return
        self._replace(new)
        log("changed file served", model=name, digest=new.digest)

    def _free(self) -> None:
        """Free replaced models that no request uses any more, and their memory."""
        if not self._old:
            return
        _collect()  # a model and its queue refer to each other
        before = len(self._old)
        self._old = [model for model in self._old if model() is not None]
        if len(self._old) < before:
            _give_memory_back()


def _removed(model: ServedModel) -> str:
    """What it means that the file of a model was removed."""
    return (
        f"{escaped(str(model.path))} is gone; {model.name} goes on as it was read before "
        f"({model.digest[:_SHOWN]}), until this server ends. Put a file back to that path: it is "
        "served within a second, and no server starts without it"
    )


def leave_out_of_collections() -> None:
    """Let Python's collector leave out everything there is now, which is there to stay.

    Now and then it looks through all objects, and everything else stands still for 0.2 seconds.
    """
    gc.collect()
    gc.freeze()


def _collect() -> None:
    """Free what refers to itself, also of what the collector leaves out."""
    left_out = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if left_out:
        gc.freeze()


def _give_memory_back() -> None:
    """Give freed memory back to the system, where the C library (glibc) can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
