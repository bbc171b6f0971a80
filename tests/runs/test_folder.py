import os
import shlex
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from resnets.errors import UsageError
from resnets.runs.folder import (
    _MADE_BY_A_RUN,
    _make_fresh_folder,
    as_launched,
    existing_run,
    how_to_continue,
    new_run,
    refuse,
)

HOLDER = """
import os, sys, time
from pathlib import Path
from resnets.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
os.fork()
os.write(1, b"held\\n")
time.sleep(300)
"""


def finished_run(path: Path) -> None:
    folder = new_run(path, "resnet14")
    folder.write_config("data = 'digits'\n")
    folder.log.write_text("{}\n", encoding="utf-8")
    folder.model.write_bytes(b"weights")
    folder.checkpoints.save({"step": 3}, 3)
    folder.close()


def test_fresh_folders_never_collide(tmp_path: Path) -> None:
    paths = [_make_fresh_folder(tmp_path / "runs", "resnet14") for _ in range(3)]
    assert [path.name.rsplit("-", 1)[1] for path in paths] == ["1", "2", "3"]
    assert len({path.name.rsplit("-", 1)[0] for path in paths}) == 1


def test_a_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"--resume .*--overwrite"):
        new_run(tmp_path / "run", "resnet14")
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == b"weights"


def test_overwriting_takes_away_what_the_run_made_and_nothing_else(tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    for stale in ("model.onnx", "model.xml", "model.bin"):  # of the network that goes
        (tmp_path / "run" / stale).write_bytes(b"exported")
    new_run(tmp_path / "run", "resnet14", overwrite=True).close()
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"notes.txt", ".lock"}
    assert not left & set(_MADE_BY_A_RUN)


def test_a_run_never_replaces_the_run_that_it_starts_from(tmp_path: Path) -> None:
    for name in ("old", "other"):
        new_run(tmp_path / name, "resnet14").close()
        (tmp_path / name / "config.toml").touch()
    (tmp_path / "link").symlink_to("old")
    for start in ("old", "link", "old/model.safetensors", "link/checkpoints/1"):
        with pytest.raises(UsageError, match="input"):
            refuse(tmp_path / "old", overwrite=True, start=str(tmp_path / start))
    refuse(tmp_path / "old", overwrite=True, start=str(tmp_path / "other"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(UsageError, match="not from a run"):
        new_run(tmp_path, "resnet14", overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="not a folder"):
        refuse(tmp_path / "file", overwrite=True)


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    new_run(tmp_path, "resnet14").close()


def test_only_a_run_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        existing_run(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_two_processes_cannot_have_one_run_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    """The holder has a child that outlives it, as a worker that reads images may."""
    finished_run(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        assert holder.stdout is not None
        assert [holder.stdout.readline() for _ in range(2)] == ["held\n"] * 2
        try:
            with pytest.raises(UsageError, match="in use by another process"):
                existing_run(tmp_path)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            existing_run(tmp_path).close()
        finally:
            os.killpg(holder.pid, signal.SIGKILL)


def test_a_run_is_locked_as_windows_locks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what msvcrt.locking does: it raises PermissionError where another process has a byte."""
    locked: list[int] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        if locked:
            raise PermissionError(13, "Permission denied")
        locked.append(descriptor)

    finished_run(tmp_path)
    windows = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setattr(sys, "platform", "win32")
    run = existing_run(tmp_path)
    with pytest.raises(UsageError, match="in use by another process"):
        existing_run(tmp_path)
    run.close()
    locked.clear()
    existing_run(tmp_path).close()


def test_a_run_goes_on_by_the_launcher_that_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint is a command of a shell, which has paths with spaces as one word."""
    for name in ("TORCHELASTIC_RUN_ID", "RESNETS_REFUSED"):
        monkeypatch.delenv(name, raising=False)
    resume = ["resnets", "train", "--resume", str(tmp_path / "a run")]
    train, folds = "resnets train 'my photos' --epochs 9", "resnets train photos --folds 5"

    def words() -> list[str]:
        return shlex.split(how_to_continue(tmp_path / "a run").removeprefix("To continue: "))

    assert words() == resume
    assert as_launched(train) == train
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert words() == ["torchrun", "--nproc-per-node", "2", "-m", *resume]
    assert as_launched(train) == f"torchrun --nproc-per-node 2 -m {train}"
    for alone in (folds, "resnets doctor photos", ""):  # which several processes cannot share
        assert as_launched(alone) == alone
    monkeypatch.setenv("GROUP_WORLD_SIZE", "3")
    assert "torchrun --nnodes 3 --nproc-per-node 2" in how_to_continue(tmp_path)
    monkeypatch.setenv("RESNETS_REFUSED", "x")  # by a job, which knows how
    assert "start the same job again" in how_to_continue(tmp_path)
