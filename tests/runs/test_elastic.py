"""Training that torchrun starts again goes on: the same batches, every image once an epoch."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnets.data.batches import ProcessRank
from resnets.errors import UsageError
from resnets.run_files import CONFIG
from resnets.runs import restarts
from resnets.runs.job import Job
from resnets.runs.restarts import begun_before, folder_again, identity_of
from tests.machines import RECORDING, environment, kept

IMAGES, BATCH = 1457, 47  # training images of digits: 31 whole batches, of odd size


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_the_first_process_is_killed_and_the_run_goes_on_by_itself(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(RECORDING, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    words = ["train", "digits", "--network", "resnet14", "--image-size", "8", "--epochs", "1"]
    words += ["--batch-size", str(BATCH), "--checkpoint-every", "5", "--no-report"]
    done = subprocess.run(
        [*torchrun, "--max-restarts=1", "--monitor-interval=0.1", "train.py", *words],
        cwd=tmp_path,
        env=environment(tmp_path, dies="0 at 12", slowly=0.05),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("*")  # the same, though the words name none
    steps = kept(tmp_path)
    assert {len(images) for images in steps.values()} == {BATCH}
    assert sorted(image for images in steps.values() for image in images) == [*range(IMAGES)]
    begun, again = (line for line in log_of(run) if line["kind"] in ("start", "resume"))
    assert (begun["step"], again["step"], again["processes"]) == (0, 10, 2)
    assert log_of(run)[-1]["step"] == IMAGES // BATCH
    assert "goes on after step 10 with 2 processes" in done.stdout + done.stderr
    (slowest,) = (line for line in log_of(run) if line["kind"] == "straggler")
    assert slowest["rank"] == 1
    assert slowest["others_waited"] > slowest["waited"]


ASKED = Job(data="digits", device="cuda")


def begin(folder: Path, launch: str | None) -> None:
    folder.mkdir(parents=True)
    identity = identity_of(ASKED, ProcessRank(launch=launch))
    chosen = replace(ASKED, keep=5, torchrun_id=identity)  # something that the run settled itself
    (folder / CONFIG).write_text(chosen.to_toml(), encoding="utf-8")


def test_only_the_run_that_this_torchrun_began_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(Path("runs", "a"), "7")
    begin(Path("runs", "b"), None)
    earlier_run = begun_before(ASKED, None, ProcessRank(launch="7"))
    assert earlier_run is not None
    assert (earlier_run[0], earlier_run[1].keep) == (Path("runs", "a"), 5)
    assert begun_before(ASKED, None, ProcessRank(launch="8")) is None
    assert begun_before(ASKED, None, ProcessRank()) is None
    assert begun_before(ASKED, Path("runs", "b"), ProcessRank(launch="7")) is None
    assert begun_before(ASKED, False, ProcessRank(launch="7")) is None


def test_another_training_with_the_same_id_of_torchrun_is_a_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(Path("runs", "a"), "7")
    process = ProcessRank(launch="7")
    assert begun_before(replace(ASKED, data="photos"), None, process) is None
    longer = replace(ASKED, recipe=replace(ASKED.recipe, epochs=7))
    assert begun_before(longer, Path("runs", "a"), process) is None


def test_a_damaged_run_beside_it_does_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (("a", b"\xff = ["), ("c", b"")):
        damaged = Path("runs", name, CONFIG)
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(content)
    assert begun_before(ASKED, None, ProcessRank(launch="7")) is None
    begin(Path("runs", "b"), "7")
    earlier_run = begun_before(ASKED, None, ProcessRank(launch="7"))
    assert earlier_run is not None
    assert earlier_run[0] == Path("runs", "b")


def test_a_run_that_goes_on_waits_for_who_is_about_to_leave_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", "7")
    waited: list[float] = []
    in_use = [UsageError("in use by another process")] * 2

    def existing(path: Path, keep: int) -> Any:
        if in_use:
            raise in_use.pop()
        return original(path, keep)

    original = restarts.existing_run
    monkeypatch.setattr(restarts, "existing_run", existing)
    monkeypatch.setattr(restarts.time, "sleep", waited.append)
    with ExitStack() as stack:
        assert folder_again(tmp_path / "run", 2, stack).path == tmp_path / "run"
    assert len(waited) == 2
    monkeypatch.setattr(restarts, "_PATIENCE", 0.0)
    in_use.append(UsageError("in use by another process"))
    with ExitStack() as stack, pytest.raises(UsageError, match="in use"):
        folder_again(tmp_path / "run", 2, stack)
