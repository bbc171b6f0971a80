"""What users see of a run: a bar in a terminal and in a notebook, plain lines elsewhere."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from resnets.runs import progress
from resnets.runs.callbacks import Epoch, Interval, Notice, Plan, Record, Step, Validating
from resnets.training.recipe import Recipe
from resnets.training.trainer import Score

HALF = Score(5, 10, 0.7)


def records(epochs: int = 2, steps: int = 3) -> list[Record]:
    """Those of a short run."""
    plan = Plan(0, steps, Recipe(epochs=epochs, progressive_resizing_scale=1.0), NotImplemented)
    all_records: list[Record] = [Notice("7 images\x1b[31m"), plan]
    for epoch in range(1, epochs + 1):
        for step in range((epoch - 1) * steps + 1, epoch * steps + 1):
            all_records += [Interval(epoch, step, HALF, 0.1), Step(epoch, step, 16, 0.01, 0.0)]
        all_records.append(Validating(epoch, epoch * steps, 1))
        all_records.append(Epoch(epoch, epoch * steps, HALF, replace(HALF, correct=8), True))
    return all_records


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal of 150 columns."""
    written = io.StringIO()
    made = {"file": written, "force_terminal": True, "width": 150, "highlight": False}
    monkeypatch.setattr(progress, "Console", lambda **_: Console(**made))
    return written


def test_a_terminal_has_a_bar_below_the_lines(terminal: io.StringIO) -> None:
    with progress._TerminalBar() as display:
        for record in records():
            display(record)
        display.progress.refresh()
    text = terminal.getvalue()
    assert "7 images\\x1b[31m" in text  # what a terminal would obey is written out
    assert "epoch 2/2" in text
    assert "━" in text
    assert "\x1b[?25h" in text  # the cursor is back
    assert text.index("epoch 1/2  training loss 0.700 accuracy 50.00 %") < text.rindex("━")


def test_a_fit_of_the_classifier_is_not_told_in_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(0, 1, Recipe(freeze="all"), NotImplemented)
    fit: list[Record] = [plan, Step(1, 1, 16, 0.01, 0.0), Epoch(1, 1, HALF, HALF, True)]
    with progress._PlainLines() as display:
        for record in fit:
            display(record)
    text = capsys.readouterr().out
    assert "accuracy 50.00 % (5/10)" in text
    assert not re.search("epoch|images/s|left|best", text)


def test_a_bar_is_taken_away_when_the_run_fails(terminal: io.StringIO) -> None:
    def fail() -> None:
        with progress._TerminalBar() as display:
            display(records()[1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert terminal.getvalue().endswith(("\x1b[?25h", "\x1b[2K"))


def test_a_budget_moves_no_column_and_shows_no_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress._PlainLines() as display:
        for epochs, epoch in ((9, 2), (140, 11), (14, 12)):
            recipe = Recipe(epochs=epochs, progressive_resizing_scale=1.0)
            display(Plan(epoch - 1, 1, recipe, NotImplemented, 60.0))
            display(Step(epoch, epoch, 16, 0.01, 0.0))
            display(Epoch(epoch, epoch, HALF, HALF, False))
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index("training") for line in lines}) == 1
    assert [line.split()[1] for line in lines] == ["2", "11", "12"]


def test_elsewhere_there_is_a_line_for_each_notice_and_epoch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.open_display() as display:
        assert isinstance(display, progress._PlainLines)
        for record in records():
            display(record)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == ["7 images", "epoch 1/", "epoch 2/"]
    assert "0 s left" in lines[-1]
    monkeypatch.setattr(progress, "_PLAIN_EVERY", -1.0)
    with progress._PlainLines() as display:
        for record in records():
            display(record)
    assert "step 4/6" in capsys.readouterr().out


def test_a_notebook_has_one_bar_that_moves_and_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []

    def display(content: str, display_id: bool) -> Any:
        assert display_id
        shown.append(content)
        return SimpleNamespace(update=shown.append)

    module = SimpleNamespace(display=display, HTML=str)
    monkeypatch.setattr(progress.importlib, "import_module", lambda _: module)
    monkeypatch.setattr(progress, "_NOTEBOOK_EVERY", 0.0)
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    with progress.open_display() as bar:
        assert isinstance(bar, progress._NotebookBar)
        for record in records():
            bar(record)
    assert '<progress value="1" max="6">' in shown[0]
    assert '<progress value="6" max="6">' in shown[-2]
    assert shown[-1] == ""
    assert "epoch 2/2" in capsys.readouterr().out


def test_ipython_at_a_terminal_is_no_notebook_and_nobody_imports_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))
    assert not isinstance(progress.open_display(), progress._NotebookBar)
    code = "import sys; from resnets.runs.progress import open_display; open_display()"
    code += "; assert 'IPython' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_estimate_knows_a_slow_first_step_and_the_pauses_of_epochs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four epochs of four steps: the first step takes 10 s, others 1 s, each validation 5 s."""
    clock = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock)
    recipe = Recipe(epochs=4, progressive_resizing_scale=1.0)
    with progress._PlainLines() as display:
        display(Plan(0, 4, recipe, NotImplemented))
        left = []
        for step in range(1, 17):
            seconds = 10.0 if step == 1 else 1.0
            clock += seconds
            display(Step(1 + (step - 1) // 4, step, 16, seconds, 0.0))
            left.append(display.pace.left)
            if step % 4 == 0:
                clock += 5.0
                display(Epoch(step // 4, step, HALF, HALF, True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/s  ")[2] for line in lines] == [
        *(f"{epochs * (4 * 1 + 5)} s left" for epochs in (3, 2, 1, 0))
    ]
    assert left[1:3] == ["14 s", "13 s"]


def test_a_fit_in_one_step_is_told_by_its_epoch_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_EVERY", -1.0)
    with progress._PlainLines() as display:
        for record in records(epochs=1, steps=1):
            display(record)
    assert "step" not in capsys.readouterr().out


def test_a_run_that_goes_on_with_a_validation_has_no_speed_yet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress._PlainLines() as display:
        for record in records():
            if not isinstance(record, Step | Interval):
                display(record)
    printed = capsys.readouterr().out
    assert "validation loss" in printed
    assert "images/s" not in printed
    assert "left" not in printed
