"""Several processes share a port; where one dies, the others go on and it is started again."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.in_process import call
from tests.serving.conftest import image_bytes
from tests.serving.test_server import status_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no port can be shared there")
EARLIER = Path(__file__).parents[1] / "fixtures" / "before_trust"


@contextmanager
def two_workers(*options: str) -> Iterator[tuple["subprocess.Popen[str]", Iterator[str]]]:
    """A server of two processes, which need no torch, and its lines."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    command = [sys.executable, "-m", "resnets", "serve", str(EARLIER / "digits.onnx")]
    command += ["--port", "0", "--workers", "2", "--max-batch", "1", "--engine", "onnxruntime"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            yield process, iter(process.stderr.readline, "")
        finally:
            process.terminate()
            process.wait(60)
            process.kill()


def started(lines: Iterator[str]) -> int:
    """The number of the process that is started next."""
    return next(int(json.loads(line)["pid"]) for line in lines if "worker started" in line)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_all_end_in_order() -> None:
    with two_workers() as (process, lines):
        first, second = started(lines), started(lines)
        address = next(found[0] for line in lines if (found := re.search(r"http://\S+\d", line)))
        os.kill(first, signal.SIGKILL)
        third = started(lines)
        answers = [status_of(f"{address}/predict", image_bytes(seed=n)) for n in range(8)]
        assert answers == [200] * 8
        metrics = status_of(f"{address}/metrics")
        assert metrics == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for pid in (second, third):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.slow
def test_a_file_that_no_worker_can_open_is_an_error_at_the_start(tmp_path: Path) -> None:
    damaged = tmp_path / "digits.onnx"
    damaged.write_bytes((EARLIER / "digits.onnx").read_bytes()[:-50])
    ended = call("serve", damaged, "--port", "0", "--workers", "2")
    assert ended.returncode == 1
    assert "digits.onnx" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_number_below_one_is_taken(tmp_path: Path) -> None:
    ended = call("serve", EARLIER / "digits.onnx", "--workers", "0")
    assert ended.returncode == 2
    assert "--workers" in ended.stderr
