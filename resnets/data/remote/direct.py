"""Small ranges of files on a web server, without the event loop.

Who expects them sends the requests, and who reads them receives the answers, which wait in the
buffers of the system until then. By way of the loop and aiohttp a request takes several times the
processor time, a considerable share of that of decoding a small photo.

Whatever is unusual (an answer that is not just the range, a cut connection, a busy server) is left
to `fetching`, which tries again, waits, and names what is wrong: here nothing is tried twice, and
nothing raises.
"""

import functools
import math
import re
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from resnets.data.remote.connections import has_web_settings
from resnets.data.remote.fetching import joined, scheme_of
from resnets.data.remote.ranges import Place
from resnets.errors import require

_LARGEST = 192 << 10  # bytes of a range
_BUFFER = 2 * _LARGEST  # bytes of a connection's buffer
_HEAD = 8 << 10  # bytes before the content of an answer, at most
_MOST = 64  # connections, each with one answer on its way
_WAITING = 4  # times as many places wait for a connection
_MARGIN = 64  # places: threads that read at the same time leave the order by less
_OPENERS = 8  # threads that open connections at a time, since each takes round trips
_TO_CONNECT = 5.0  # seconds
_REST = 30.0  # seconds without requests after a server was busy or silent
_IDLE = 4.0  # seconds until a connection without a request is closed; many servers wait for 5
_UNREAD = 900.0  # seconds after which an answer that nobody has read is given up
_BUSY = (408, 425, 429)  # besides 500 and above
_OF_FILE = (404, 410, 416)  # no such file, or none so long: says nothing of others
_BLANK = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n")
_RANGE = re.compile(rb"\r\ncontent-range:[ \t]*bytes[ \t]+(\d{1,18})-(\d{1,18})/")
_OTHERWISE = re.compile(rb"\r\n(?:transfer-encoding:|content-encoding:(?![ \t]*identity))")
_LAST = re.compile(rb"\r\nconnection:[^\r]*close")


class _UnusualAnswerError(Exception):
    """An answer that is not the range and nothing else; with its status, 0 if it has none."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class _Connection:
    """A connection with at most one answer on its way.

    Attributes:
        socket: connected.
        used: whether an answer came by it; a server may close it at any time after that.
        since: when it became free, by `time.monotonic`; its request is sent soon, or never.
    """

    socket: socket.socket
    used: bool = False
    since: float = field(default_factory=time.monotonic)

    def is_open(self) -> bool:
        """Whether a free connection can take a request: the server has not closed it.

        Raises:
            OSError: it was cut.
        """
        seconds = self.socket.gettimeout()
        try:
            self.socket.settimeout(0.0)
            self.socket.recv(1)  # its end, or what nobody asked for
        except (BlockingIOError, ssl.SSLWantReadError):
            self.socket.settimeout(seconds)
            return True
        return False

    def receive(self, place: Place) -> tuple[bytes, bool]:
        """The bytes of a place, and whether the connection can take another request.

        Raises:
            _UnusualAnswerError: the answer is another than just these bytes.
            OSError: the connection was cut, or nothing came in time.
        """
        length = place.length
        buffer, received = bytearray(length + _HEAD), 0
        deadline = time.monotonic() + (self.socket.gettimeout() or 0.0)
        while (begin := buffer.find(_BLANK, 0, min(received, _HEAD))) < 0:
            received += self._receive_some(buffer, received, deadline)
        begin += len(_BLANK)
        last = _checked(bytes(buffer[:begin]), place)
        while received < begin + length:
            received += self._receive_some(buffer, received, deadline)
        if received > begin + length:
            raise _UnusualAnswerError(0)
        self.used = True
        return bytes(memoryview(buffer)[begin:received]), not last

    def _receive_some(self, buffer: bytearray, start: int, deadline: float) -> int:
        """Receive more of an answer; returns the number of bytes. Raises as `receive`."""
        if start == len(buffer):
            raise _UnusualAnswerError(0)
        if time.monotonic() > deadline:
            raise TimeoutError
        received = self.socket.recv_into(memoryview(buffer)[start:])
        if not received:
            raise ConnectionResetError
        return received


def _checked(head: bytes, place: Place) -> bool:
    """Whether an answer, of a place, is the last of its connection. Raises _UnusualAnswerError."""
    status = head[9:12]
    if not head.startswith(b"HTTP/1.1 ") or status != b"206":
        raise _UnusualAnswerError(int(status) if status.isdigit() else 0)
    head = head.lower()
    length, span = _LENGTH.search(head), _RANGE.search(head)
    if length is None or int(length[1]) != place.length or _OTHERWISE.search(head):
        raise _UnusualAnswerError(206)
    if span is None or (int(span[1]), int(span[2]) + 1) != (place.offset, place.stop):
        raise _UnusualAnswerError(206)
    return _LAST.search(head) is not None


@dataclass
class DirectReader:
    """Requests of one process for small ranges below an address of a web server.

    Attributes:
        address: of the folder.
        seconds: to wait for an answer.
        resting_until: no requests before, by `time.monotonic`; endless until `allow`.
        waiting: places that were not asked for yet, in order, each with its number.
        asked: places whose answers are on their way, in order, each with its number.
        others: places that are fetched otherwise, each with its number.
        number: of the place that was expected last; places are read in this order, more or less.
        free: connections without a request, the one last used at the end.
        most: connections that the server takes, as far as is known.
        full_until: when it may take more, by `time.monotonic`.
        heads: the first lines of the requests for each file.
        opening: threads that open connections.
        ended: whether the server does not answer as it must for this; or the program ends.
    """

    address: str
    seconds: float
    resting_until: float = math.inf
    waiting: OrderedDict[Place, int] = field(default_factory=OrderedDict)
    asked: OrderedDict[Place, tuple[_Connection, int]] = field(default_factory=OrderedDict)
    others: dict[Place, int] = field(default_factory=dict)
    number: int = 0
    free: deque[_Connection] = field(default_factory=deque)
    most: int = _MOST
    full_until: float = 0.0
    opening: int = 0
    ended: bool = False
    heads: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, address: str, seconds: float) -> "DirectReader | None":
        """A reader of an address; None where requests need more than the address."""
        if scheme_of(address) != "http" or "@" in urlsplit(address).netloc or has_web_settings():
            return None
        return cls(address, seconds)

    @property
    def connections(self) -> int:
        """Those that are open, but for those that are being read."""
        return len(self.asked) + len(self.free)

    def allow(self) -> None:
        """Begin: by `fetching`, the server has answered a request for a range."""
        if self.resting_until == math.inf and not self.ended:
            self.resting_until = 0.0

    def expect(self, places: Sequence[Place]) -> list[Place]:
        """Ask for places that are read soon; returns those that are to be fetched otherwise."""
        now = time.monotonic()
        if now < self.resting_until:
            return [*places]
        others = []
        with self.lock:
            self._give_up(now)
            for place in places:
                self.number += 1
                if place in self.asked:  # in vain until now
                    self.asked[place] = self.asked.pop(place)[0], self.number
                elif place.length > _LARGEST or len(self.waiting) >= _WAITING * self.connections:
                    others.append(place)
                    self.others[place] = self.number
                else:
                    self.waiting.pop(place, None)
                    self.waiting[place] = self.number
            self._ask()
            self._open_more(len(others) + len(self.waiting))
        return others

    def take(self, place: Place) -> bytes | None:
        """The bytes of a place; None if they are to be fetched otherwise."""
        with self.lock:
            connection = self._pop(place)
        if connection is None:
            return None
        data, again = None, False
        try:
            data, again = connection.receive(place)
        except _UnusualAnswerError as answer:
            if answer.status not in _OF_FILE:
                for_now = answer.status >= 500 or answer.status in _BUSY
                self._stop(for_now or 100 <= answer.status < 200)
        except OSError as error:
            if isinstance(error, TimeoutError) or not connection.used:
                self._stop(for_now=True)
        with self.lock:
            if again and not self.ended:
                self._release(connection)
            else:
                connection.socket.close()
        return data

    def drop(self, place: Place) -> None:
        """Expect a place no longer: its bytes came otherwise."""
        with self.lock:
            connection = self._pop(place)
            if connection is not None:
                connection.socket.close()

    def close(self) -> None:
        """Close all connections, at the end of the program."""
        self._stop(for_now=False)

    def _stop(self, for_now: bool) -> None:
        """Close what nobody reads from, and send no requests, for some time or no more."""
        with self.lock:
            self.ended = self.ended or not for_now
            self.resting_until = math.inf if self.ended else time.monotonic() + _REST
            for connection in (*self.free, *(each for each, _ in self.asked.values())):
                connection.socket.close()
            self.free.clear()
            self.asked.clear()
            self.waiting.clear()
            self.others.clear()

    def _pop(self, place: Place) -> _Connection | None:
        """Expect a place no longer, nor what should have been read long before it.

        Returns:
            The connection by which its answer comes, if it was asked for.
        """
        connection, number = self.asked.pop(place, (None, 0))
        number = number or self.waiting.pop(place, 0) or self.others.pop(place, 0)
        while self.asked:
            passed, its = next(iter(self.asked.values()))
            if its >= number - _MARGIN:
                break
            self.asked.popitem(last=False)
            passed.socket.close()
        for left in (self.waiting, self.others):
            while left and next(iter(left.values())) < number - _MARGIN:
                del left[next(iter(left))]
        return connection

    def _give_up(self, now: float) -> None:
        """Close connections with answers that nobody has read for long, and those long idle."""
        while self.asked:
            place, (connection, _) = next(iter(self.asked.items()))
            if now - connection.since < _UNREAD:
                break
            del self.asked[place]
            connection.socket.close()
        while self.free and now - self.free[0].since > _IDLE:
            self.free.popleft().socket.close()

    def _release(self, connection: _Connection) -> None:
        """Use a connection for what waits, or keep it."""
        connection.since = time.monotonic()
        self.free.append(connection)
        self._ask()

    def _ask(self) -> None:
        """Send requests for what waits, as far as there are connections."""
        while self.waiting and self.free:
            connection, place = self.free.pop(), next(iter(self.waiting))
            try:
                if not connection.is_open():
                    raise ConnectionResetError
                connection.socket.sendall(self._request(place))
            except OSError:  # closed by the server, which the first request after it may not tell
                connection.socket.close()
            else:
                self.asked[place] = connection, self.waiting.pop(place)

    def _request(self, place: Place) -> bytes:
        """The request for a place."""
        head = self.heads.get(place.file)
        if head is None:
            head = self.heads[place.file] = _head(joined(self.address, place.file))
        return b"%bRange: bytes=%d-%d\r\n\r\n" % (head, place.offset, place.stop - 1)

    def _open_more(self, needed: int) -> None:
        """Start threads that open connections, if there are too few."""
        if time.monotonic() >= self.full_until:
            self.most = _MOST
        missing = min(needed, self.most - self.connections)
        for _ in range(min(missing, _OPENERS) - self.opening):
            self.opening += 1
            try:
                threading.Thread(target=self._open, name="connections", daemon=True).start()
            except RuntimeError:  # too many threads
                self.opening -= 1
                break

    def _open(self) -> None:
        """Open connections until there are enough."""
        try:
            while True:
                connection = _Connection(_connected(self.address, self.seconds))
                with self.lock:
                    if self.ended or time.monotonic() < self.resting_until:
                        connection.socket.close()
                        return
                    self._release(connection)
                    if self.free or self.connections + self.opening > self.most:
                        return
        except OSError:
            with self.lock:
                self.most, self.full_until = self.connections, time.monotonic() + _REST
                has_none = not self.most
            if has_none:
                self._stop(for_now=True)
        finally:
            with self.lock:
                self.opening -= 1


def _head(address: str) -> bytes:
    """The first lines of a request for a file."""
    url = _url(address)
    lines = (
        f"GET {url.raw_path_qs} HTTP/1.1",
        f"Host: {url.raw_authority}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "User-Agent: resnets",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def _connected(address: str, seconds: float) -> socket.socket:
    """A connection to the server of an address. Raises OSError."""
    url = _url(address)
    connection = _open_socket(url.raw_host, url.port)
    if url.scheme == "https":  # where this fails, it closes the connection
        connection = _tls().wrap_socket(connection, server_hostname=url.raw_host)
    connection.settimeout(seconds)
    return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    """How connections are secured: as those of aiohttp."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _url(address: str) -> Any:
    """An address as aiohttp understands it."""
    return require("yarl", "remote").URL(address)


def _open_socket(host: str, port: int) -> socket.socket:
    """A connection whose buffer has room for an answer. Raises OSError."""
    error = OSError(f"{host} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_TO_CONNECT)
            connection.connect(where)
        except OSError as another:
            connection.close()
            error = another
        else:
            return connection
    raise error
