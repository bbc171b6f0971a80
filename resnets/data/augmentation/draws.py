"""Order and chance as functions of (seed, epoch, sample), so that nothing else can change them.

A sample is one use of an image in an epoch: the number of the image, plus the number of images for
every earlier use of it in that epoch (only balanced sampling uses an image more than once).
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_COLUMNS = 64  # the most numbers that one purpose may draw for a sample

Samples = NDArray[np.int64]


def _stream_key(seed: int, epoch: int, purpose: str) -> int:
    """A 64-bit number that differs for every seed, epoch and purpose."""
    sequence = np.random.SeedSequence((seed, epoch, zlib.crc32(purpose.encode())))
    return int(sequence.generate_state(1, np.uint64)[0])


def _scramble(counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 generator (Steele, Lea, Flood 2014) at the given positions of its sequence."""
    z = counters * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """The uniform random numbers of some samples (B,) of an epoch over ``count`` images.

    They are computed where they are needed instead of being drawn one after another, so that a
    sample's numbers do not depend on its batch, on the process, on the workers, or on what else
    was drawn.

    >>> all_three, last = Draws(0, 5, 3, np.arange(3)), Draws(0, 5, 3, np.array([2]))
    >>> bool((all_three.uniform("crop", 2)[2] == last.uniform("crop", 2)[0]).all())
    True
    """

    seed: int
    epoch: int
    count: int
    samples: Samples

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def indices(self) -> NDArray[np.int64]:
        """Which image each sample is, (B,)."""
        return self.samples % self.count

    def uniform(self, purpose: str, columns: int = 1) -> NDArray[np.float32]:
        """Numbers in [0, 1), (B, columns): another purpose gives independent ones."""
        if columns > _COLUMNS:
            raise ValueError(f"columns={columns}: at most {_COLUMNS} numbers a purpose and sample")
        key = np.uint64(_stream_key(self.seed, self.epoch, purpose))
        counters = self.samples[:, None] * _COLUMNS + np.arange(columns)
        bits = _scramble(counters.astype(np.uint64) + key)
        return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)

    def part(self, start: int, stop: int | None = None) -> "Draws":
        """Those of samples[start:stop]."""
        return replace(self, samples=self.samples[start:stop])

    def flips(self) -> NDArray[np.bool_]:
        """Whether to mirror each sample, (B,): every image in turn, from a random start."""
        first = replace(self, epoch=0, samples=self.indices).uniform("first flip")[:, 0] < 0.5
        odd: NDArray[np.bool_] = (self.epoch + self.samples // self.count) % 2 == 1
        return first ^ odd


def epoch_order(count: int, seed: int, epoch: int) -> Samples:
    """The samples 0 ... count - 1, each once, in the order of an epoch."""
    generator = np.random.default_rng(_stream_key(seed, epoch, "order"))
    return generator.permutation(count)


def balanced_order(labels: NDArray[np.int64], seed: int, epoch: int) -> Samples:
    """As many samples as there are labels, shared out equally among the classes that occur.

    No image of a class is used again before every other one was. Where a class has more images
    than its share, each epoch takes others.
    """
    count = len(labels)
    generator = np.random.default_rng(_stream_key(seed, epoch, "balanced order"))
    classes = generator.permutation(np.unique(labels))  # so that the odd ones go round
    chosen = []
    for share, label in zip(np.array_split(np.arange(count), len(classes)), classes, strict=True):
        members = np.flatnonzero(labels == label)
        uses = -(-len(share) // len(members))
        rounds = [generator.permutation(members) + use * count for use in range(uses)]
        chosen.append(np.concatenate(rounds)[: len(share)])
    return generator.permutation(np.concatenate(chosen)).astype(np.int64)
