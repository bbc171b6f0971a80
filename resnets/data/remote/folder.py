"""A folder in a remote place: ranges of its files, read ahead and cached, and whole files."""

import contextlib
import functools
import io
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from resnets.data.digests import content_digest
from resnets.data.remote.cache import Cache
from resnets.data.remote.connections import connections
from resnets.data.remote.direct import DirectReader
from resnets.data.remote.failures import AT_FIRST, ONCE_OPEN, Patience, WrongBytesError
from resnets.data.remote.fetching import (
    NoSuchFileError,
    fetch,
    joined,
    persist,
    scheme_of,
    size_of,
)
from resnets.data.remote.ranges import Place
from resnets.data.remote.read_ahead import ReadAhead
from resnets.data.remote.streams import RemoteStream
from resnets.errors import ContentError, UsageError
from resnets.files.folders import cache_folder
from resnets.format import plural

_T = TypeVar("_T")
_PIECE = 8 << 20  # bytes of a whole file that are fetched by one request
_VERSION = ("size", "ETag", "etag", "md5Hash", "LastModified")  # what fsspec tells of a file
_WRONG_BYTES = 3  # attempts to get the right bytes of an image


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at an address. It holds values only; each process connects for itself.

    Attributes:
        address: such as s3://bucket/shards or https://example.org/shards.
        cache_bytes: of the cache on the local disk; 0 for none.
        patience: with ranges of files, once the folder was opened.
        at_first: patience with whole files, by which it is opened.
    """

    address: str
    cache_bytes: int = 0
    patience: Patience = ONCE_OPEN
    at_first: Patience = AT_FIRST

    def read(self, place: Place) -> bytes:
        """The bytes of a place, from the cache or the remote file.

        Raises:
            RemoteError: all attempts failed; it names the address, the range and what happened.
            WrongBytesError: they differ from the place's digest, however often they are fetched.
        """
        cache = self._cache
        reader = self._reader
        if (data := cache.get(place)) is not None:  # perhaps of another process, since `expect`
            reader.drop(place)
            return data
        data = reader.taken(place)
        if data is None:
            data = _wait(reader.take(place))
            if reader.direct is not None:
                reader.direct.allow()
        for attempts in range(1, _WRONG_BYTES + 1):
            if _right(place, data):
                cache.put(place, data)
                return data
            if attempts < _WRONG_BYTES:
                data = _wait(reader.fetch(place))
        raise WrongBytesError(
            f"{joined(self.address, place.file)}, bytes {place.offset:,} to {place.stop - 1:,}: "
            f"other bytes than the digest in the index says, {_WRONG_BYTES} times (was the file "
            f"replaced? Of tar files without an index, the one that was made is in "
            f"{cache_folder() / 'tars'}: delete it, and another one is made)"
        )

    def expect(self, places: Sequence[Place]) -> None:
        """Begin to fetch places that will be read soon, in this order, unless they are cached."""
        cache = self._cache
        missing = [place for place in places if not cache.has(place)]
        if missing:
            self._reader.announce(missing)

    def forget(self, places: Sequence[Place]) -> None:
        """Expect places no longer: they are not needed."""
        for place in places:
            self._reader.drop(place)

    def __getstate__(self) -> dict[str, Any]:
        """The values alone: the cache of another process may lie elsewhere."""
        return {name: value for name, value in vars(self).items() if name != "_cache"}

    @functools.cached_property
    def _cache(self) -> Cache:
        """The cache on the local disk."""
        return Cache(cache_folder() / "remote", self.cache_bytes)

    @property
    def _reader(self) -> ReadAhead:
        """What this process reads ahead here."""
        own = connections()
        reader: ReadAhead | None = own.states.get(self)
        if reader is None:
            direct = DirectReader.of(self.address, self.patience.seconds)
            new = ReadAhead(own, self.address, self.patience, direct=direct)
            reader = own.states.setdefault(self, new)
        return reader

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None if there is no such file.

        Raises:
            RemoteError: all attempts failed.
        """
        try:
            return _wait(size_of(connections(), joined(self.address, name), self.at_first))
        except NoSuchFileError:
            return None

    def read_file(self, name: str, limit: int) -> bytes:
        """A whole file.

        Args:
            name: of the file.
            limit: the largest number of bytes.

        Raises:
            RemoteError: there is no such file, or all attempts failed.
            ContentError: it is larger.
        """
        own, address = connections(), joined(self.address, name)
        size = _wait(size_of(own, address, self.at_first))
        if size > limit:
            raise ContentError(f"{address}: {plural(size, 'byte')}; at most {limit:,} are read")
        return b"".join(
            _wait(fetch(own, address, start, min(start + _PIECE, size), self.at_first))
            for start in range(0, size, _PIECE)
        )

    def content(self, name: str) -> bytes:
        """A small file as it is now; a listing that fsspec keeps may be older.

        Raises:
            NoSuchFileError: there is no such file.
            RemoteError: all attempts failed.
        """
        address = joined(self.address, name)

        async def act(system: Any) -> bytes:
            system.invalidate_cache(address)
            return bytes(await system._cat_file(address))

        return self._do(act, name)

    def stream(self, name: str) -> io.BufferedReader:
        """A whole file, to be read from front to back.

        Raises:
            RemoteError: there is no such file, or all attempts failed; its `read` raises it, too.
        """
        size = _wait(size_of(connections(), joined(self.address, name), self.at_first))
        return io.BufferedReader(RemoteStream(self, name, size))

    def version(self, name: str) -> str:
        """What changes when a file is replaced, as far as its place tells.

        Raises:
            RemoteError: there is no such file, or all attempts failed.
        """

        async def act(system: Any) -> str:
            about = await system._info(joined(self.address, name))
            return " ".join(str(about[key]) for key in _VERSION if about.get(key) is not None)

        return self._do(act, name)

    def names(self) -> list[str]:
        """The names of the files directly in the folder, sorted; none if there is no such folder.

        Raises:
            UsageError: it is on a web server, which does not list.
            RemoteError: all attempts failed.
        """
        self._refuse_web("a web server does not list its files")

        async def act(system: Any) -> list[str]:
            system.invalidate_cache(self.address)  # others may have written since the last listing
            entries = await system._ls(self.address, detail=True)
            return sorted(each["name"].rsplit("/", 1)[-1] for each in entries if _is_file(each))

        try:
            return self._do(act, "")
        except NoSuchFileError:
            return []

    def write_file(self, name: str, source: Path) -> None:
        """Upload a file; it appears completely or not at all.

        Raises:
            UsageError: the folder is on a web server.
            RemoteError: all attempts failed.
        """
        length = source.stat().st_size
        self._write(name, lambda system, target: system._put_file(str(source), target), length)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Upload bytes as a file. Raises as `write_file` does."""
        self._write(name, lambda system, target: system._pipe_file(target, content), len(content))

    def remove(self, name: str) -> None:
        """Delete a file, if there is one. Raises as `write_file` does."""
        with contextlib.suppress(NoSuchFileError):  # S3 does not tell, Google's storage does
            self._write(name, lambda system, target: system._rm_file(target), 0)

    def _write(self, name: str, act: Callable[[Any, str], Awaitable[Any]], length: int) -> None:
        """Change a file by an operation of fsspec."""
        self._refuse_web("a web server takes no files; give a folder here, or s3:// or gs://")
        target = joined(self.address, name)
        self._do(lambda system: act(system, target), name, length)

    def _do(self, act: Callable[[Any], Awaitable[_T]], name: str, length: int = 0) -> _T:
        """Do something with a file of the folder, with the patience of the first contact."""
        address = joined(self.address, name)
        scheme = scheme_of(address)
        return _wait(persist(connections(), scheme, act, address, self.at_first, length))

    def _refuse_web(self, reason: str) -> None:
        """Refuse what a web server cannot do."""
        if scheme_of(self.address) == "http":
            raise UsageError(f"{self.address}: {reason}")


def _wait(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in this process's event loop, and wait for its result."""
    future = connections().start(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # of an interrupted program
        raise


def _right(place: Place, data: bytes) -> bool:
    """Whether these are the bytes of a place, as far as is known."""
    return place.digest is None or content_digest(data) == place.digest


def _is_file(entry: dict[str, Any]) -> bool:
    return bool(entry.get("type") == "file")
