"""Logs of runs, and what they come to."""

import json
import re
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import ContentError
from resnets.evaluation.history import History
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.report.curves import Curve, save
from resnets.runs.experiments import Row
from resnets.runs.reproduction import Comparison

ROW = Row("resnet20", 20, 8.75)


def lines(right: int = 90, of: int = 100, epochs: int = 3, test: bool = False) -> list[Any]:
    """A log of four steps of 8 images in each epoch."""
    records: list[Any] = [{"kind": "start", "step": 0, "steps": 4 * epochs}]
    for epoch in range(1, epochs + 1):
        training = {"correct": 8 * epoch, "images": 32, "loss": 1.0, "accuracy": epoch / 4}
        record = {"kind": "epoch", "epoch": epoch, "step": 4 * epoch, "training": training}
        record |= {"seconds": 1.5 * epoch, "images_per_second": 10.0 * epoch}
        record |= {"test": {"accuracy": epoch / 5}} if test else {}
        records.append(record)
    return [*records, {"kind": "end", "step": 4 * epochs, "test": {"top1": score(right, of)}}]


def score(right: int, of: int) -> dict[str, int]:
    return {"count": right, "total": of}


def history(path: Path, records: list[Any]) -> History:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return History.read(path)


def test_a_log_tells_what_the_run_took_and_came_to(tmp_path: Path) -> None:
    run = history(tmp_path / "log", lines())
    assert run.finished
    assert (run.step, run.images, run.seconds) == (12, 96, 4.5)
    assert run.images_per_second == pytest.approx(96 / (32 / 10 + 32 / 20 + 32 / 30))
    assert run.test == Proportion(90, 100)


def test_a_run_that_was_resumed_is_finished_by_its_last_line(tmp_path: Path) -> None:
    run = history(tmp_path / "log", [*lines(), {"kind": "resume", "step": 12}])
    assert not run.finished
    with pytest.raises(ContentError, match="has not finished"):
        _ = run.test


@given(cut=st.integers(1, 200))
def test_a_log_cut_off_in_writing_tells_all_before_the_cut(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("logs") / "log"
    whole = history(path, lines())
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    run = History.read(path)
    assert run.records == whole.records[: len(run.records)]
    assert len(run.records) >= content[:-cut].count(b"\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin"),
        (b'{"kind": "epoch"}\n', "does not begin"),
        (b'{"kind": "start"}\nnonsense\n{"kind": "end"}\n', "line 2 is not a record"),
        (b"[1]\n[2]\n", "line 1 is not a record"),
        (b"\xff\xfe", "not a run's log"),
    ],
)
def test_what_is_no_log_is_refused_in_words(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(ContentError, match=message):
        History.read(tmp_path / "log")


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="no such log"):
        History.read(tmp_path / "none")


def test_a_row_has_the_mean_and_the_deviation_of_its_seeds(tmp_path: Path) -> None:
    right = {0: 9125, 1: 9150, 3: 9040}
    runs = {
        seed: history(tmp_path / f"{seed}", lines(count, 10_000)) for seed, count in right.items()
    }
    comparison = Comparison(ROW, runs)
    errors = [8.75, 8.5, 9.6]
    assert comparison.errors == pytest.approx(errors)
    assert comparison.mean == pytest.approx(statistics.mean(errors))
    assert comparison.deviation == pytest.approx(statistics.stdev(errors))
    assert comparison.training == pytest.approx(25)
    assert comparison.in_words() == "8.95 ± 0.58"
    json.dumps(comparison.to_dict())


def test_one_seed_has_no_deviation_and_none_was_not_run(tmp_path: Path) -> None:
    one = Comparison(ROW, {0: history(tmp_path / "log", lines(9125, 10_000))})
    assert (one.in_words(), one.deviation) == ("8.75", None)
    none = Comparison(ROW, {})
    assert (none.in_words(), none.mean, none.training) == ("not run", None, None)


def test_a_curve_is_the_errors_of_the_logs_epochs(tmp_path: Path) -> None:
    curve = Curve.of("20 layers", history(tmp_path / "log", lines(test=True)))
    assert curve.steps == [4, 8, 12]
    assert curve.training == pytest.approx([75, 50, 25])
    assert curve.test == pytest.approx([80, 60, 40])
    assert Curve.of("", history(tmp_path / "other", lines())).test == []


def test_curves_are_drawn_as_svg_and_png_with_a_line_for_each(tmp_path: Path) -> None:
    plain = Curve("20 layers", [1, 2, 3], [90.0, 40, 20], [80.0, 50, 30])
    panels = {"plain": [plain], "residual": [plain, plain]}
    svg, png = save(panels, tmp_path / "curves", "errors")
    assert png.read_bytes().startswith(b"\x89PNG")
    root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    assert root.get("aria-label") == "errors"
    words = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}
    assert {"plain", "residual", "20 layers", "in training", "test", "steps"} <= words
    # two lines a run and panel, dashed in training; and one in each legend
    dashed = re.findall(r"stroke-dasharray", svg.read_text(encoding="utf-8"))
    assert len(dashed) == 3 + 2
    assert save(panels, tmp_path / "curves", "errors")[0].read_text(
        encoding="utf-8"
    ) == svg.read_text(encoding="utf-8")


def test_the_processes_are_those_of_the_last_beginning(tmp_path: Path) -> None:
    start, *rest = lines()
    several = [start | {"processes": 1}, {"kind": "resume", "processes": 8, "machines": 2}]
    assert history(tmp_path / "log", several + rest).processes == (4, 2)
    assert history(tmp_path / "log", several[:1] + rest).processes == (0, 1)
    assert history(tmp_path / "log", [start, *rest]).processes == (0, 1)
