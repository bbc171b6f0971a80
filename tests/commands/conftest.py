"""A headless Chromium, driven over two pipes: no driver, no port, no package."""

import base64
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """The program, None if it is not installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a browser of its own.

    Attributes:
        events: what the browser told so far, besides answers.
    """

    def __init__(self, program: str, timeout: float = 300) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        inward, self.out = os.pipe()
        self.back, outward = os.pipe()
        flags = ["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run"]
        flags += ["--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={self.folder.name}"]
        self.process = os.posix_spawn(
            program,
            [program, *flags],
            os.environ,
            file_actions=[  # the browser reads descriptor 3 and writes 4
                (os.POSIX_SPAWN_DUP2, inward, 13),
                (os.POSIX_SPAWN_DUP2, outward, 14),
                (os.POSIX_SPAWN_DUP2, 13, 3),
                (os.POSIX_SPAWN_DUP2, 14, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(inward)
        os.close(outward)
        self.watchdog = threading.Timer(timeout, self.kill)  # a browser may hang
        self.watchdog.start()
        self.events: list[dict[str, Any]] = []
        self.number, self.waiting, self.session = 0, b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.watchdog.cancel()
        self.kill()
        os.waitpid(self.process, 0)
        os.close(self.out)
        os.close(self.back)
        self.folder.cleanup()

    def kill(self) -> None:
        """End the browser and its processes."""
        os.killpg(self.process, signal.SIGKILL)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def read(self) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self.waiting:
            more = os.read(self.back, 1 << 20)
            if not more:
                raise RuntimeError("the browser has gone")
            self.waiting += more
        message, _, self.waiting = self.waiting.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content

    def open(self, path: Path, width: int, height: int = 844, *, dark: bool = False) -> None:
        """Show a file in a window of that size."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def told(self, method: str) -> list[dict[str, Any]]:
        """Parameters of all events of a kind."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"][
            "value"
        ]

    def screenshot(self, path: Path, *, whole: bool = True, kind: str = "png") -> None:
        """A picture of the page, or of what the window shows of it."""
        data = self.call("Page.captureScreenshot", format=kind, captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(data["data"]))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, or a skip that says that there is none."""
    program = find()
    if program is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(NAMES)})")
    with Browser(program) as page:
        yield page
