"""`resnets demo` as a real process: the page with drawings, on this machine only."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT ends a process there")
def test_the_demo_answers_its_drawings_says_its_address_and_ends_in_order() -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    command = [sys.executable, "-m", "resnets", "demo", "--no-browser"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            first = process.stderr.readline()
            match = re.search(r"(http://127\.0\.0\.1:\d+/) ", first)
            assert match is not None, first
            for path, body in (("", None), ("examples/ship.png", None)):
                with urllib.request.urlopen(match[1] + path, body, timeout=60) as response:
                    content = response.read()
            with urllib.request.urlopen(f"{match[1]}predict", content, timeout=60) as response:
                assert b'"prediction": "ship"' in response.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stderr.read() == ""  # no line for each request
        finally:
            process.kill()
