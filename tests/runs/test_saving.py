"""States are written beside the training where it leaves a core, and every failure ends the run."""

import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resnets
from resnets.runs import active_run
from resnets.runs.checkpoint import Checkpoints

QUICK: dict[str, Any] = {
    **{"network": "resnet14", "image_size": 8, "epochs": 1, "batch_size": 4, "report": False},
    **{"progress": False, "checkpoint_every": "3"},
}
NOISE = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
DATA = (NOISE, np.arange(60) % 2)


@pytest.mark.parametrize(("cores", "meanwhile"), [(64, True), (1, False)])
def test_steps_go_on_while_a_state_is_written_where_a_core_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, meanwhile: bool
) -> None:
    """The disk is as slow as the next step; a training on all cores waits for it."""
    next_step, waited = threading.Event(), list[bool]()
    write = Checkpoints.write

    def slowly(self: Checkpoints, *words: Any) -> Path:
        if not waited:
            waited.append(next_step.wait(20 if meanwhile else 0.5))
        return write(self, *words)

    def see(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == 4:
            next_step.set()

    monkeypatch.setattr(Checkpoints, "write", slowly)
    monkeypatch.setattr(active_run, "cores", lambda: cores)
    run = resnets.train(DATA, output=tmp_path / "run", callbacks=[see], threads=1, **QUICK)
    assert waited == [meanwhile]
    loaded = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert loaded is not None
    state, damaged = loaded
    assert (state["trainer"]["done"][1], damaged) == (run.history[-1]["step"], [])


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_state_that_cannot_be_written_beside_the_training_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_the_end: bool
) -> None:
    fails_at, steps, write = [6], list[int](), Checkpoints.write

    def full(self: Checkpoints, content: memoryview, step: int, *words: Any) -> Path:
        if step == fails_at[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content, step, *words)

    def see(record: Any) -> None:
        if isinstance(record, resnets.Plan) and at_the_end:
            fails_at[0] = record.steps
        if isinstance(record, resnets.Step):
            steps.append(record.step)

    monkeypatch.setattr(Checkpoints, "write", full)
    monkeypatch.setattr(active_run, "cores", lambda: 64)
    with pytest.raises(OSError, match=r"could not be saved in .*No space") as error:
        resnets.train(DATA, output=tmp_path / "run", callbacks=[see], threads=1, **QUICK)
    assert f"the state of step {fails_at[0]} " in str(error.value)
    assert steps[-1] <= fails_at[0] + 3  # no later than where the next one is saved
    loaded = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert loaded is not None
    assert loaded[0]["trainer"]["done"][1] < fails_at[0]
