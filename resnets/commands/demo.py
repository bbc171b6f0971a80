"""``resnets demo``: the page of `serve` in the browser, with example images."""

import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import tyro

from resnets.commands import run
from resnets.errors import require
from resnets.escaping import say
from resnets.interrupting import ended_by_sigterm

_NETWORK = "resnet20_cifar10"
_MAX_BATCH = 8  # images; given, so that nothing is measured at the start


def main(argv: list[str]) -> int:
    """Run ``resnets demo`` with ``argv``."""
    with ended_by_sigterm():
        return run(demo, argv, config=(tyro.conf.FlagCreatePairsOff,))


def demo(port: int = 0, no_browser: bool = False) -> int:
    """Try a network in the browser: yours, or drawings that come with the demo, as images.

        resnets demo

    It serves resnet20_cifar10 on this machine only, opens its page where there is a browser, and
    ends on Ctrl-C. `resnets serve MODEL` shows the same page for any network.

    Args:
        port: port to listen on; 0 takes a free one.
        no_browser: only print the address.
    """
    for module in ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client"):
        require(module, "serve")
    from resnets.serving.access import Access
    from resnets.serving.served_model import open_served
    from resnets.serving.server import listening, serve_on
    from resnets.serving.settings import Settings

    def started(address: str) -> None:
        say(f"the demo is at {address}/ (Ctrl-C ends it)", file=sys.stderr)
        if not no_browser and _has_browser(os.environ, sys.platform):
            # some browsers keep whoever opens them waiting until they are closed
            page = (f"{address}/",)
            threading.Thread(target=webbrowser.open, args=page, daemon=True).start()

    settings = Settings(port=port, examples=True)
    with closing(listening(settings)) as listener:
        model = open_served(Path(_NETWORK), max_batch=_MAX_BATCH)
        level = logging.WARNING  # the address would leave the screen among lines for requests
        serve_on(listener, {model.name: model}, settings, Access(), None, started, level)
    return 0


def _has_browser(environment: Mapping[str, str], platform: str) -> bool:
    """Whether a browser that is opened shows on the screen of whoever runs this.

    >>> _has_browser({"DISPLAY": ":0"}, "linux"), _has_browser({}, "linux")
    (True, False)
    >>> _has_browser({}, "darwin")
    True
    >>> _has_browser({"DISPLAY": ":10", "SSH_CONNECTION": "..."}, "linux")
    False
    """
    if "SSH_CONNECTION" in environment or "SSH_TTY" in environment:
        return False
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    return platform in ("darwin", "win32") or any(environment.get(name) for name in displays)
