import signal
from collections.abc import Iterator

import pytest

from resnets.runs import supervise
from resnets.runs.supervise import StopSignals

HANG_UP = getattr(signal, "SIGHUP", None)
needs_hang_up = pytest.mark.skipif(HANG_UP is None, reason="this system tells of no hang-up")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put every handler back that a test sets."""
    before = {number: signal.getsignal(number) for number in supervise.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", supervise.STOPPING)
def test_each_signal_that_stops_is_noted_and_its_handler_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        signal.raise_signal(number)
        assert signals.received == number
    assert signal.getsignal(number) == before


@needs_hang_up
def test_a_hang_up_that_nohup_ignores_stops_nothing() -> None:
    signal.signal(HANG_UP, signal.SIG_IGN)
    with StopSignals() as signals:
        signal.raise_signal(HANG_UP)
        assert signals.received is None
    assert signal.getsignal(HANG_UP) == signal.SIG_IGN


@needs_hang_up
def test_where_a_system_has_no_hang_up_the_others_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on Windows."""
    monkeypatch.setattr(supervise, "HANG_UP", None)
    others = [number for number in supervise.STOPPING if number != HANG_UP]
    with StopSignals(others) as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
