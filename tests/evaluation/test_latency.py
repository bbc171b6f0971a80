from types import SimpleNamespace

import pytest

from resnets.evaluation.compare import _WARM_UP, _latencies


@pytest.mark.parametrize(("least", "rounds"), [(7, 10), (12, 12)])
def test_contenders_take_turns_for_as_long_as_asked(
    least: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only their work moves: a round takes 21 ms, so that 0.2 s are 10 rounds."""
    calls: list[str] = []
    now = 0.0

    def contender(name: str, seconds: float) -> None:
        nonlocal now
        calls.append(name)
        now += seconds

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr("resnets.evaluation.compare.time", clock)
    contenders = [lambda: contender("fast", 0.001), lambda: contender("slow", 0.02)]
    fast, slow = _latencies(contenders, seconds=0.2, least=least)
    assert calls[2 * _WARM_UP :] == ["fast", "slow"] * rounds
    assert fast.calls == slow.calls == rounds
    assert (fast.median, slow.median) == pytest.approx((0.001, 0.02))
    assert slow.quartiles == pytest.approx((0.02, 0.02))
