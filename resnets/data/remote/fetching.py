"""One operation on a remote file: attempts with a time limit, and at last one clear error."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from resnets.data.remote.connections import Connections
from resnets.data.remote.failures import (
    Patience,
    RemoteError,
    WrongLengthError,
    credentials_of,
    failure_of,
)
from resnets.errors import MissingExtra
from resnets.format import duration, plural

_T = TypeVar("_T")
_LONG = 10.0  # seconds without an answer, of which users are told
_Act = Callable[[Any], Awaitable[_T]]


class NoSuchFileError(RemoteError):
    """There is no such file in a remote place."""


def scheme_of(address: str) -> str:
    """The file system for an address: "http", "s3" or "gs".

    >>> scheme_of("HTTPS://example.org/shards")
    'http'
    """
    scheme = urlsplit(address).scheme.lower()
    return "http" if scheme == "https" else scheme


def joined(address: str, name: str) -> str:
    """The address of a file below a folder.

    >>> joined("https://example.org/my%20shards/", "a b.tar")
    'https://example.org/my%20shards/a%20b.tar'
    >>> joined("s3://bucket/shards", "a b.tar")
    's3://bucket/shards/a b.tar'
    """
    if not name:
        return address
    return f"{address.rstrip('/')}/{quote(name) if scheme_of(address) == 'http' else name}"


async def fetch(own: Connections, address: str, start: int, stop: int, patience: Patience) -> bytes:
    """The bytes of a range of a file.

    Args:
        own: the connections of this process.
        address: of the file.
        start: the first byte.
        stop: behind the last byte.
        patience: how long and how often to try.

    Raises:
        RemoteError: all attempts failed; it names the address, the range and what happened.
    """

    async def act(system: Any) -> bytes:
        data = bytes(await system._cat_file(address, start=start, end=stop))
        if len(data) != stop - start:
            size = None
            with contextlib.suppress(Exception):  # then the answer alone is what is told
                size = (await system._info(address))["size"] if len(data) < stop - start else None
            is_beyond = size is not None and size < stop
            raise WrongLengthError(stop - start, len(data), size if is_beyond else None)
        return data

    subject = f"{address}, bytes {start:,} to {stop - 1:,}"
    return await persist(own, scheme_of(address), act, subject, patience, stop - start)


async def size_of(own: Connections, address: str, patience: Patience) -> int:
    """The size of a file in bytes.

    Raises:
        NoSuchFileError: there is no such file.
        RemoteError: all attempts failed, or the server does not tell the size.
    """

    async def act(system: Any) -> int | None:
        size: int | None = (await system._info(address))["size"]
        return size

    size = await persist(own, scheme_of(address), act, address, patience)
    if size is None:
        raise RemoteError(f"{address}: the server does not tell the size of the file")
    return size


async def persist(
    own: Connections,
    scheme: str,
    act: _Act[_T],
    subject: str,
    patience: Patience,
    length: int = 0,
) -> _T:
    """Try an operation until it succeeds.

    Args:
        own: the connections of this process.
        scheme: of the file system that `act` gets.
        act: one attempt.
        subject: what it is about, for the message.
        patience: how long and how often to try.
        length: bytes that are transferred.

    Raises:
        RemoteError: all attempts failed.
    """
    limit, outage = patience.limit(length), own.outage(subject)
    began, asked = time.monotonic(), 0.0
    for failures in range(1, patience.attempts + 1):
        sent = time.monotonic()
        try:
            result = await asyncio.wait_for(_act(own, scheme, act), limit)
        except MissingExtra:
            raise
        except Exception as error:  # three libraries have each their own
            failure = failure_of(error, limit)
        else:
            outage.end(sent)
            return result
        lasted = outage.begin(began)
        if not failure.again:  # the server has answered
            outage.end(sent)
        if not failure.again or (failure.silent and failures >= patience.silent_attempts):
            break
        pause = patience.pause(failures, failure)
        if failures == patience.attempts or not patience.allows(lasted - asked + pause, limit):
            break
        if failures > 1 or lasted > _LONG:
            most = patience.silent_attempts if failure.silent else patience.attempts
            outage.tell(f"{failure.reason}; trying again, at most {plural(most, 'attempt')}")
        asked += min(failure.pause or 0.0, pause)
        await asyncio.sleep(pause)
    kind = NoSuchFileError if failure.missing else RemoteError
    after = f" (after {duration(lasted)})" if lasted > 2 * limit else ""
    if failures > 1:
        after = f" (after {plural(failures, 'attempt')} in {duration(lasted)})"
    hint = f": {credentials_of(scheme)}" if failure.denied else ""
    raise kind(f"{subject}: {failure.reason}{after}{hint}")


async def _act(own: Connections, scheme: str, act: _Act[_T]) -> _T:
    """One attempt; where no credentials are found, as one of the public."""
    try:
        return await act(await own.system(scheme))
    except Exception as error:
        if type(error).__name__ != "NoCredentialsError":
            raise
    return await act(await own.as_public(scheme))
