"""Running of the application until the process is told to stop."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import uvicorn

from resnets.errors import UsageError
from resnets.serving.access import Access
from resnets.serving.app import create_app
from resnets.serving.logs import logging_to_stderr
from resnets.serving.served_model import ServedModel
from resnets.serving.settings import Settings

_STOP = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 2048  # connections that the system accepts before the process does


def serve(
    models: dict[str, ServedModel],
    settings: Settings,
    access: Access,
    started: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; what is in flight then is finished within the grace period.

    Args:
        models: by name; the first one answers where none is named.
        settings: where to listen, and the limits.
        access: who may ask.
        started: called with the address once connections are accepted.

    Raises:
        UsageError: the address is in use or is none of this machine.
    """
    with closing(listening(settings)) as listener, logging_to_stderr():
        app = create_app(models, settings, access)
        config = uvicorn.Config(
            app,
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=max(1, round(settings.grace)),
            proxy_headers=False,  # anyone could send them
            root_path=settings.root_path,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        started(address_of(listener, "https" if settings.tls_certificate else "http"))
        _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that has done what it was asked to when it stops on SIGTERM or Ctrl-C."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on the first signal, at once on the second Ctrl-C; then nothing is raised again.

        uvicorn raises the signal again, so that the exit code of an orderly end would be 143.
        """
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
        reason = error.strerror or str(error)
        raise UsageError(
            f"--host {settings.host} --port {settings.port}: {reason} (--port 0 takes a free one)"
        ) from None
    return listener


def address_of(listener: socket.socket, scheme: str = "http") -> str:
    """The address of a socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
