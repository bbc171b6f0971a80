import contextlib
import io
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnets.errors import ContentError
from resnets.runs import checkpoint
from resnets.runs.checkpoint import (
    Checkpoints,
    _digest,
    _step_of,
    random_state,
    read,
    set_random_state,
)
from tests.spread import spread

STATE = {"weights": torch.arange(1000.0), "done": [3, 12], "name": "ä", "none": None}


def state_of(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((10,), float(step))}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new folder")
    checkpoints.save(STATE, 12)
    loaded = checkpoints.newest()
    assert loaded is not None
    state, damaged = loaded
    assert torch.equal(state.pop("weights"), STATE["weights"])
    assert state == {"done": [3, 12], "name": "ä", "none": None}
    assert damaged == []


def test_nothing_saved_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None


def test_any_torch_reads_the_file_and_its_name_is_its_sha256(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(STATE, 12)
    assert torch.load(path, weights_only=True)["done"] == [3, 12]
    run = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    assert path.name == f"step-00000012-{run.stdout[:16]}.pt"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_newest_is_told_and_the_one_before_is_used(
    tmp_path: Path, data: st.DataObject
) -> None:
    shutil.rmtree(tmp_path)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(1), 1)
    newest = checkpoints.save(state_of(2), 2)
    content = bytearray(newest.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), label="cut off"):
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    newest.write_bytes(content)
    loaded = checkpoints.newest()
    assert loaded is not None
    state, damaged = loaded
    assert state["step"] == 1
    assert len(damaged) == 1
    assert newest.name in damaged[0]


def test_only_damaged_ones_are_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(1), 1).write_bytes(b"")
    with pytest.raises(ContentError, match="none is left to resume from"):
        checkpoints.newest()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keep=st.integers(1, 4),
    gaps=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    best=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_the_newest_and_the_best_are_never_removed(
    tmp_path: Path, keep: int, gaps: list[int], best: list[bool]
) -> None:
    shutil.rmtree(tmp_path)
    checkpoints, step, best_step, saved = Checkpoints(tmp_path, keep), 0, None, set()
    for number, gap in enumerate(gaps):
        step += gap  # a gap of 0 saves a step a second time
        best_step = step if best[number] else best_step
        checkpoints.save({"number": number}, step, best_step)
        saved.add(step)
        wanted = {*sorted(saved)[-keep:], *({best_step} if best_step is not None else ())}
        paths = checkpoints.paths()
        assert [_step_of(path) for path in paths] == sorted(wanted)
        assert read(paths[-1])["number"] == number


class Intruder:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize("write", [pickle.dump, torch.save], ids=["pickle", "torch"])
def test_code_in_a_file_is_not_run_even_under_a_right_name(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        write({"weights": Intruder()}, file)
    renamed = path.rename(tmp_path / f"step-00000001-{_digest(path.read_bytes())}.pt")
    with pytest.raises(ContentError, match="not a training state"):
        read(renamed)


def test_another_file_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match=re.escape("step-STEP-SHA256.pt")):
        read(tmp_path / "resnet50.pth")


SAVER = """
import sys, torch
from resnets.runs.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in range(1, 100_000):
    checkpoints.save({"step": step, "weights": torch.full((250_000,), float(step))}, step)
    print(step, flush=True)
"""


def test_a_disk_that_loses_what_was_written_is_noticed_before_the_older_states_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state_of(1), 1)

    @contextlib.contextmanager
    def losing(path: Path) -> Iterator[io.BytesIO]:
        buffer = io.BytesIO()
        yield buffer
        path.write_bytes(buffer.getvalue()[:-100] + bytes(100))

    monkeypatch.setattr(checkpoint, "replacing", losing)
    with pytest.raises(OSError, match="read back"):
        checkpoints.save(state_of(2), 2)
    loaded = checkpoints.newest()
    assert loaded is not None
    assert (loaded[0]["step"], loaded[1]) == (1, [])


def test_a_disk_that_fills_up_while_saving_costs_nothing_saved_before(tmp_path: Path) -> None:
    """The limit on the size of a file makes the system stop a write half-way."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_of(0), 0)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    run = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "File too large" in run.stderr
    loaded = checkpoints.newest()
    assert loaded is not None
    assert loaded[0]["step"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.paths()[0].name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", spread(range(3)))
def test_killed_while_saving_the_last_whole_state_is_found(tmp_path: Path, seed: int) -> None:
    checkpoints = Checkpoints(tmp_path)
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as saver:
        assert saver.stdout is not None
        saver.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, 0.1))
        saver.send_signal(signal.SIGKILL)
        saved_steps = [1, *map(int, saver.stdout.read().split())]
    checkpoints.clear_unfinished()
    loaded = checkpoints.newest()
    assert loaded is not None
    state, damaged = loaded
    assert damaged == []
    assert state["step"] >= saved_steps[-1]
    assert torch.equal(state["weights"], torch.full((250_000,), float(state["step"])))
    assert all(path in checkpoints.paths() for path in tmp_path.iterdir())


def draws() -> list[object]:
    return [
        [random.random() for _ in range(5)],
        random.gauss(),
        np.random.rand(5).tolist(),  # noqa: NPY002
        np.random.standard_normal(3).tolist(),  # noqa: NPY002
        torch.rand(5).tolist(),
        torch.randn(3).tolist(),
    ]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_every_generator_goes_on_from_a_state_that_was_on_disk(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    draws()
    file = io.BytesIO()
    torch.save(random_state(), file)
    expected = draws()
    draws()
    set_random_state(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert draws() == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("trainer"),
        lambda state: state.pop("log"),
        lambda state: state.update(fingerprint=None),
        lambda state: state.update(class_names=7),
        lambda state: state["trainer"].pop("optimizer"),
        lambda state: state["trainer"].update(done=[1]),
        lambda state: state["trainer"]["network"].popitem(),
        lambda state: state["architecture"].update(width=1 << 18),
        lambda state: state["architecture"].update(depths=[1000] * 8),
        lambda state: state["architecture"].update(block="no such"),
        lambda state: state.update(preprocessing={}),
        lambda state: state.update(random=[{"python": 1}]),
        lambda state: state.clear(),
    ],
)
def test_a_state_of_other_parts_is_refused_when_a_run_goes_on(
    damage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digest in its name is right, so that only its parts can tell."""
    from resnets.cli import main

    run = tmp_path / "run"
    shutil.copytree(Path(__file__).parents[1] / "fixtures/before_trust/stopped-digits", run)
    checkpoints = Checkpoints(run / "checkpoints")
    state = read(checkpoints.paths()[-1])
    for path in checkpoints.paths():
        path.unlink()
    damage(state)
    checkpoints.save(state, step=1)
    assert main(["train", "--resume", str(run)]) == 1
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    assert "should not happen" not in stderr
