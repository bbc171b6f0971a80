"""Training that torchrun starts again goes on: the same batches, every image once an epoch."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resnets.data.batches import ProcessRank
from resnets.errors import FolderInUse, StillInUse
from resnets.run_files import CONFIG
from resnets.runs import restarts
from resnets.runs.job import Job
from resnets.runs.restarts import begun_before, folder_again, identity_of
from tests.machines import RECORDING, environment, kept, records
from tests.processes import several

IMAGES, BATCH = 1457, 50  # training images of digits: 30 batches of 48 or 49
WORDS = ["digits", "--network", "resnet14", "--image-size", "8", "--epochs", "1"]
WORDS += ["--batch-size", str(BATCH), "--checkpoint-every", "5", "--no-report"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.soak
def test_the_first_process_is_killed_and_the_run_goes_on_by_itself(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(RECORDING, encoding="utf-8")
    torchrun = [*TORCHRUN, "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.1"]
    done = subprocess.run(
        [*torchrun, "train.py", "train", *WORDS],
        cwd=tmp_path,
        env=environment(tmp_path, dies="0 at 12", slowly=0.05),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").glob("*")  # the same, though the words name none
    steps = kept(tmp_path)
    assert {len(images) for images in steps.values()} == {48, 49}
    assert sorted(image for images in steps.values() for image in images) == [*range(IMAGES)]
    begun, again = (line for line in log_of(run) if line["kind"] in ("start", "resume"))
    assert (begun["step"], again["step"], again["processes"]) == (0, 10, 2)
    assert log_of(run)[-1]["step"] == -(-IMAGES // BATCH)
    assert "goes on after step 10 with 2 processes" in done.stdout + done.stderr
    assert done.stderr.count("--resume runs/") == 1  # where torchrun could not start them again
    (slowest,) = (line for line in log_of(run) if line["kind"] == "straggler")
    assert slowest["rank"] == 1
    assert slowest["others_waited"] > slowest["waited"]


def by_torchrun(folder: Path, *words: str, dies: str) -> "subprocess.CompletedProcess[str]":
    """Three processes that torchrun does not start again."""
    (folder / "train.py").write_text(RECORDING, encoding="utf-8")
    return subprocess.run(
        [*TORCHRUN, "--nproc-per-node", "3", *words],
        cwd=folder,
        env=environment(folder, dies),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three processes."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    done = several("train", *WORDS, "--output", run, processes=3)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.soak
@pytest.mark.parametrize("rank", ["0", "2"])
def test_where_a_process_is_lost_one_of_the_others_says_how_to_continue(
    rank: str, unbroken: Path, tmp_path: Path
) -> None:
    words = ["train.py", "train", *WORDS, "--output", "a run"]
    done = by_torchrun(tmp_path, *words, dies=f"{rank} at 12")
    assert done.returncode == 1
    hints = [line for line in done.stderr.splitlines() if line.startswith("To continue: ")]
    reasons = [line for line in done.stderr.splitlines() if line.startswith("resnets train: ")]
    assert (len(hints), len(reasons)) == (1, 1)
    assert f"process {rank} on" in reasons[0]
    assert reasons[0].count("no sign of life") == 1
    assert reasons[0].endswith(hints[0])
    torchrun, *again = shlex.split(hints[0].removeprefix("To continue: "))
    assert torchrun == "torchrun"
    done = subprocess.run(
        [*TORCHRUN, *again], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert log_of(tmp_path / "a run")[-1]["test"] == log_of(unbroken)[-1]["test"]
    ours, theirs = (load_file(run / "model.safetensors") for run in (tmp_path / "a run", unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "stopped"])
def test_where_a_machine_goes_the_torchrun_of_the_other_says_how_to_continue(
    lost: bool, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(RECORDING, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        meet = ["--master-addr=127.0.0.1", f"--master-port={unused.getsockname()[1]}"]
    words = ["train.py", "train", *WORDS, "--output", "run"]
    machines = []
    for number in range(2):
        with (tmp_path / f"output of {number}").open("w") as output:
            one = [*TORCHRUN, "--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1", *meet]
            own = environment(tmp_path, slowly=0.1)
            machine = subprocess.Popen(
                [*one, *words], cwd=tmp_path, env=own, stdout=output, stderr=output
            )
            machines.append(machine)
    while not any(row["step"] >= 6 for row in records(tmp_path)):
        assert machines[0].poll() is None
        time.sleep(0.1)
    (first,) = {row["pid"] for row in records(tmp_path) if row["rank"] == 0}
    for pid in (machines[0].pid, first) if lost else (machines[0].pid,):
        os.kill(pid, signal.SIGKILL if lost else signal.SIGTERM)
    assert [machine.wait(120) for machine in machines] == [-signal.SIGKILL if lost else 1, 1]
    lines = (tmp_path / "output of 1").read_text("utf-8").splitlines()
    (hint,) = [line for line in lines if line.startswith("To continue: ")]
    assert "--nnodes 2 --nproc-per-node 1 -m resnets train --resume run" in hint
    begin = "resnets train: " if lost else "Stopped by SIGTERM "
    (reason,) = [line for line in lines if line.startswith(begin)]
    assert ("first machine" if lost else "after step") in reason


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
    in_use = [FolderInUse("in use by another process")] * 2

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
    in_use.append(FolderInUse("in use by another process"))
    with ExitStack() as stack, pytest.raises(StillInUse, match="in use"):
        folder_again(tmp_path / "run", 2, stack)
