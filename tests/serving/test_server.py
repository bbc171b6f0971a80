"""The command as a real process: it answers, and ends in order when it is told to stop."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.serving.conftest import image_bytes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process there")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_answers_and_ends_with_exit_code_0(model_file: Path, stop: int) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    command = [sys.executable, "-m", "resnets", "serve", str(model_file), "--port", "0"]
    with subprocess.Popen(
        [*command, "--max-batch", "2", "--engine", "torch"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            address = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
            request = urllib.request.Request(f"{address}/predict", image_bytes())
            with urllib.request.urlopen(request, timeout=60) as response:
                assert response.status == 200
            process.send_signal(stop)
            assert process.wait(60) == 0
        finally:
            process.kill()
