"""`resnets demo` as a real process: the page with drawings, on this machine only."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="BROWSER is not heeded there")
def test_a_browser_that_stays_in_the_foreground_gets_the_page(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    page, browser = tmp_path / "page.html", tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\n"
        "import sys, time, urllib.request\n"
        "with urllib.request.urlopen(sys.argv[1], timeout=60) as response:\n"
        f"    content = response.read()\n"
        f"open({str(page)!r}, 'wb').write(content)\n"
        "time.sleep(600)\n"  # as one whose window stays
    )
    browser.chmod(0o700)
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("SSH_")}
    environment |= {"DISPLAY": ":0", "BROWSER": f"{browser} %s"}
    process = subprocess.Popen(
        [sys.executable, "-m", "resnets", "demo"],
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # with its browser, which is ended below
    )
    try:
        end = time.monotonic() + 90
        while not page.is_file() or not page.stat().st_size:
            assert process.poll() is None
            assert time.monotonic() < end, "the browser got no page"
            time.sleep(0.1)
        assert "<title>" in page.read_text("utf-8")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0  # while the browser is still open
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
