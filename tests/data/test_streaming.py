import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.data import processes
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.augmentation.draws import Draws
from resnets.data.batches import TrainingBatches, _Streamed, evaluation_batches
from resnets.data.labelled import LabelledImages
from resnets.data.storage import FileStorage
from resnets.data.streaming import Reader, Workers, _Pending
from resnets.errors import ContentError
from resnets.images import Preprocessing
from resnets.training.recipe import Recipe

SMALL = Preprocessing(size=16, resize=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
CROPS = Augmentation(smallest_crop=0.08, flip="random", erase=0.5, mixup=0.2, cutmix=1.0)


def files(folder: Path, count: int) -> LabelledImages:
    """JPEG and PNG files of many sizes."""
    random = np.random.default_rng(0)
    names = []
    for number in range(count):
        height, width = random.integers(20, 120, 2)
        small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        names.append(f"{number}.{'jpg' if number % 2 else 'png'}")
        image.save(folder / names[-1])
    return LabelledImages(FileStorage(folder, names), np.arange(count) % 3, ["a", "b", "c"])


def test_windows_gets_no_more_workers_than_it_can_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader.of(files(tmp_path, 1), SMALL)
    assert Workers(reader, 100).count == 100
    monkeypatch.setattr("sys.platform", "win32")  # where a pool refuses more than 61
    counts = [Workers(reader, count).count for count in (0, 8, 100)]
    for count in counts[1:]:
        ProcessPoolExecutor(count).shutdown()  # the witness: by the platform's name, it refuses 62
    assert counts == [0, 8, 61]


def streamed(images: LabelledImages, workers: int, batch_size: int = 12) -> TrainingBatches:
    return TrainingBatches(
        images, SMALL, CROPS, batch_size=batch_size, workers=workers, memory_limit=0
    )


def test_any_number_of_workers_gives_the_same_and_they_stay_for_the_next_epoch(
    tmp_path: Path,
) -> None:
    images = files(tmp_path, 40)
    alone = streamed(images, 0)
    assert not alone.in_memory
    others = set(multiprocessing.active_children())  # of other tests
    for workers in (1, 2):
        batches = streamed(images, workers)
        processes = []
        for epoch, step in [(0, 0), (1, 0), (1, 2)]:
            expected = alone.epoch(epoch, step)
            for one, other in zip(batches.epoch(epoch, step), expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
            processes.append(set(multiprocessing.active_children()) - others)
        assert processes[0] == processes[1] == processes[2]
        del batches
    deadline = time.monotonic() + 300
    while set(multiprocessing.active_children()) - others and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(multiprocessing.active_children()) - others  # they end with the batches


def test_batches_that_are_held_keep_their_pixels(tmp_path: Path) -> None:
    """Memory that is shared with the workers is used again only once nobody holds it."""
    images = files(tmp_path, 60)
    source = streamed(images, 2, batch_size=4).source
    plan = [Draws(0, 0, 60, np.arange(start, start + 5)) for start in range(50)]
    expected = [pixels.numpy().copy() for pixels in streamed(images, 0).source.batches(plan)]
    held = list(source.batches(plan))  # more than there are slots
    rows = [pixels[1:].view(-1)[None] for pixels in source.batches(plan)]  # views hold them, too
    for pixels, row, right in zip(held, rows, expected, strict=True):
        np.testing.assert_array_equal(pixels, right)
        np.testing.assert_array_equal(row[0], right[1:].ravel())


def test_memory_that_nobody_holds_is_used_again(tmp_path: Path) -> None:
    workers = streamed(files(tmp_path, 60), 1).source.workers
    plan = [Draws(0, 0, 60, np.arange(start, start + 20)) for start in range(30)]
    addresses = {pixels.data_ptr() for pixels in workers.batches(plan)}
    slots = len(workers.slots.memory)
    assert 0 < len(addresses) <= slots < len(plan)
    assert sorted(workers.slots.free) == list(range(slots))
    next(iter(workers.batches(plan)))  # and left in the middle
    assert sorted(workers.slots.free) == list(range(slots))


def test_after_an_image_that_cannot_be_read_the_shared_memory_is_sound(tmp_path: Path) -> None:
    """Other parts of the same batch may still be written when the error comes."""
    images = files(tmp_path, 60)
    plan = [Draws(0, 0, 60, np.arange(60)) for _ in range(4)]
    expected = list(streamed(images, 0).source.batches(plan))
    workers = streamed(images, 2).source.workers
    whole = (tmp_path / "1.jpg").read_bytes()
    for _ in range(3):
        (tmp_path / "1.jpg").write_bytes(b"not an image")
        with pytest.raises(ContentError, match=r"1\.jpg"):
            list(workers.batches(plan))
        (tmp_path / "1.jpg").write_bytes(whole)
        batches = list(workers.batches(plan))
        assert all(torch.equal(one, other) for one, other in zip(batches, expected, strict=True))
        del batches
    gc.collect()  # an error and what raised it hold each other
    assert sorted(workers.slots.free) == list(range(len(workers.slots.memory)))


def test_a_batch_is_given_up_only_once_nobody_writes_to_it() -> None:
    started, may_end = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: started.set() or may_end.wait(300))
        started.wait(300)
        threading.Timer(0.2, may_end.set).start()
        _Pending([running, pool.submit(int)], None).cancel()
        assert running.done()


def test_without_shared_memory_and_for_larger_batches_pixels_come_by_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker allows 64 MB of it unless it is told otherwise; torch raises RuntimeError."""
    images = files(tmp_path, 40)
    plan = [Draws(0, 0, 40, np.arange(count)) for count in (5, 33, 40)]
    expected = list(streamed(images, 0).source.batches(plan))
    larger = streamed(images, 1).source.batches(plan)

    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file")

    first = next(larger)  # whose memory is for batches of 5
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    for batches in ([first, *larger], list(streamed(images, 1).source.batches(plan))):
        assert all(torch.equal(one, other) for one, other in zip(batches, expected, strict=True))


@pytest.mark.slow
def test_workers_that_are_spawned_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they start on Windows."""
    images = files(tmp_path, 24)
    monkeypatch.setattr(processes, "_METHOD", "spawn")
    for one, other in zip(streamed(images, 1).epoch(0), streamed(images, 0).epoch(0), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_epoch_left_in_the_middle_does_not_disturb_the_next(tmp_path: Path) -> None:
    images = files(tmp_path, 60)
    batches = streamed(images, 1)
    left = list(islice(batches.epoch(0), 2))
    crossing = zip(batches.epoch(0), batches.epoch(1), strict=True)
    for step, (first, second) in enumerate(crossing):
        for batch, epoch in [(first, 0), (second, 1)]:
            expected = next(streamed(images, 0).epoch(epoch, step))
            assert torch.equal(batch.images, expected.images)
        if step < len(left):
            assert torch.equal(first.images, left[step].images)


def test_evaluation_streams_the_same_as_it_holds(tmp_path: Path) -> None:
    images = files(tmp_path, 30)
    held = list(evaluation_batches(images, SMALL, 7))
    stream = list(evaluation_batches(images, SMALL, 7, workers=0, memory_limit=0))
    assert [len(batch.images) for batch in held] == [7, 7, 7, 7, 2]
    for one, other in zip(held, stream, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    images = files(tmp_path, 24)
    (tmp_path / "17.jpg").write_bytes(b"not an image")
    with pytest.raises(ContentError, match=r"^17\.jpg: .*--skip-unreadable") as caught:
        list(streamed(images, workers).epoch(0))
    assert "\n" not in str(caught.value)
    with pytest.raises(ContentError, match=r"^17\.jpg: "):
        evaluation_batches(images, SMALL)


def test_a_worker_that_dies_is_said_and_replaced(tmp_path: Path) -> None:
    images = files(tmp_path, 60)
    batches = streamed(images, 1)
    others = multiprocessing.active_children()  # of other tests
    epoch = batches.epoch(0)
    next(epoch)
    (worker,) = (child for child in multiprocessing.active_children() if child not in others)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"reads images died .* --workers 0"):
        list(epoch)
    assert len(list(batches.epoch(0))) == 5


@pytest.mark.parametrize(("workers", "count"), [(None, 3), (0, 0), (2, 2)])
def test_a_recipes_workers_are_the_loaders(
    workers: int | None, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 3)
    recipe = Recipe.from_toml(Recipe(workers=workers).to_toml())
    images = files(tmp_path, 5)
    batches = TrainingBatches(
        images, SMALL, CROPS, batch_size=2, workers=recipe.workers, memory_limit=0
    )
    held = evaluation_batches(images, SMALL, workers=recipe.workers, memory_limit=0)
    for source in (batches.source, held.source):
        assert isinstance(source, _Streamed)
        assert source.workers.count == count


PROGRAM = """
import multiprocessing, signal, sys, time
from pathlib import Path
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import TrainingBatches
from resnets.data.labelled import LabelledImages
from resnets.data.storage import FileStorage
from resnets.data.streaming import _Pending
from resnets.images import Preprocessing

stopped = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: stopped.append(number))
folder = Path(sys.argv[1])
paths = sorted(path.name for path in folder.iterdir())
images = LabelledImages(FileStorage(folder, paths), [0] * len(paths), ["a"])
batches = TrainingBatches(
    images, Preprocessing(16, 20, (0.5,) * 3, (0.2,) * 3), Augmentation(smallest_crop=0.1),
    batch_size=2, workers=2, memory_limit=0,
)
epoch = 0
while len(stopped) < 2:
    for step, batch in enumerate(batches.epoch(epoch)):
        if epoch == step == 0:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    epoch += 1
time.sleep(1)  # for the death of a process to be noticed
list(batches.epoch(epoch))
print("finished", sorted(stopped), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Callable[[], tuple[subprocess.Popen[str], list[int]]]:
    """Starts a process of its own group that goes over batches; with the ids of its workers."""
    files(tmp_path, 20)
    started = []

    def start() -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, [int(word) for word in process.stdout.readline().split()]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_a_main_process_that_is_killed(program: Callable) -> None:
    process, workers = program()
    assert len(workers) == 2
    assert all(map(running, workers))
    process.kill()
    deadline = time.monotonic() + 300
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to a group of processes")
def test_signals_to_the_whole_group_leave_the_work_to_the_main_process(program: Callable) -> None:
    process, workers = program()
    while not all(os.getpgid(worker) == worker for worker in workers):
        time.sleep(0.05)  # one of them is still starting
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(process.pid, number)
        time.sleep(0.3)
    output, _ = process.communicate(timeout=300)
    assert output == f"finished {[signal.SIGINT.value, signal.SIGTERM.value]}\n"
    assert process.returncode == 0
