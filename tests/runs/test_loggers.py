import importlib.util
import json
from pathlib import Path

import pytest

from resnets.errors import MissingExtra
from resnets.runs.loggers import JsonLines, _TensorBoard, open_loggers

RECORD = {
    "kind": "epoch",
    "epoch": 3,
    "step": 7,
    "training": {"loss": 0.5, "images": 32},
    "best": True,
}


def test_each_record_is_a_line_on_the_disk_when_write_returns(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    lines.write(RECORD)
    lines.write({"kind": "end", "step": 9})
    text = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["kind"] for line in text.splitlines()] == ["epoch", "end"]
    assert lines.size() == len(text)
    lines.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_log_for_which_there_is_no_room_is_named(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    with lines.file, Path("/dev/full").open("ab", buffering=0) as full:
        lines.file = full  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space") as error:
            lines.write(RECORD)
    assert error.value.filename == str(tmp_path / "log.jsonl")


def test_a_log_is_cut_back_to_what_a_state_has_seen(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    lines.write({"step": 1})
    seen = lines.size()
    lines.write({"step": 2})
    lines.close()
    again = JsonLines(tmp_path / "log.jsonl", seen)
    again.write({"step": 3})
    again.close()
    text = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 3]


def test_a_figure_that_is_no_number_is_written_as_null(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    lines.write({"loss": float("nan"), "step": 1})
    lines.close()
    assert json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8")) == {
        "loss": None,
        "step": 1,
    }


def test_tensorboard_reads_the_figures_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = _TensorBoard(tmp_path, 0)
    logger.write(RECORD)
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"training/loss", "epoch"}
    (event,) = events.Scalars("training/loss")
    assert (event.step, event.value) == (7, 0.5)


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_says_how_to_get_it(tmp_path: Path, service: str) -> None:
    if importlib.util.find_spec(service):
        pytest.skip(f"{service} is installed here")
    with pytest.raises(MissingExtra, match=rf'pip install "\.\[{service}\]"'):
        open_loggers(tmp_path, (service,), 0, {})  # type: ignore[arg-type]


def test_a_service_that_refuses_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing-like-this://here")
    with pytest.raises(ConnectionError, match="cannot log to mlflow: "):
        open_loggers(tmp_path, ("mlflow",), 0, {})
