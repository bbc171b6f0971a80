"""Decoding in worker processes, for sets that do not fit in memory.

A worker gets draws and writes pixels into memory shared with the main process; it has no state, so
the order of its work does not matter.
"""

import itertools
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnets.data.augmentation.crops import ResizedCrop
from resnets.data.augmentation.draws import Draws
from resnets.data.labelled import LabelledImages
from resnets.data.processes import become_worker, process_context
from resnets.data.storage import Pixels
from resnets.images import Preprocessing, decode_crop, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.vectorised import square

_WINDOWS_LIMIT = 61  # worker processes that a `ProcessPoolExecutor` can wait for there
_PART = 16  # images that a worker reads at a time
_PARTS_AHEAD = 2  # that are announced to each worker before it reads
_IN_USE_OUTSIDE = 2  # batches that the caller holds: one, and the next while it is transferred


@dataclass(frozen=True)
class Reader:
    """Reads images at the size of the network: the centre crop, or a random resized crop."""

    images: LabelledImages
    preprocessing: Preprocessing
    crop: ResizedCrop | None

    @classmethod
    def of(
        cls, images: LabelledImages, preprocessing: Preprocessing, crop: ResizedCrop | None = None
    ) -> "Reader":
        """A reader with the white level of the preprocessing."""
        return cls(images.with_white(preprocessing.white), preprocessing, crop)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of each image: (size, size, C)."""
        size = self.preprocessing.size
        return size, size, self.preprocessing.channels

    def read(self, draws: Draws, into: Pixels | None = None, *, announced: bool = False) -> Pixels:
        """The images of some samples, (B, size, size, C) uint8.

        Args:
            draws: of B samples.
            into: the array to write to, of the same shape; a new array by default.
            announced: whether `expect` was called for them.

        Raises:
            ContentError: an image cannot be decoded; the message names it.
        """
        channels = self.preprocessing.channels
        batch = np.empty((len(draws), *self.shape), dtype=np.uint8) if into is None else into
        if not announced:
            self.expect(draws)
        for row, index in enumerate(draws.indices):
            with IN_USE:
                if self.crop is None:
                    image = self.images.image(int(index), channels)
                    batch[row] = self.preprocessing.pixels(image).transpose(1, 2, 0)
                    del image  # before the next is decoded
                else:
                    batch[row] = self.cropped(self.crop, draws.part(row, row + 1))
        return batch

    def expect(self, draws: Draws) -> None:
        """Say that the images of some samples will be read soon: see `LabelledImages.expect`."""
        self.images.expect(draws.indices)

    def cropped(self, crop: ResizedCrop, draws: Draws) -> Pixels:
        """A random resized crop of one image, (size, size, C) uint8."""
        index = int(draws.indices[0])
        size, channels = self.preprocessing.size, self.preprocessing.channels

        def box(height: int, width: int) -> list[int]:
            chosen: list[int] = crop.boxes(draws, np.array([[height, width]]))[0].tolist()
            return chosen

        resample = partial(square, kernel=self.preprocessing.interpolation)
        data = self.images.encoded(index)
        if not isinstance(data, np.ndarray):
            white = self.images.white
            decode = partial(
                decode_crop, data, box, size, channels=channels, resample=resample, white=white
            )
            return self.images.naming(index, decode)
        top, left, tall, wide = box(*data.shape[:2])
        return resample(from_pixels(data, channels), (top, left, tall, wide), size)


class Slots:
    """Slots of shared memory, each for one batch.

    `lend` returns a slot and its array. The slot is free again once neither that array nor a
    tensor that shares its memory exists any more.
    """

    def __init__(self, memory: Tensor) -> None:
        """Divide memory, (slots, B, size, size, C) uint8, into slots."""
        self.memory = memory
        self.free = list(range(len(memory)))

    @classmethod
    def of(cls, count: int, images: int, shape: tuple[int, int, int]) -> "Slots":
        """Slots for a number of images of a shape; none if there is too little shared memory."""
        size = (count, images, *shape)
        try:
            return cls(torch.empty(size, dtype=torch.uint8).share_memory_())  # type: ignore[no-untyped-call]
        except RuntimeError:  # containers often allow no more than 64 MB
            return cls(torch.empty((0, *size[1:]), dtype=torch.uint8))

    def lend(self, images: int) -> "tuple[int, Pixels] | None":
        """A slot and its array for some images; None if no slot is free or they do not fit."""
        if not self.free or images > self.memory.shape[1]:
            return None
        slot = self.free.pop()
        pixels: Pixels = self.memory[slot, :images].numpy()
        weakref.finalize(pixels, self.free.append, slot).atexit = False
        return slot, pixels


class _Pending(NamedTuple):
    """A batch that workers are reading.

    Attributes:
        parts: the workers' results: None, or the pixels if there is no slot for them.
        pixels: the batch in shared memory, if it has a slot.
    """

    parts: list[Future[Pixels | None]]
    pixels: Pixels | None

    def result(self) -> Tensor:
        """The whole batch. Raises the exception of a worker."""
        results = [part.result() for part in self.parts]
        if self.pixels is not None:
            return torch.from_numpy(self.pixels)
        return torch.from_numpy(np.concatenate([part for part in results if part is not None]))

    def cancel(self) -> None:
        """Stop reading, and wait until no worker writes to the batch's memory any more."""
        wait([part for part in self.parts if not part.cancel()])


class Workers:
    """Processes that read images ahead; they start on first use and end with this object.

    Of a storage in a remote place, each worker is told early what it will read, so that it fetches
    the next images while it decodes others. For that each worker has a queue of its own, and the
    parts of the batches go to them by turns, each with what the same worker will read later.
    """

    def __init__(self, reader: Reader, count: int) -> None:
        self.reader = reader
        self.count = min(count, _WINDOWS_LIMIT) if sys.platform == "win32" else count
        self.pools: list[ProcessPoolExecutor] = []
        self.slots = Slots.of(0, 0, reader.shape)
        self.turns = itertools.count()  # of the parts of a plan
        self.coming: list[list[Draws]] = []  # for each pool, what was announced and not yet sent

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """The images for each element of a plan, (B, size, size, C) uint8.

        Raises:
            ContentError: an image cannot be decoded; the message names it.
            ChildProcessError: a worker died.
        """
        if self.count == 0:
            for draws in self.announced(plan):
                pixels = self.reader.read(draws, announced=self.reader.images.reads_ahead)
                yield torch.from_numpy(pixels)
            return
        waiting: deque[_Pending] = deque()
        self.turns = itertools.count()
        self.coming = [[] for _ in self.coming]
        try:
            for draws in self.announced(plan):
                waiting.append(self.submit(draws))
                parts = sum(len(pending.parts) for pending in waiting)
                if _PART * parts > _images_ahead(len(draws), self.count):
                    yield waiting[0].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0].result()
                waiting.popleft()
        except BrokenProcessPool:
            for pool in self.pools:
                pool.shutdown(wait=False, cancel_futures=True)
            self.pools = []
            raise ChildProcessError(
                "a process that reads images died (out of memory?): try fewer workers, or "
                "--workers 0 to read in the main process"
            ) from None
        finally:
            for pending in waiting:
                pending.cancel()

    def announced(self, plan: Iterable[Draws]) -> Iterator[Draws]:
        """The elements of a plan, each after those that follow it were announced to its readers."""
        if not self.reader.images.reads_ahead:
            yield from plan
            return
        coming: deque[Draws] = deque()
        turns = itertools.count()
        for draws in plan:
            self.announce(draws, turns)
            coming.append(draws)
            if sum(map(len, coming)) - len(coming[0]) >= _PART * _PARTS_AHEAD * max(1, self.count):
                yield coming.popleft()
        yield from coming

    def announce(self, draws: Draws, turns: Iterator[int]) -> None:
        """Tell the readers of a batch that they will read it soon."""
        if self.count == 0:
            self.reader.expect(draws)
            return
        pools = self.pools or self.start(len(draws))
        for start, turn in zip(range(0, len(draws), _PART), turns, strict=False):
            self.coming[turn % len(pools)].append(draws.part(start, start + _PART))

    def submit(self, draws: Draws) -> _Pending:
        """Start reading a batch, in parts."""
        pools = self.pools or self.start(len(draws))
        slot, pixels = self.slots.lend(len(draws)) or (None, None)
        parts = []
        for start in range(0, len(draws), _PART):
            number = next(self.turns) % len(pools)
            later, self.coming[number] = self.coming[number], []
            part = draws.part(start, start + _PART)
            parts.append(pools[number].submit(_read_part, part, slot, start, later))
        return _Pending(parts, pixels)

    def start(self, images: int) -> list[ProcessPoolExecutor]:
        """Start the processes, with shared memory for batches of `images` images."""
        in_work = _images_ahead(images, self.count) // images + 1
        self.slots = Slots.of(in_work + _IN_USE_OUTSIDE, images, self.reader.shape)
        context = process_context(__name__, self.reader)
        initial = _start_worker, (self.reader, self.slots.memory)
        apart = self.reader.images.reads_ahead
        sizes = [1] * self.count if apart else [self.count]
        self.coming = [[] for _ in sizes]
        self.pools = [ProcessPoolExecutor(size, context, *initial) for size in sizes]
        for pool in self.pools:
            weakref.finalize(self, pool.shutdown, cancel_futures=True)
        return self.pools


def _images_ahead(images: int, workers: int) -> int:
    """The number of images read ahead: a batch of `images`, and two parts for each worker."""
    return images + 2 * _PART * workers


_WORK: list[tuple[Reader, Pixels]] = []  # of this process, if it is a worker: see `_start_worker`


def _start_worker(reader: Reader, memory: Tensor) -> None:
    """Set up this worker process.

    Args:
        reader: reads the images.
        memory: the shared memory of `Slots`.
    """
    become_worker()
    _WORK.append((reader, memory.numpy()))
    torch.set_num_threads(1)


def _read_part(draws: Draws, slot: int | None, start: int, later: Sequence[Draws]) -> Pixels | None:
    """The work of a worker: write images into a slot from row ``start`` on, or return them.

    Args:
        draws: of the images, which were announced to this worker if its storage reads ahead.
        slot: of the memory; None: the images are returned.
        start: the first row in the slot.
        later: what this worker will read after these; perhaps these, too.
    """
    reader, memory = _WORK[0]
    for part in later:
        reader.expect(part)
    announced = reader.images.reads_ahead
    if slot is None:
        return reader.read(draws, announced=announced)
    reader.read(draws, memory[slot, start : start + len(draws)], announced=announced)
    return None
