"""Signals that stop a training, each in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spread import spread

PROGRAM = """
import signal, sys
from resnets.interrupting import STOPPING
from resnets.runs.stop_signals import StopSignals

number, ignored = int(sys.argv[1]), sys.argv[2] == "ignored"
signal.signal(number, signal.default_int_handler)  # whatever the tests themselves ignore
if ignored:
    signal.signal(number, signal.SIG_IGN)  # as nohup does
before = signal.getsignal(number)
with StopSignals() as signals:
    signal.raise_signal(number)
    print(signals.received)
print(signal.getsignal(number) == before)
"""
WITHOUT = """
import signal
del signal.SIGHUP  # as on Windows
from resnets.interrupting import STOPPING
from resnets.runs.stop_signals import StopSignals

assert [number.name for number in STOPPING] == ["SIGINT", "SIGTERM"]
with StopSignals() as signals:
    signal.raise_signal(signal.SIGTERM)
    print(signals.received)
"""
AFTER = """
import signal, sys
from pathlib import Path
from resnets.data.batches import ProcessRank
from resnets.runs.stop_signals import Interrupted, interrupted_after_training

try:
    with interrupted_after_training(True, ProcessRank(int(sys.argv[1]), 2), 5, Path("my-run")):
        signal.raise_signal(signal.SIGTERM)
except Interrupted as stop:
    print(*stop.in_words())
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""
NAMES = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def printed(*words: str) -> list[str]:
    command = [sys.executable, "-c", *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return run.stdout.split()


@pytest.mark.parametrize("name", spread(NAMES))
def test_each_signal_that_stops_is_noted_and_its_handler_put_back(name: str) -> None:
    number = str(int(getattr(signal, name)))
    assert printed(PROGRAM, number, "") == [number, "True"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system tells of no hang-up")
def test_a_hang_up_that_nohup_ignores_stops_nothing() -> None:
    assert printed(PROGRAM, str(int(signal.SIGHUP)), "ignored") == ["None", "True"]


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="nothing is taken away here")
def test_where_a_system_has_no_hang_up_the_others_are_noted() -> None:
    assert printed(WITHOUT) == [str(int(signal.SIGTERM))]


HEEDS_SIGINT = (  # the tests may ignore it, as in the background
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process of Windows at once")
@pytest.mark.parametrize(
    ("name", "job", "again"),
    spread([("SIGTERM", {}, "command"), ("SIGINT", {"RESNETS_REFUSED": ""}, "job")]),
)
def test_a_signal_while_the_data_is_opened_says_how_to_begin(
    tmp_path: Path, name: str, job: dict[str, str], again: str
) -> None:
    """The data is at a server that does not answer."""
    number = getattr(signal, name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(300)
        data = f"http://127.0.0.1:{server.getsockname()[1]}/photos"
        process = subprocess.Popen(
            [sys.executable, "-c", HEEDS_SIGINT, sys.executable, "-m", "resnets", "train", data],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | job,
        )
        with server.accept()[0] as connection:
            connection.recv(1000)
            process.send_signal(number)
            output = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + number
    assert f"Stopped by {name} before training" in output
    assert f"the same {again} again" in output
    assert not [*tmp_path.glob("runs/*")]


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process of Windows at once")
def test_a_signal_while_a_network_is_scored_says_how_to_continue_once() -> None:
    first = printed(AFTER, "0")
    assert first[-1] == "True"
    assert {"SIGTERM", "5.", "--resume", "my-run"} <= {*first}
    other = subprocess.run([sys.executable, "-c", AFTER, "1"], timeout=300, check=False)
    assert other.returncode == -signal.SIGTERM
