"""How far a command is."""

import io

import pytest

from resnets.commands import progress


def test_where_there_is_no_terminal_a_line_is_printed_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 10_000, 10))  # ten seconds an image
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    assert list(progress.with_progress(iter(range(8)), 8, stream)) == [*range(8)]
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["3/8", "6/8"]
    assert "50 s left" in lines[0]
