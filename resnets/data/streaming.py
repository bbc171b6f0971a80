"""Decoding in worker processes, for sets that do not fit in memory.

A worker gets draws and sends pixels back; it knows no order and holds no state.
"""

import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

import numpy as np
import torch

from resnets.data.augmentation.crops import ResizedCrop
from resnets.data.augmentation.draws import Draws
from resnets.data.labelled import LabelledImages
from resnets.data.storage import Pixels
from resnets.errors import UsageError
from resnets.images import Preprocessing, decode_crop, from_pixels
from resnets.images.room import IN_USE
from resnets.images.vectorised import square
from resnets.machine import cores, settle_memory

PLATFORM = sys.platform
MOST_ON_WINDOWS = 61  # processes that a pool can wait for there: concurrent.futures says why
PART = 16  # images that a worker reads at a time
GROUP_SIGNALS = {signal.SIGTERM, signal.SIGINT}  # stop a run, whose main process then ends it


@dataclass(frozen=True)
class Reader:
    """Reads images at the size of the network: the middle, or a random resized crop."""

    images: LabelledImages
    preprocessing: Preprocessing
    crop: ResizedCrop | None

    @classmethod
    def of(
        cls, images: LabelledImages, preprocessing: Preprocessing, crop: ResizedCrop | None = None
    ) -> "Reader":
        """A reader for which white is what the preprocessing says."""
        return cls(images.with_white(preprocessing.white), preprocessing, crop)

    def read(self, draws: Draws) -> Pixels:
        """The images of some samples, (B, size, size, C) uint8.

        Raises:
            ContentError: one cannot be decoded; the message names it.
        """
        size, channels = self.preprocessing.size, self.preprocessing.channels
        batch = np.empty((len(draws), size, size, channels), dtype=np.uint8)
        for row, index in enumerate(draws.indices):
            with IN_USE:
                if self.crop is None:
                    image = self.images.image(int(index), channels)
                    batch[row] = self.preprocessing.pixels(image).transpose(1, 2, 0)
                    del image  # before the next is decoded
                else:
                    batch[row] = self.cropped(self.crop, draws.part(row, row + 1))
        return batch

    def cropped(self, crop: ResizedCrop, draws: Draws) -> Pixels:
        """A random resized crop of one image, (size, size, C) uint8."""
        index = int(draws.indices[0])
        size, channels = self.preprocessing.size, self.preprocessing.channels

        def box(height: int, width: int) -> list[int]:
            chosen: list[int] = crop.boxes(draws, np.array([[height, width]]))[0].tolist()
            return chosen

        data = self.images.encoded(index)
        if not isinstance(data, np.ndarray):
            white = self.images.white
            decode = partial(
                decode_crop, data, box, size, channels=channels, resample=square, white=white
            )
            return self.images.naming(index, decode)
        top, left, tall, wide = box(*data.shape[:2])
        return square(from_pixels(data, channels), (top, left, tall, wide), size)


def worker_count(workers: int | None = None, processes: int = 1, platform: str = PLATFORM) -> int:
    """How many worker processes read images for each of several training processes.

    Args:
        workers: as asked for. None: one per core, shared out among the training processes; 0:
            none, so that the training process reads them itself.
        processes: training processes on this machine.
        platform: as `sys.platform` says.

    Raises:
        UsageError: it is negative, or more than Windows allows.

    >>> worker_count(0), worker_count(3)
    (0, 3)
    """
    most = MOST_ON_WINDOWS if platform == "win32" else None
    if workers is None:
        share = max(1, cores() // processes)
        return share if most is None else min(share, most)
    if workers < 0:
        raise UsageError(f"workers is {workers}; it must be 0 (read in this process) or more")
    if most is not None and workers > most:
        raise UsageError(f"workers is {workers}; on Windows it must be from 0 to {most}")
    return workers


class Workers:
    """Processes that read images ahead of their use; they start on first use and end with this."""

    def __init__(self, reader: Reader, count: int) -> None:
        self.reader = reader
        self.count = count
        self.pool: ProcessPoolExecutor | None = None

    def batches(self, plan: Iterable[Draws]) -> Iterator[Pixels]:
        """The images of each draws of a plan, (B, size, size, C) uint8.

        Raises:
            ContentError: an image cannot be decoded; the message names it.
            ChildProcessError: a worker died.
        """
        if self.count == 0:
            yield from map(self.reader.read, plan)
            return
        waiting: deque[list[Future[Pixels]]] = deque()
        try:
            for draws in plan:
                waiting.append(self.submit(draws))
                if PART * sum(map(len, waiting)) > len(draws) + 2 * PART * self.count:
                    yield collect(waiting.popleft())
            while waiting:
                yield collect(waiting.popleft())
        except BrokenProcessPool:
            self.pool = None
            raise ChildProcessError(
                "a process that reads images died (was it killed for want of memory?): try fewer, "
                "or --workers 0 to read in the main process"
            ) from None
        finally:
            for future in (future for futures in waiting for future in futures):
                future.cancel()

    def submit(self, draws: Draws) -> list[Future[Pixels]]:
        """Start to read one batch, in parts."""
        if self.pool is None:
            initial = start_worker, (self.reader,)
            self.pool = ProcessPoolExecutor(self.count, process_context(), *initial)
            weakref.finalize(self, self.pool.shutdown, cancel_futures=True)
        parts = (draws.part(start, start + PART) for start in range(0, len(draws), PART))
        return [self.pool.submit(read_part, part) for part in parts]


def collect(futures: list[Future[Pixels]]) -> Pixels:
    """The parts of a batch, joined."""
    return np.concatenate([future.result() for future in futures])


def process_context() -> BaseContext:
    """How processes start: not by a copy of this one, whose threads may hold locks."""
    context: BaseContext = multiprocessing.get_context("spawn")
    if sys.platform != "win32":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # torch is imported once for all workers
        resource_tracker.ensure_running()  # else the forkserver starts it, and that lifts the mask
        before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            forkserver.ensure_running()  # it inherits the mask: its death would look like theirs
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


READER: list[Reader] = []  # of this process, if it is a worker


def start_worker(reader: Reader) -> None:
    """Become a worker: away from the terminal's Ctrl-C, and gone when the main process is."""
    if sys.platform != "win32":
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    settle_memory()
    READER.append(reader)
    torch.set_num_threads(1)
    threading.Thread(target=leave_with_parent, daemon=True).start()


def leave_with_parent() -> None:
    """Wait for the end of the main process, however it comes, and end this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def read_part(draws: Draws) -> Pixels:
    """What a worker does."""
    return READER[0].read(draws)
