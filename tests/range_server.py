"""A web server that answers requests for ranges, late or wrongly if it is told to.

python tests/range_server.py FOLDER [--delay 0.05]    # prints its address; ends with its input
"""

import argparse
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

FAULTS = ("500", "502", "503", "429", "cut", "slow", "short", "wrong", "refused")  # of an answer


class RangeServer(ThreadingHTTPServer):
    """Serves the files below a folder.

    Attributes:
        faults: of the next answers with content, the first first; "" for a right one.
        ranges: whether it answers requests for a range; if not, it sends whole files.
        delay: seconds before each answer.
        asked: path, first byte and byte behind the last of each request.
        times: when each of them came, by a clock.
        most: answers by each connection, which then is closed without a word; 0: any number.
        heads: the request line and the headers of each request for content.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        folder: Path,
        faults: Sequence[str] = (),
        ranges: bool = True,
        certificate: Path | None = None,
    ) -> None:
        """Listen on the loopback address; with a file of a certificate and its key, by https."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
            self.scheme = "https"
        self.folder, self.faults, self.ranges, self.delay = folder, [*faults], ranges, 0.0
        self.asked: list[tuple[str, int, int]] = []
        self.times: list[float] = []
        self.heads: list[str] = []
        self.most = 0
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing of connections that a client closes."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Its address, without a slash at the end."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def next_fault(self) -> str:
        """The fault of the answer that is to be sent."""
        return self.faults.pop(0) if self.faults else ""


class _Handler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"
    answers = 0
    wbufsize = -1  # headers and content in one packet

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        content = self.content()
        if content is not None:
            self.start(200, len(content))

    def do_GET(self) -> None:
        content = self.content()
        if content is None:
            return
        start, stop = self.range(len(content))
        self.server.heads.append(f"{self.requestline}\n{self.headers}")
        self.server.asked.append((unquote(urlsplit(self.path).path), start, stop))
        self.server.times.append(time.monotonic())
        self.answer(content, start, stop, self.server.next_fault())

    def content(self) -> bytes | None:
        """The file that is asked for; None after the answer that there is none."""
        if self.server.delay:
            time.sleep(self.server.delay)
        path = self.server.folder / unquote(urlsplit(self.path).path).lstrip("/")
        if path.is_file():
            return path.read_bytes()
        self.start(404, 0)
        return None

    def range(self, size: int) -> tuple[int, int]:
        """The range that is asked for."""
        text = self.headers.get("Range", "") if self.server.ranges else ""
        first, _, last = text.removeprefix("bytes=").partition("-")
        return (int(first), min(int(last) + 1, size)) if text else (0, size)

    def answer(self, content: bytes, start: int, stop: int, fault: str) -> None:
        """Send a range, with a fault."""
        body = content[start:stop]
        if fault == "slow":
            self.server.stopping.wait(20)
        elif fault.isdigit():
            self.start(int(fault), 0, {"Retry-After": "0"})
            return
        elif fault == "refused":
            self.start(403, 0)
            return
        elif fault == "short":
            body = body[:-1]
        elif fault == "wrong":
            body = bytes(255 - byte for byte in body)
        where = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        self.start(*((206, len(body), where) if self.server.ranges else (200, len(body))))
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.answers += 1
        self.close_connection |= fault == "cut" or self.answers == self.server.most

    def start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        """Send the status and the headers."""
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[RangeServer]:
    """A server in a thread of this process."""
    server = RangeServer(folder, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    words = parser.parse_args()
    with serving(words.folder) as server:
        server.delay = words.delay
        print(server.address, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main()
