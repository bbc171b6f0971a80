"""Callbacks see what the screen sees, and can stop a run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resnets
from resnets.errors import ContentError
from resnets.runs.checkpoint import Checkpoints
from tests.spread import spread

QUICK: dict[str, Any] = {
    **{"network": "resnet14", "image_size": 8, "epochs": 3, "batch_size": 16, "report": False},
    **{"progress": False, "log_every": 2},
}
NOISE = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
DATA = (NOISE, np.arange(60) % 2)


def test_callbacks_get_every_record_in_order_and_the_end_last() -> None:
    seen: list[Any] = []
    run = resnets.train(DATA, output=False, callbacks=[seen.append, lambda _: True], **QUICK)
    kinds = [type(record) for record in seen]
    assert set(kinds) == {
        *(resnets.Notice, resnets.Plan, resnets.Step, resnets.Interval),
        *(resnets.Validating, resnets.Epoch, resnets.End),
    }
    (plan,) = (record for record in seen if isinstance(record, resnets.Plan))
    steps = [record.step for record in seen if isinstance(record, resnets.Step)]
    assert steps == list(range(1, plan.steps + 1))
    assert kinds.count(resnets.Epoch) == plan.epochs == 3
    assert kinds.index(resnets.Plan) < kinds.index(resnets.Step)
    end = seen[-1]
    assert (end.metrics, end.step, end.path, end.stopped) == (run.metrics, steps[-1], None, None)


def test_stop_training_ends_the_run_as_if_it_were_over(tmp_path: Path) -> None:
    def enough(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == 5:
            raise resnets.StopTraining("five steps are enough")

    run = resnets.train(DATA, output=tmp_path / "run", callbacks=[enough], **QUICK)
    assert run.stopped == "five steps are enough"
    assert run.history.finished
    assert run.history[-1]["step"] == 5
    assert run.metrics["test_loss"] > 0
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("kind", "step"),
    spread([(resnets.Step, 4), (resnets.Interval, 4), (resnets.Validating, 6)]),
)
def test_an_exception_in_a_callback_is_passed_on_once_the_state_is_saved(
    tmp_path: Path, kind: type, step: int
) -> None:
    def fail(record: Any) -> None:
        if isinstance(record, kind) and record.step == step:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        resnets.train(DATA, output=tmp_path / "run", callbacks=[fail], **QUICK)
    loaded = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert loaded is not None
    assert loaded[0]["trainer"]["done"][1] == step
    unbroken = resnets.train(DATA, output=False, **QUICK)
    seen: list[Any] = []
    resumed = resnets.resume(tmp_path / "run", data=DATA, progress=False, callbacks=[seen.append])
    notices = [record.text for record in seen if isinstance(record, resnets.Notice)]
    assert not [text for text in notices if "finished" in text]
    assert resumed.metrics == unbroken.metrics


def test_who_stops_a_run_by_what_it_shows_has_chosen_among_its_epochs() -> None:
    def enough(record: Any) -> None:
        if isinstance(record, resnets.Epoch) and record.epoch == 2:
            raise resnets.StopTraining

    stopped = resnets.train(DATA, output=False, callbacks=[enough], **QUICK)
    whole = resnets.train(DATA, output=False, **(QUICK | {"epochs": 2}))
    candidates = [run.description.calibration["candidates"] for run in (stopped, whole)]
    assert candidates == [2, 1]


def test_an_exception_before_the_first_step_and_at_the_end_is_passed_on(tmp_path: Path) -> None:
    for kind in (resnets.Notice, resnets.End):

        def fail(record: Any, kind: type = kind) -> None:
            if isinstance(record, kind):
                raise ZeroDivisionError(kind.__name__)

        with pytest.raises(ZeroDivisionError, match=kind.__name__):
            resnets.train(DATA, output=False, callbacks=[fail], **(QUICK | {"epochs": 1}))


def test_the_network_of_an_epoch_without_validation_is_ready_to_be_measured() -> None:
    """Its statistics of batch norms are those that a validation would have given it."""
    models: dict[int, Any] = {}

    def keep(every: int) -> Any:
        def note(record: Any) -> None:
            if isinstance(record, resnets.Plan):
                models[0] = record.model
            elif isinstance(record, resnets.Epoch) and record.epoch == 1:
                models[every] = models[0]().network.state_dict()

        return note

    for every in (1, 3):
        changes = QUICK | {"validation_every": every}
        resnets.train(DATA, output=False, callbacks=[keep(every)], **changes)
    assert models[1].keys() == models[3].keys()
    for name, value in models[1].items():
        assert np.array_equal(value, models[3][name]), name


def test_a_run_that_goes_on_with_images_in_another_order_says_so(
    tmp_path: Path, draw_noise: Any
) -> None:
    def enough(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == 5:
            raise ZeroDivisionError

    root = tmp_path / "photos"
    for number in range(40):
        draw_noise(root / "ab"[number % 2] / f"{number:02}.png", seed=number)
    with pytest.raises(ZeroDivisionError):
        resnets.train(root, output=tmp_path / "run", callbacks=[enough], **QUICK)
    other = tmp_path / "renamed"
    for path in root.rglob("*.png"):
        name = f"{99 - int(path.stem)}.png"
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        (other / path.parent.name / name).write_bytes(path.read_bytes())
    for data, is_other in ((root, False), (other, True)):
        seen: list[Any] = []
        run = shutil.copytree(tmp_path / "run", tmp_path / f"run-{is_other}")
        resnets.resume(run, data=data, progress=False, callbacks=[seen.append])
        notices = [record.text for record in seen if isinstance(record, resnets.Notice)]
        assert any("another order" in text for text in notices) == is_other


def test_where_an_image_is_damaged_meanwhile_the_steps_before_are_saved(
    tmp_path: Path, draw_noise: Any
) -> None:
    """And go on, once it is repaired, as if nothing had been."""
    for number in range(60):
        draw_noise(tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.png", seed=number)
    data, run = tmp_path / "photos", tmp_path / "run"
    changes = QUICK | {"memory_gb": 0, "workers": 0}
    files = {path: path.read_bytes() for path in data.rglob("*.png")}
    whole = resnets.train(data, output=False, **changes)

    def damage(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == 3:
            for path, content in files.items():
                path.write_bytes(content[:100])

    with pytest.raises(ContentError, match="cannot be read"):
        resnets.train(data, output=run, checkpoint_every="1h", callbacks=[damage], **changes)
    for path, content in files.items():
        path.write_bytes(content)
    loaded = Checkpoints(run / "checkpoints").newest()
    assert loaded is not None
    assert loaded[0]["trainer"]["done"][1] >= 3
    resumed = resnets.resume(run, progress=False)
    assert resumed.metrics == whole.metrics
    for name, value in resumed.model.network.state_dict().items():
        assert np.array_equal(value, whole.model.network.state_dict()[name]), name
