"""Connections to remote places: one event loop in a thread of each process, and its file systems.

Neither threads nor connections survive a fork, so what is made here belongs to one process: a
worker makes its own on first use, however it was started.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from resnets.data.remote.outages import outage_of
from resnets.errors import require
from resnets.files.folders import has_netrc
from resnets.outages import Outage

if TYPE_CHECKING:
    from concurrent.futures import Future

_T = TypeVar("_T")
_TO_CONNECT = 5.0  # seconds; a host that is not there answers nothing at all
_TO_CLOSE = 2.0  # seconds at the end of the program


class Connections:
    """The event loop of this process, and a file system of fsspec for each scheme."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.systems: dict[str, Any] = {}
        self.states: dict[Any, Any] = {}  # of who reads here: see `read_ahead`
        self.outages: dict[str, Outage] = {}
        self.thread = threading.Thread(target=self.loop.run_forever, name="remote", daemon=True)
        self.thread.start()

    def outage(self, address: str) -> Outage:
        """Whether the server of an address fails."""
        return self.outages.setdefault(urlsplit(address).netloc, outage_of(address))

    def start(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        """Start a coroutine in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def system(self, scheme: str) -> Any:
        """The file system of a scheme: "http", "s3" or "gs". Only in the loop.

        Raises:
            MissingExtra: a library is not installed.
        """
        if scheme not in self.systems:
            self.systems[scheme] = _open(scheme, self.loop, public=False)
        return self.systems[scheme]

    async def as_public(self, scheme: str) -> Any:
        """The file system of a scheme, from now on without credentials: for public buckets."""
        self.systems[scheme] = _open(scheme, self.loop, public=True)
        return self.systems[scheme]

    async def close(self) -> None:
        """End all work, and close all connections."""
        for reader in self.states.values():
            reader.close()
        work = asyncio.all_tasks() - {asyncio.current_task()}
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        for system in self.systems.values():
            session = getattr(system, "_session", None)
            creator = getattr(system, "_s3creator", None)
            if creator is not None:
                await creator.__aexit__(None, None, None)
            elif session is not None:
                await session.close()
        self.systems.clear()


def _open(scheme: str, loop: asyncio.AbstractEventLoop, public: bool) -> Any:
    """A file system for use in a loop. It makes one attempt; who calls it makes more."""
    own: dict[str, Any] = {"asynchronous": True, "loop": loop, "skip_instance_cache": True}
    if scheme == "s3":
        once = {"retries": {"total_max_attempts": 1}, "connect_timeout": _TO_CONNECT}
        system = require("s3fs", "remote").S3FileSystem(anon=public, config_kwargs=once, **own)
        system.retries = 1
        return system
    if scheme == "gs":
        gcsfs = require("gcsfs.core", "remote")  # that of gcsfs itself asks the bucket's kind
        log = logging.getLogger("gcsfs")
        if log.level == logging.NOTSET:  # it logs tracebacks of errors that are told
            log.setLevel(logging.CRITICAL)
        return gcsfs.GCSFileSystem(token="anon" if public else None, **own)
    require("aiohttp", "remote")
    http = require("fsspec.implementations.http", "remote")
    headers = {"Accept-Encoding": "identity"}  # ranges of the file, never of a packed form
    timeout = require("aiohttp", "remote").ClientTimeout(total=None, sock_connect=_TO_CONNECT)
    client = {"trust_env": has_web_settings(), "timeout": timeout}
    return http.HTTPFileSystem(client_kwargs=client, headers=headers, **own)


def has_web_settings() -> bool:
    """Whether this system has proxies or a .netrc file.

    aiohttp looks for both before each request, in two other threads, which takes longer than the
    request of a small image.
    """
    return bool(os.environ.get("NETRC") or getproxies()) or has_netrc()


_OF_PROCESS: dict[int, Connections] = {}  # by its number: a fork has another
_LOCK = [threading.Lock()]


def connections() -> Connections:
    """The connections of this process."""
    with _LOCK[0]:
        own = _OF_PROCESS.get(os.getpid())
        if own is None:
            own = _OF_PROCESS[os.getpid()] = Connections()
            atexit.register(_disconnect)
        return own


def _disconnect() -> None:
    """Close the connections of this process; new ones are made on demand."""
    with _LOCK[0]:
        own = _OF_PROCESS.pop(os.getpid(), None)
    if own is None:
        return
    with contextlib.suppress(Exception):  # the program ends, or wants new connections
        own.start(own.close()).result(_TO_CLOSE)
    own.loop.call_soon_threadsafe(own.loop.stop)
    own.thread.join(_TO_CLOSE)
    if not own.thread.is_alive():
        own.loop.close()


def _after_fork() -> None:
    """In the child: a lock that another thread of the parent may hold is replaced."""
    _LOCK[0] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
