import time

from resnets.evaluation.compare import _WARM_UP, _latencies


def test_contenders_take_turns_and_the_slower_one_takes_longer() -> None:
    calls: list[str] = []

    def contender(name: str, seconds: float) -> None:
        calls.append(name)
        time.sleep(seconds)

    fast, slow = _latencies(
        [lambda: contender("fast", 0.001), lambda: contender("slow", 0.02)], seconds=0.1, least=7
    )
    counted = calls[2 * _WARM_UP :]
    assert counted == ["fast", "slow"] * fast.calls
    assert fast.calls == slow.calls >= 7
    assert fast.median < slow.median
    assert slow.quartiles[0] <= slow.median <= slow.quartiles[1]
    assert slow.median >= 0.02
