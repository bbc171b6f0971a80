"""Orders and random numbers as functions of (seed, epoch, sample), so that runs are reproducible.

A sample is one use of an image in an epoch: the index of the image, plus the number of images for
each earlier use of that image in the epoch (only balanced sampling uses an image more than once).
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_COLUMNS = 64  # the largest number of random numbers for a purpose and sample

Samples = NDArray[np.int64]


def _stream_key(seed: int, epoch: int, purpose: str) -> int:
    """A 64-bit number that differs for every seed, epoch and purpose."""
    sequence = np.random.SeedSequence((seed, epoch, zlib.crc32(purpose.encode())))
    return int(sequence.generate_state(1, np.uint64)[0])


def _scramble(counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output of SplitMix64 (Steele, Lea, Flood 2014) at positions of its sequence."""
    z = counters * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """The uniform random numbers of some samples (B,) of an epoch over ``count`` images.

    They are a function of the sample, so that they do not depend on its batch, on the process, on
    the workers, or on other random numbers.

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
        """The index of each sample's image, (B,)."""
        return self.samples % self.count

    def uniform(self, purpose: str, columns: int = 1) -> NDArray[np.float32]:
        """Numbers in [0, 1), (B, columns), independent for different purposes."""
        if columns > _COLUMNS:
            raise ValueError(f"columns={columns}: it must be at most {_COLUMNS}")
        key = np.uint64(_stream_key(self.seed, self.epoch, purpose))
        counters = self.samples[:, None] * _COLUMNS + np.arange(columns)
        bits = _scramble(counters.astype(np.uint64) + key)
        return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)

    def part(self, start: int, stop: int | None = None) -> "Draws":
        """The draws of samples[start:stop]."""
        return replace(self, samples=self.samples[start:stop])

    def flips(self) -> NDArray[np.bool_]:
        """Whether to flip each sample, (B,): every second use of an image, from a random start."""
        first = replace(self, epoch=0, samples=self.indices).uniform("first flip")[:, 0] < 0.5
        odd: NDArray[np.bool_] = (self.epoch + self.samples // self.count) % 2 == 1
        return first ^ odd


def epoch_order(count: int, seed: int, epoch: int) -> Samples:
    """The samples 0 ... count - 1, each once, in the order of an epoch."""
    generator = np.random.default_rng(_stream_key(seed, epoch, "order"))
    return generator.permutation(count)


def epoch_steps(count: int, batch_size: int, even: bool) -> int:
    """Batches of an epoch.

    Args:
        count: images.
        batch_size: images of a full batch, 1 to `count`.
        even: whether all images are used, in batches that differ by one image at most; else all
            batches are full. Batches of two may get a third one, as batch norm needs two.

    >>> [epoch_steps(count, 16, even) for count in (48, 49) for even in (True, False)]
    [3, 3, 4, 3]
    """
    full = count // batch_size
    is_short = even and count % batch_size and count // (full + 1) >= 2
    return full + 1 if is_short else full


class CarryingOrder:
    """Orders of epochs that each use only their first samples, so that none is left out for long.

    An epoch begins with those that the one before did not use; the others follow in their random
    order. So an order follows from all that precede it. The last one is kept, and what `carried`
    says of it is enough to go on from there.

    >>> orders = CarryingOrder(5, seed=0, used=4)
    >>> [bool(orders.of(epoch)[4] == orders.of(epoch + 1)[0]) for epoch in range(3)]
    [True, True, True]
    """

    def __init__(self, count: int, seed: int, used: int) -> None:
        self.count, self.seed, self.used = count, seed, used
        self._begin(0, np.empty(0, np.int64))

    def of(self, epoch: int) -> Samples:
        """The samples 0 ... count - 1, each once, in the order of an epoch."""
        if epoch < self._epoch:
            self._begin(0, np.empty(0, np.int64))
        while self._epoch < epoch:
            self._begin(self._epoch + 1, self._left())
        return self._order

    def carried(self, epoch: int) -> Samples:
        """The samples that an epoch begins with, as the one before did not use them."""
        if epoch in (0, self._epoch):
            return self._carried if epoch else self._order[:0]
        self.of(epoch - 1)
        return self._left()

    def go_on(self, epoch: int, carried: Samples) -> None:
        """Continue with an epoch from what `carried` said of it, without those that precede it.

        Raises:
            ValueError: so many samples are never carried into that epoch.
        """
        if len(carried) != (self.count - self.used if epoch else 0):
            raise ValueError(f"{len(carried)} samples carried into epoch {epoch}")
        self._begin(epoch, carried)

    def _left(self) -> Samples:
        """The samples that the epoch does not use; a copy, as a view would keep them all."""
        return self._order[self.used :].copy()

    def _begin(self, epoch: int, carried: Samples) -> None:
        """Keep the order of an epoch that begins with some samples."""
        fresh = epoch_order(self.count, self.seed, epoch)
        is_carried = np.zeros(self.count, bool)
        is_carried[carried] = True
        self._epoch, self._carried = epoch, carried
        self._order = np.concatenate([carried, fresh[~is_carried[fresh]]])


def balanced_order(labels: NDArray[np.int64], seed: int, epoch: int) -> Samples:
    """As many samples as there are labels, the same number of each class that occurs.

    No image of a class is used again before all others of the class. If a class has more images
    than needed, each epoch uses other ones.
    """
    count = len(labels)
    generator = np.random.default_rng(_stream_key(seed, epoch, "balanced order"))
    classes = generator.permutation(np.unique(labels))  # the remainder goes to random classes
    chosen = []
    for share, label in zip(np.array_split(np.arange(count), len(classes)), classes, strict=True):
        members = np.flatnonzero(labels == label)
        uses = -(-len(share) // len(members))
        rounds = [generator.permutation(members) + use * count for use in range(uses)]
        chosen.append(np.concatenate(rounds)[: len(share)])
    return generator.permutation(np.concatenate(chosen)).astype(np.int64)
