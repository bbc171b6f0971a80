"""Where the pixels of batches come from: a tensor that holds the whole set, or a stream."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnets.data.crops import ResizedCrop
from resnets.data.draws import Draws
from resnets.data.geometry import resized_crop
from resnets.data.storage import in_threads
from resnets.data.streaming import Reader, Workers
from resnets.errors import ContentError

LARGEST_HELD = 1 << 25  # bytes of one image that is held to be cropped
MEMORY_LIMIT = 2 << 30  # bytes of pixels that are held rather than read again for every epoch


class PixelSource(Protocol):
    """Images at the size of the network, before all other augmentation."""

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """For each draws (B,) of the plan, (B, size, size, C) uint8."""


class InMemory:
    """A set as one tensor, (N, H, W, C) uint8; crops are taken from it as whole batches."""

    def __init__(self, pixels: Tensor, size: int, crop: ResizedCrop | None) -> None:
        self.pixels, self.size, self.crop = pixels, size, crop

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """For each draws (B,) of the plan, (B, size, size, C) uint8."""
        for draws in plan:
            indices = torch.from_numpy(draws.indices).to(self.pixels.device)
            chosen = self.pixels.index_select(0, indices)
            if self.crop is not None:
                boxes = self.crop.boxes(draws, np.tile(chosen.shape[1:3], (len(draws), 1)))
                chosen = resized_crop(chosen, boxes, self.size)
            yield chosen


class Streamed:
    """A set that is read again for every epoch, by worker processes."""

    def __init__(self, reader: Reader, workers: int, device: torch.device) -> None:
        self.workers, self.device = Workers(reader, workers), device

    def batches(self, plan: Iterable[Draws]) -> Iterator[Tensor]:
        """For each draws (B,) of the plan, (B, size, size, C) uint8."""
        for pixels in self.workers.batches(plan):
            yield torch.from_numpy(pixels).to(self.device)


def open_pixels(
    reader: Reader, workers: int, device: torch.device, memory_limit: int = MEMORY_LIMIT
) -> PixelSource:
    """Hold a set in memory where it fits, else stream it.

    It fits if its images at the size of the network take at most ``memory_limit`` bytes. Random
    resized crops need the images as they are: then those must fit, be of one size, and not so
    large that a batch of them, in floating point, takes gigabytes.
    """
    images, size = reader.images, reader.preprocessing.size
    channels = reader.preprocessing.channels
    if reader.crop is None:
        if len(images) * size * size * channels <= memory_limit:
            return InMemory(torch.from_numpy(read_all(reader)).to(device), size, None)
    elif (bytes_each := images.image(0, channels).size) <= LARGEST_HELD and (
        bytes_each * len(images) <= memory_limit
    ):
        try:
            pixels = torch.from_numpy(images.stacked(channels))
            return InMemory(pixels.to(device), size, reader.crop)
        except ContentError:
            pass  # of several sizes; or unreadable, which reading it will say
    return Streamed(reader, workers, device)


def read_all(reader: Reader) -> NDArray[np.uint8]:
    """Every image of a set, (N, size, size, C) uint8."""
    count, size = len(reader.images), reader.preprocessing.size
    pixels = np.empty((count, size, size, reader.preprocessing.channels), np.uint8)

    def fill(part: range) -> None:
        pixels[part.start : part.stop] = reader.read(
            Draws(0, 0, count, np.arange(part.start, part.stop))
        )

    for _ in in_threads(fill, count):
        pass
    return pixels
