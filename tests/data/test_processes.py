"""Worker processes: their number, the scripts that start them, and signals."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from resnets.data import processes
from resnets.data.processes import become_worker, process_context, worker_count
from resnets.errors import UsageError
from tests.spread import spread


def test_workers_are_one_per_core_shared_by_the_processes_unless_a_number_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 100)
    assert worker_count() == 100
    assert worker_count(processes=8) == 12
    assert worker_count(processes=1000) == 1
    assert [worker_count(number, 8) for number in (0, 1, 70)] == [0, 1, 70]
    assert [worker_count(None, 1, "win32"), worker_count(61, 1, "win32")] == [61, 61]
    with pytest.raises(UsageError, match=r"workers is 62; on Windows .* 61"):
        worker_count(62, 1, "win32")
    with pytest.raises(UsageError, match=r"workers is -1; it must be 0 .* or more"):
        worker_count(-1)


# A program of three lines, as people write it: with, and without a guard; with a class of its own.
SCRIPT = """
import sys
from pathlib import Path
from PIL import Image
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import TrainingBatches
from resnets.data.labelled import LabelledImages
from resnets.data.storage import FileStorage
from resnets.data import processes
from resnets.errors import UsageError
from resnets.images import Preprocessing

class Mine(FileStorage):
    pass

def work():
    folder = Path(sys.argv[1])
    storage = {storage}(folder, [f"{{number}}.png" for number in range(4)])
    images = LabelledImages(storage, [0, 1, 0, 1], ["a", "b"])
    batches = TrainingBatches(
        images, Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3), Augmentation(),
        batch_size=2, workers=2, memory_limit=0,
    )
    {spawn}
    print(len(list(batches.epoch(0))), "batches", flush=True)

print("imported", flush=True)
{call}
"""
SPAWN = """
    processes._METHOD = "spawn"
"""
GUARD = """
if __name__ == "__main__":
    work()
"""


def run_script(
    folder: Path, storage: str, call: str, spawn: str
) -> "subprocess.CompletedProcess[str]":
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(folder / f"{number}.png")
    script = folder / "script.py"
    script.write_text(SCRIPT.format(storage=storage, call=call, spawn=spawn), encoding="utf-8")
    command = [sys.executable, str(script), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "spawn"),
    spread([("work()", ""), ("work()", SPAWN), (GUARD, SPAWN)]),
    ids=["no guard", "no guard, spawn", "guard, spawn"],
)
def test_a_script_needs_no_guard(call: str, spawn: str, tmp_path: Path) -> None:
    done = run_script(tmp_path, "FileStorage", call, spawn)
    assert (done.stdout, done.stderr) == ("imported\n2 batches\n", "")


@pytest.mark.soak
def test_a_script_whose_classes_workers_need_is_told_of_the_guard(tmp_path: Path) -> None:
    done = run_script(tmp_path, "Mine", "work()", SPAWN)
    assert done.stdout == "imported\n"
    last = done.stderr.splitlines()[-1]
    assert "UsageError" in last
    assert 'if __name__ == "__main__":' in last
    guarded = run_script(tmp_path, "Mine", GUARD, SPAWN)
    assert "2 batches" in guarded.stdout.splitlines(), guarded.stderr


def test_classes_of_a_notebook_cannot_reach_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "Mine", type("Mine", (), {"__module__": "__main__"}), raising=False)
    monkeypatch.delattr(main, "__file__", raising=False)
    with pytest.raises(UsageError, match=r"notebook.*workers=0"):
        process_context("resnets", main.Mine())
    with pytest.raises(UsageError, match=r"cannot be sent.*workers=0"):
        process_context("resnets", lambda: 0)


def interrupted_worker(numbers: Queue) -> None:
    become_worker()
    signal.raise_signal(signal.SIGINT)  # as Windows sends it to every process of a console
    numbers.put(os.getpid())
    time.sleep(300)


@pytest.mark.parametrize("method", ["spawn", None], ids=["spawn", "as here"])
def test_a_worker_leaves_an_interrupt_to_the_main_process(method: str | None) -> None:
    context = process_context("resnets.data.processes", method=method)
    numbers = context.Queue()
    process = context.Process(target=interrupted_worker, args=(numbers,), daemon=True)
    process.start()
    try:
        assert numbers.get(timeout=300) == process.pid
    finally:
        process.kill()
        process.join()
