"""A real server in a thread of the test's process, on a port that is free."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(app: Any, **options: Any) -> Iterator[str]:
    """The address of an application, as host:port, while it runs with options of uvicorn."""
    import uvicorn

    from resnets.serving.connections import Connection

    with socket.create_server(("127.0.0.1", 0)) as listener:
        options |= {"http": Connection, "log_config": None, "timeout_graceful_shutdown": 1}
        config = uvicorn.Config(app, **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            thread.join(30)
