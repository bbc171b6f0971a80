import math
from pathlib import Path

import pytest

from resnets.deployment.bench.figures import _peak_rate, _row, _with_instructions, bench
from resnets.deployment.bench.processes import Record, Turn
from resnets.deployment.bench.runtimes import SIDE, Candidate
from resnets.errors import UsageError

EAGER = Candidate("eager", "eager", "", 1, (8, 8, 3))
FAST = Candidate("fast", "onnxruntime", "", 1, (8, 8, 3))


def record(*rounds: list[float]) -> Record:
    return Record(1.5, {4: [Turn(tuple(calls), 100 + place) for place, calls in enumerate(rounds)]})


def test_the_ratio_is_made_within_a_round_and_then_its_median_taken() -> None:
    """The machine is ten times slower in the second round; the ratio stays what it is, 2."""
    records = {
        EAGER: record([0.2, 0.2, 0.2], [2.0, 2.0, 2.0], [0.2, 0.2, 0.2]),
        FAST: record([0.1, 0.1, 0.1], [1.0, 1.0, 9.0], [0.1, 0.1, 0.1]),
    }
    figures = _row(FAST, 4, records, records[EAGER], (1000, {1: 400_000.0}))
    assert figures.ratio == pytest.approx(2)
    assert figures.images_per_second == pytest.approx(40)
    assert figures.multiply_adds_per_second == pytest.approx(40_000)
    assert figures.share_of_peak == pytest.approx(0.1)
    assert (figures.peak_memory, figures.cold_start) == (100, 1.5)


def test_a_percentile_needs_enough_calls() -> None:
    milliseconds = [number / 1000 for number in range(1, 101)]
    for calls, known in ((3, [50]), (20, [50, 95]), (100, [50, 95, 99])):
        records = {FAST: record(milliseconds[:calls])}
        latency = _row(FAST, 4, records, records[FAST], (1, {})).latency
        assert [percent for percent, value in latency.items() if value is not None] == known
    assert latency[50] == pytest.approx(50.5)
    assert latency[99] == pytest.approx(99.01)


def test_without_a_peak_there_is_no_share_of_it() -> None:
    records = {FAST: record([0.1, 0.1, 0.1])}
    assert math.isnan(_row(FAST, 4, records, records[FAST], (1, {})).share_of_peak)


def test_the_peak_is_the_fastest_product_in_any_round() -> None:
    assert _peak_rate(record([3.0, 1.0], [0.5, 2.0])) == SIDE**3 / 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": ()}, "--batch-sizes"),
        ({"batch_sizes": (0,)}, "--batch-sizes"),
        ({"rounds": 0}, "--rounds 0"),
        ({"seconds": 0.0}, "--seconds 0"),
        ({"seconds": math.nan}, "--seconds nan"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bench([EAGER], 1, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing to measure"):
        bench([], 1)


def test_the_processor_is_named_with_its_instructions_for_8_bits(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        "model name\t: Quick 9000\nflags\t\t: sse avx2 avx512_vnni\n\n", encoding="utf-8"
    )
    assert _with_instructions(info) == "Quick 9000 (avx2, avx512_vnni)"
    assert _with_instructions(tmp_path / "none")
