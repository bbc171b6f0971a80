"""Batches of images: for training, in an order that can be resumed exactly, and for evaluation."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from resnets.data.augmentation.augment import Normaliser, erase_, mix, moved
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.augmentation.crops import ResizedCrop
from resnets.data.augmentation.draws import (
    CarryingOrder,
    Draws,
    Samples,
    balanced_order,
    epoch_order,
    epoch_steps,
)
from resnets.data.labelled import LabelledImages
from resnets.data.processes import worker_count
from resnets.data.storage import Filled, filled
from resnets.data.streaming import Reader, Workers
from resnets.errors import ContentError, UsageError
from resnets.format import plural
from resnets.images import Preprocessing, vectorised
from resnets.images.placement import copied_beside, on_device

CustomAugmentation: TypeAlias = Callable[[Tensor], Tensor]  # (B, H, W, C) uint8, and back
_LARGEST_HELD = 1 << 25  # bytes of one image in memory of which batches of crops are made
_MEMORY_LIMIT = 2 << 30  # bytes of pixels; a larger set is read again in every epoch


class _PixelSource(Protocol):
    """Images at the size of the network, before all other augmentation."""

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """For each draws (B,) of the plan, (B, size, size, C) uint8."""


class _InMemory:
    """A set of images in memory, (N, H, W, C) uint8; crops are made of whole batches."""

    def __init__(
        self, pixels: Tensor, preprocessing: Preprocessing, crop: ResizedCrop | None
    ) -> None:
        self.pixels, self.size, self.crop = pixels, preprocessing.size, crop
        self.kernel = preprocessing.interpolation

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """For each draws (B,) of the plan, (B, size, size, C) uint8."""
        for draws in plan:
            indices = on_device(draws.indices, self.pixels.device)
            chosen = self.pixels.index_select(0, indices)
            if self.crop is not None:
                boxes = self.crop.boxes(draws, np.tile(chosen.shape[1:3], (len(draws), 1)))
                chosen = vectorised.resized_boxes(chosen, boxes, self.size, self.kernel)
            yield chosen


class _Streamed:
    """A set of images that worker processes read again in every epoch."""

    def __init__(self, reader: Reader, workers: int, device: torch.device) -> None:
        self.workers, self.device = Workers(reader, workers), device

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """For each draws (B,) of the plan, (B, size, size, C) uint8."""
        for pixels in self.workers.batches(plan):
            yield copied_beside(pixels, self.device)


def _open_pixels(
    reader: Reader,
    workers: int,
    device: torch.device,
    memory_limit: int = _MEMORY_LIMIT,
    fill_array: Filled = filled,
) -> _PixelSource:
    """Load a set into memory if it fits, else stream it.

    It fits if its images at the size of the network take at most ``memory_limit`` bytes. Random
    resized crops need the original images: then these must fit, have one size, and be small enough
    that a batch of them in floating point does not take gigabytes.
    """
    images, size = reader.images, reader.preprocessing.size
    channels = reader.preprocessing.channels
    if reader.crop is None:
        if len(images) * size * size * channels <= memory_limit:
            pixels = torch.from_numpy(_read_all(reader, fill_array))
            return _InMemory(pixels.to(device), reader.preprocessing, None)
    elif (bytes_each := images.image(0, channels).size) <= _LARGEST_HELD and (
        bytes_each * len(images) <= memory_limit
    ):
        try:
            pixels = torch.from_numpy(images.stacked(channels, fill_array))
            return _InMemory(pixels.to(device), reader.preprocessing, reader.crop)
        except ContentError:
            pass  # several sizes; or unreadable, which raises again when it is streamed
    return _Streamed(reader, workers, device)


def _read_all(reader: Reader, fill_array: Filled) -> NDArray[np.uint8]:
    """Every image of a set, (N, size, size, C) uint8."""
    count = len(reader.images)

    def fill(pixels: NDArray[np.uint8], part: range) -> None:
        draws = Draws(0, 0, count, np.arange(part.start, part.stop))
        reader.read(draws, pixels[part.start : part.stop], announced=True)

    return fill_array((count, *reader.shape), fill, reader.images.expect)


class Batch(NamedTuple):
    """Images with their targets.

    Attributes:
        images: (B, C, S, S) float32, normalised, channels_last.
        targets: (B,) int64 labels; after mixup or cutmix (B, K) float32 that sum to one.
        indices: (B,) int64 on the CPU, the index of each image in its set.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor


@dataclass(frozen=True)
class ProcessRank:
    """The rank of this process, and the number of processes that share every batch.

    Attributes:
        on_machine: how many of these processes are on this machine; 0: all.
        launch: the id of the torchrun that started them, if it has one of its own.
    """

    rank: int = 0
    world_size: int = 1
    on_machine: int = 0
    launch: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank {self.rank} of {self.world_size} processes: 0 is the first")

    def share(self, count: int) -> range:
        """The places of this process among so many: all processes' ranges differ by one at most.

        >>> [ProcessRank(rank, 3).share(128) for rank in range(3)]
        [range(0, 42), range(42, 85), range(85, 128)]
        """
        return range(*(count * end // self.world_size for end in (self.rank, self.rank + 1)))

    def workers(self, asked: int | None) -> int:
        """The number of worker processes for this one, which shares the cores of its machine."""
        return worker_count(asked, self.on_machine or self.world_size)


SINGLE_PROCESS = ProcessRank()


class TrainingBatches:
    """The training images, epoch after epoch, augmented and in random order.

    Everything is a function of the seed, the epoch and the index of the image: the same for any
    number of workers, on any device, and for any number of processes, which share the same
    batches. So training can be resumed at any step exactly.

    A set that fits in memory is one tensor on the device; of a larger one, worker processes read
    the images. In both cases, all augmentation after the crop works on whole batches.

    Attributes:
        batch_size: images of a full batch over all processes together.
        process: which of several processes this is.
        steps_per_epoch: batches of an epoch.
        in_memory: whether the set is in memory.
    """

    def __init__(
        self,
        images: LabelledImages,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        batch_size: int,
        seed: int = 0,
        process: ProcessRank = SINGLE_PROCESS,
        workers: int | None = None,
        device: torch.device | str = "cpu",
        balanced: bool = False,
        repeats: int = 1,
        even: bool = False,
        carry_over: bool = False,
        memory_limit: int = _MEMORY_LIMIT,
        fill_array: Filled = filled,
        custom: CustomAugmentation | None = None,
    ) -> None:
        """Load a set that fits in memory, or prepare to stream it.

        Args:
            images: at least one for each process.
            preprocessing: size, mean and standard deviation of the network's input.
            augmentation: random changes of the images.
            batch_size: images of a full batch over all processes; a smaller set is one batch.
            seed: of order and augmentation.
            process: which of several processes this is.
            workers: processes that read images of a set that is not in memory; see
                `processes.worker_count`.
            device: where the batches are placed.
            balanced: sample all classes equally often, whatever their sizes.
            repeats: how often a batch holds each of its images, each time augmented anew
                (arXiv:1901.09335); an epoch then uses fewer images by this factor.
            memory_limit: the largest number of bytes of pixels in memory.
            fill_array: makes the array of a set in memory: see
                `shared_pixels.filled_together`.
            even: use every image in every epoch, in batches that differ by one image at most; not
                with `repeats`. Else all batches are full, and images that fill none are left out.
            carry_over: begin each epoch with the images that the one before left out; not with
                `balanced` or `repeats`, which leave out others at random.
            custom: a user's augmentation, applied before `augmentation`.

        Raises:
            UsageError: the numbers do not fit together; the message names them.
            ContentError: an image cannot be read; the message names it.
        """
        self.images, self.augmentation, self.seed = images, augmentation, seed
        self.process, self.balanced, self.repeats, self.custom = process, balanced, repeats, custom
        self.device = torch.device(device)
        self.batch_size = _total_batch_size(len(images), batch_size, repeats, process)
        is_even = even and repeats == 1
        self.steps_per_epoch = epoch_steps(len(images), self.batch_size, is_even)
        self._used = len(images) if is_even else self.steps_per_epoch * self.batch_size // repeats
        _refuse_small_batches(len(images), self.steps_per_epoch, process.world_size)
        carries = carry_over and repeats == 1 and self._used < len(images)
        self.carrying = CarryingOrder(len(images), seed, self._used) if carries else None
        channels = preprocessing.channels
        if augmentation.policy != "none" and channels not in (1, 3):
            raise UsageError(f"{augmentation.policy} needs 1 or 3 channels, not {channels}")
        if seed < 0:
            raise UsageError(f"seed {seed}: it must be at least 0")
        self.normalise = Normaliser(preprocessing, self.device)
        reader = Reader.of(images, preprocessing, augmentation.resized_crop)
        workers = process.workers(workers)
        self.source = _open_pixels(reader, workers, self.device, memory_limit, fill_array)
        self.labels = torch.from_numpy(images.labels).to(self.device)

    @property
    def in_memory(self) -> bool:
        """Whether the set is in memory."""
        return isinstance(self.source, _InMemory)

    def epoch(self, epoch: int, first_step: int = 0, size: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch from a step on, this process's part of each.

        Args:
            epoch: counted from 0.
            first_step: steps of this epoch that are already done.
            size: side in pixels to which the batches are resized (progressive resizing).
        """
        count, order = len(self.images), self.order(epoch)
        steps = range(first_step, self.steps_per_epoch)
        plan = [Draws(self.seed, epoch, count, self.part(order, step)) for step in steps]
        for draws, pixels in zip(plan, self.source.batches(plan), strict=True):
            batch = self.batch(draws, pixels)
            yield batch if size is None else batch._replace(images=_resize(batch.images, size))

    def order(self, epoch: int) -> Samples:
        """The samples of an epoch, of which the first are used."""
        if self.balanced:
            return balanced_order(self.images.labels, self.seed, epoch)
        if self.carrying is not None:
            return self.carrying.of(epoch)
        return epoch_order(len(self.images), self.seed, epoch)

    def carried(self, epoch: int) -> dict[str, Any] | None:
        """What `go_on` needs to draw the order of an epoch without those that precede it."""
        if self.carrying is None:
            return None
        samples = torch.from_numpy(self.carrying.carried(epoch))
        return {"epoch": epoch, "samples": samples, "of": [len(self.images), self.batch_size]}

    def go_on(self, carried: dict[str, Any] | None) -> None:
        """Continue from what `carried` said; from nothing where that was of other batches."""
        if carried is None or self.carrying is None:
            return
        if carried["of"] == [len(self.images), self.batch_size]:
            self.carrying.go_on(carried["epoch"], carried["samples"].cpu().numpy())

    def order_digest(self, epoch: int) -> str:
        """16 hexadecimal digits of SHA-256 of the samples that an epoch uses, in their order.

        They are the same for any number of processes and workers.
        """
        used = self.order(epoch)[: self._used]
        return hashlib.sha256(used.astype("<i8").tobytes()).hexdigest()[:16]

    def part(self, order: Samples, step: int) -> Samples:
        """The samples of a step for this process, preceded by the one that the first is mixed with.

        For the first sample of the whole batch that is its last one.
        """
        count = len(self.images)
        numbers = order[slice(*self._places(step))]
        uses = numbers // count * self.repeats + np.arange(self.repeats)[:, None]
        samples = (numbers % count + uses * count).flatten()
        share = self.process.share(len(samples))
        first = share.start - 1 if self.augmentation.mixes else share.start
        places = np.arange(first, share.stop) % len(samples)
        return samples[places]

    def images_of(self, step: int) -> int:
        """Images of the batch of a step, counted over all epochs, over all processes."""
        start, stop = self._places(step % self.steps_per_epoch)
        return (stop - start) * self.repeats

    @property
    def sizes_in_words(self) -> str:
        """How many images batches have, over all processes."""
        smallest, steps = self._used // self.steps_per_epoch, self.steps_per_epoch
        sizes = [smallest, smallest + 1] if self._used % steps else [smallest]
        return " or ".join(str(size * self.repeats) for size in sizes)

    def _places(self, step: int) -> tuple[int, int]:
        """Where in the order of its epoch the images of a step begin and end."""
        start, stop = (self._used * end // self.steps_per_epoch for end in (step, step + 1))
        return start, stop

    def batch(self, draws: Draws, pixels: Tensor) -> Batch:
        """Pixels (B, S, S, C) uint8, augmented and normalised, with their targets."""
        if self.custom is not None:
            pixels = _apply_custom_augmentation(pixels, self.custom)
        images = self.normalise(moved(pixels, draws, self.augmentation, self.normalise.fill))
        erase_(images, draws, self.augmentation)
        indices = torch.from_numpy(draws.indices)
        targets = self.labels[on_device(indices, self.device)]
        if not self.augmentation.mixes:
            return Batch(images, targets, indices)
        one_hot = F.one_hot(targets, len(self.images.class_names)).float()
        mixed = mix(images, one_hot, draws.part(1), self.augmentation)
        return Batch(*mixed, indices[1:])


def _apply_custom_augmentation(pixels: Tensor, custom: CustomAugmentation) -> Tensor:
    """Apply a user's augmentation to pixels (B, S, S, C) uint8.

    Raises:
        UsageError: it does not return a tensor of the same shape and type.
    """
    result = custom(pixels)
    is_tensor = isinstance(result, Tensor)
    if not is_tensor or result.shape != pixels.shape or result.dtype != torch.uint8:
        kind = f"{result.dtype} {tuple(result.shape)}" if is_tensor else type(result).__name__
        raise UsageError(
            f"the augmentation returned {kind}; it must be a tensor of torch.uint8 "
            f"{tuple(pixels.shape)}, images (B, H, W, C), the same as its argument"
        )
    return result.to(pixels.device).contiguous()


def refuse_batch_size(batch_size: int, processes: int) -> None:
    """Refuse a batch of which a process would get no image.

    Raises:
        UsageError: the batch is smaller than the number of processes.
    """
    if batch_size < processes:
        raise UsageError(
            f"batch size {batch_size}: it must be at least {processes}, an image for each process"
        )


def _total_batch_size(count: int, batch_size: int, repeats: int, process: ProcessRank) -> int:
    """The size of a batch over all processes: `batch_size`, or less for a smaller set.

    Raises:
        UsageError: repeats do not divide it, or a process would get no image.
    """
    if batch_size < 1 or repeats < 1:
        raise UsageError(f"batch size {batch_size}, repeats {repeats}: each must be at least 1")
    if batch_size % repeats:
        raise UsageError(
            f"batch size {batch_size}: it must be a multiple of {repeats}, the number of repeats"
        )
    refuse_batch_size(batch_size, process.world_size)
    least = -(-process.world_size // repeats) * repeats
    if count < least:
        raise UsageError(
            f"{plural(count, 'training image')}: at least {least} are needed to fill a batch"
        )
    return min(batch_size, count // repeats * repeats)


def _refuse_small_batches(count: int, steps: int, processes: int) -> None:
    """Refuse batches of which a process would get no image.

    Raises:
        UsageError: the smallest has fewer images than there are processes.
    """
    if count // steps < processes:
        raise UsageError(
            f"{plural(count, 'training image')} in {plural(steps, 'batch')}: {processes} processes "
            f"need an image of each batch; take a larger --batch-size, up to {count}"
        )


def _resize(images: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W) at size x size, by antialiased linear interpolation, channels_last."""
    smaller = vectorised.resized(images, size, size)
    return smaller.contiguous(memory_format=torch.channels_last)


class EvaluationBatches:
    """Every image once, without augmentation and in order; each iteration gives the same batches.

    With several processes, each takes every n-th image, where n is the number of processes. Images
    are read as in :class:`TrainingBatches`.
    """

    def __init__(
        self,
        images: LabelledImages,
        preprocessing: Preprocessing,
        batch_size: int,
        process: ProcessRank,
        workers: int,
        device: torch.device,
        memory_limit: int,
    ) -> None:
        self.batch_size = batch_size
        self.normalise = Normaliser(preprocessing, device)
        self.mine = np.arange(len(images))[process.rank :: process.world_size]
        mine = images.subset(self.mine)
        reader = Reader.of(mine, preprocessing)
        self.source = _open_pixels(reader, workers, device, memory_limit)
        self.labels = torch.from_numpy(mine.labels).to(device)
        self.plan = [
            Draws(0, 0, len(mine), np.arange(len(mine))[start : start + batch_size])
            for start in range(0, len(mine), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        for draws, pixels in zip(self.plan, self.source.batches(self.plan), strict=True):
            targets = self.labels[on_device(draws.indices, self.labels.device)]
            indices = torch.from_numpy(self.mine[draws.indices])
            yield Batch(self.normalise(pixels), targets, indices)


def evaluation_batches(
    images: LabelledImages,
    preprocessing: Preprocessing,
    batch_size: int = 256,
    process: ProcessRank = SINGLE_PROCESS,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    memory_limit: int = _MEMORY_LIMIT,
) -> EvaluationBatches:
    """Every image exactly once over all processes, in batches that can be iterated repeatedly.

    Args:
        images: any number; a process may get none.
        preprocessing: resizing, crop and normalisation of the network's input.
        batch_size: images of a batch in each process; the last may be smaller.
        process: which of several processes this is.
        workers: processes that read images of a set that is not in memory; see
            `processes.worker_count`.
        device: where the batches are placed.
        memory_limit: the largest number of bytes of pixels in memory.
    """
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size}: it must be at least 1")
    workers = process.workers(workers)
    device = torch.device(device)
    return EvaluationBatches(
        images, preprocessing, batch_size, process, workers, device, memory_limit
    )
