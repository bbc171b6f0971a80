"""Signals that stop a training, each in a process of its own."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import signal, sys
from resnets.runs.stop_signals import STOPPING, StopSignals

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
from resnets.runs.stop_signals import STOPPING, StopSignals

assert [number.name for number in STOPPING] == ["SIGINT", "SIGTERM"]
with StopSignals() as signals:
    signal.raise_signal(signal.SIGTERM)
    print(signals.received)
"""
NAMES = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def printed(*words: str) -> list[str]:
    command = [sys.executable, "-c", *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return run.stdout.split()


@pytest.mark.parametrize("name", NAMES)
def test_each_signal_that_stops_is_noted_and_its_handler_put_back(name: str) -> None:
    number = str(int(getattr(signal, name)))
    assert printed(PROGRAM, number, "") == [number, "True"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system tells of no hang-up")
def test_a_hang_up_that_nohup_ignores_stops_nothing() -> None:
    assert printed(PROGRAM, str(int(signal.SIGHUP)), "ignored") == ["None", "True"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="nothing is taken away here")
def test_where_a_system_has_no_hang_up_the_others_are_noted() -> None:
    assert printed(WITHOUT) == [str(int(signal.SIGTERM))]
