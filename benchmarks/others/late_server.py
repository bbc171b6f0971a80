"""A web server of file ranges that answers late and takes little processor time.

    python late_server.py FOLDER [--delay 0.05]    # prints its address; ends with its input

For `benchmarks/loading.py`: the server stands for another machine, but shares the cores of this
one. tests/range_server.py, which can answer wrongly, takes more time than decoding an image.
"""

import argparse
import asyncio
import os
import sys
import threading
from pathlib import Path
from urllib.parse import unquote


class Files:
    """The files below a folder, opened once.

    Attributes:
        folder: that is served.
        delay: seconds before each answer.
    """

    def __init__(self, folder: Path, delay: float) -> None:
        self.folder, self.delay = folder, delay
        self.sizes: dict[str, tuple[int, int]] = {}  # name -> descriptor and bytes

    def answer(self, head: bytes) -> bytes:
        """The answer to the head of a request."""
        method, path, _ = head.split(b" ", 2)
        name = unquote(path.decode()).lstrip("/")
        if not (self.folder / name).is_file():
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        if name not in self.sizes:
            file = os.open(self.folder / name, os.O_RDONLY)
            self.sizes[name] = file, os.fstat(file).st_size
        file, size = self.sizes[name]
        status, start, stop = "200 OK", 0, size
        for line in head.decode("latin-1").split("\r\n"):
            if line.lower().startswith("range: bytes="):
                first, _, last = line[len("range: bytes=") :].partition("-")
                status, start, stop = "206 Partial Content", int(first), min(int(last) + 1, size)
        where = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" * status.startswith("206")
        answer = f"HTTP/1.1 {status}\r\n{where}Content-Length: {stop - start}\r\n\r\n".encode()
        return answer + (b"" if method == b"HEAD" else os.pread(file, stop - start, start))


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, which have no bodies."""

    transport: asyncio.Transport

    def __init__(self, files: Files) -> None:
        self.files, self.received = files, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self.received = (self.received + data).split(b"\r\n\r\n")
        for head in heads:
            asyncio.get_running_loop().call_later(self.files.delay, self.send, head)

    def send(self, head: bytes) -> None:
        self.transport.write(self.files.answer(head))


async def serve(files: Files) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(files), "127.0.0.1", 0, backlog=128)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    files = Files(options.folder, options.delay)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(serve(files))


if __name__ == "__main__":
    main()
