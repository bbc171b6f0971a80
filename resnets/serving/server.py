"""Running of the application until the process is told to stop."""

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from resnets.errors import UsageError
from resnets.format import plural
from resnets.serving.access import Access
from resnets.serving.app import create_app
from resnets.serving.connections import Connection
from resnets.serving.logs import log, logging_to_stderr
from resnets.serving.reloading import leave_out_of_collections
from resnets.serving.served_model import ServedModel
from resnets.serving.settings import Settings
from resnets.serving.shadow import Shadow
from resnets.serving.state import Server
from resnets.serving.tls import renewed

_STOP = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = 130  # exit code
_CLOSING = 0.2  # seconds to send the last answers once the grace period is over
_LAST = 0.2  # seconds in which requests are read that came before the port was closed
_LOOK = 0.1  # seconds between two looks at what clients read
_UNREAD = 2.0  # seconds in which a client reads nothing, after which the process waits no more
_NOT_READ = f"its client has read nothing for {_UNREAD:g} seconds; this server waits no longer"
_BACKLOG = 2048  # connections that the system accepts before the process does
_KEEP_ALIVE = 75  # seconds; load balancers keep idle connections for 60: see docs/decisions.md


def serve_on(
    listener: socket.socket,
    models: dict[str, ServedModel],
    settings: Settings,
    access: Access,
    shadow: Shadow | None,
    started: Callable[[str], None],
    level: int = logging.INFO,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what is in flight then is finished within the grace period.

    Args:
        listener: a socket that listens.
        models: by name; the first one answers where none is named.
        settings: the limits.
        access: who may ask.
        shadow: another network that is compared; None: none is.
        started: called with the address before connections are accepted.
        level: the least of the log lines that are written; requests are of INFO.
    """
    with logging_to_stderr(level):
        app = create_app(models, settings, access, shadow)
        config = uvicorn.Config(
            app,
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            proxy_headers=False,  # anyone could send them
            timeout_keep_alive=_KEEP_ALIVE,
            root_path=settings.root_path,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        config.load()
        if config.ssl is not None and settings.tls_certificate is not None:
            files = renewed(config.ssl, settings.tls_certificate, settings.tls_key)
            app.state.server.credentials.watch(files)
        leave_out_of_collections()
        started(address_of(listener, "https" if settings.tls_certificate else "http"))
        try:
            _Server(config, app.state.server).run(sockets=[listener])
        finally:
            app.state.server.count()  # what ended at the very end


class _Server(uvicorn.Server):
    """A server that has done what it was asked to when it stops on SIGTERM or Ctrl-C.

    Until what is in flight is answered, it goes on accepting connections, so that a probe learns
    that it is not ready, and a client that it shall come again.

    Args:
        config: of uvicorn.
        state: of the application.
    """

    def __init__(self, config: uvicorn.Config, state: Server) -> None:
        super().__init__(config)
        self._state = state
        self._ends: float | None = None  # when the grace period does, once it has begun
        self._told = False  # whether the log says that it stops

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Begin to stop; a second Ctrl-C ends the process at once."""
        if self._ends is None:
            self._ends = time.monotonic() + self._state.settings.grace
            self._state.stop()
        elif sig == signal.SIGINT:
            os._exit(_INTERRUPTED)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end: nothing is in flight any more, or the grace period is over."""
        ended = await super().on_tick(counter)
        if self._ends is None:
            return ended
        left, waiting = self._ends - time.monotonic(), self._state.in_flight
        if not self._told:  # here, as no line can be written while a signal is handled
            self._told = True
            log("stopping", in_flight=waiting, reason=_waits_for(waiting, max(left, 0.0)))
        if waiting and left > 0:
            return False
        if waiting:
            log("given up after --grace", in_flight=waiting)
            for connection in list(self.server_state.connections):
                connection.transport.close()  # the application sees that the client has gone
        self.config.timeout_graceful_shutdown = max(left, _CLOSING)  # type: ignore[assignment]
        return True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; what has come until the port is closed is answered, as it would be reset unread."""
        listeners = sockets or []
        accepted = [each for listener in listeners for each in _waiting_on(listener)]
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        loop, encryption = asyncio.get_running_loop(), self.config.ssl
        tasks = [
            asyncio.ensure_future(
                loop.connect_accepted_socket(self._connection, each, ssl=encryption)
            )
            for each in accepted
        ]
        await asyncio.sleep(_LAST)
        for task in tasks:
            task.cancel()
        ends = asyncio.ensure_future(self._end_unread())
        try:
            await super().shutdown(sockets)
        finally:
            ends.cancel()

    async def _end_unread(self) -> None:
        """Close connections whose clients read nothing of their answers, such as sleeping pages.

        They would keep the process for the whole grace period. Until cancelled.
        """
        since: dict[object, tuple[int, float]] = {}  # bytes that are not sent, and since when
        while True:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                waiting = _unsent(connection.transport)
                before, begun = since.get(connection, (-1, now))
                since[connection] = (waiting, begun if waiting == before else now)
                if waiting == before and waiting and now - begun > _UNREAD:
                    log("answer not read", reason=_NOT_READ, bytes=waiting)
                    connection.transport.abort()
            await asyncio.sleep(_LOOK)

    def _connection(self) -> Connection:
        """What answers on a connection, as uvicorn makes it."""
        return Connection(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as above, SIGHUP as a wish to look for changed files.

        uvicorn raises SIGTERM again at the end, so that the exit code of an orderly end would be
        143.
        """
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: self._state.look())
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _waits_for(in_flight: int, left: float) -> str:
    """What a server that stops waits for.

    >>> _waits_for(0, 30.0), _waits_for(2, 30.0)
    ('nothing is in flight', 'waits for 2 images or requests, for up to 30 seconds (--grace)')
    """
    if not in_flight:
        return "nothing is in flight"
    waiting = plural(in_flight, "image or request", "images or requests")
    return f"waits for {waiting}, for up to {left:.0f} seconds (--grace)"


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes of answers that the other side has not received: here, and in the system's hands."""
    waiting = transport.get_write_buffer_size()
    connection = transport.get_extra_info("socket")
    if sys.platform == "linux" and connection is not None and waiting:
        import fcntl
        import termios

        with suppress(OSError):  # closed meanwhile
            count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += int.from_bytes(count, sys.byteorder)
    return waiting


def _waiting_on(listener: socket.socket) -> list[socket.socket]:
    """The connections that the system has accepted, and this process has not."""
    listener.setblocking(False)
    connections: list[socket.socket] = []
    with suppress(OSError):  # raised once no connection waits to be accepted
        while True:
            connections.append(listener.accept()[0])
            connections[-1].setblocking(False)
    return connections


def listening(settings: Settings) -> socket.socket:
    """A socket that listens on the address of the settings.

    Raises:
        UsageError: the address is in use or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)  # from now on connections wait instead of being refused
    except OSError as error:
        listener.close()
        reason, hint = error.strerror or str(error), "--port 0 takes a free one"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            hint = "--host takes an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all"
        raise UsageError(
            f"--host {settings.host} --port {settings.port}: {reason} ({hint})"
        ) from None
    return listener


def address_of(listener: socket.socket, scheme: str = "http") -> str:
    """The address of a socket as a URL that can be opened on this machine."""
    host, port = listener.getsockname()[:2]
    if is_every_address(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_every_address(host: str) -> bool:
    """Whether a server on a host listens on all addresses of the machine.

    >>> is_every_address("0.0.0.0"), is_every_address("::"), is_every_address("localhost")
    (True, True, False)
    """
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False
