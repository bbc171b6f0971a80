"""Features of images by a frozen network, computed once and kept in the cache."""

import contextlib
import hashlib
import io
import time
import zipfile
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from resnets.data.labelled import LabelledImages
from resnets.data.shards import stored_digests
from resnets.files.folders import cache_folder, writing_to_cache
from resnets.files.reading import read_input
from resnets.files.writing import write_atomically
from resnets.format import plural
from resnets.json_text import to_json
from resnets.networks import ResNet
from resnets.runs.setup import Setup
from resnets.training.head import Features, Labels, Progress

_MOST = 1 << 30  # bytes of the cache
_BATCH = 64  # images
_MOST_TO_BEGIN = 16_384  # images to which a first classifier is fitted; training goes on from there
_WRITE_EVERY = 3.0  # seconds between two writings of a file that grows ...
_WRITING_SHARE = 0.05  # ... and at most this share of the time is spent on them


class FeatureReader:
    """Reads the features of a run's training and validation images for `HeadTrainer`.

    Training images that may be mirrored are there twice: as they are, and mirrored.

    Args:
        setup: its network is frozen but for the classifier, or has not been trained yet.
        to_begin: for `HeadFirstTrainer`, training images only, as they are and at most 16,384.
    """

    def __init__(self, setup: Setup, *, to_begin: bool = False) -> None:
        self.setup, self.to_begin = setup, to_begin
        self.mirrors = setup.job.recipe.augmentation.flip != "none" and not to_begin
        both = {"train": setup.splits.train, "validation": setup.splits.validation}
        if to_begin:
            both = {"train": _some(setup.splits.train, setup.job.recipe.seed)}
        self.images = {split: images for split, images in both.items() if images is not None}
        self.keys = {split: _keys(setup, images) for split, images in self.images.items()}
        self.caches: dict[bool, _Cache] = {}
        self.total = sum(len(keys) * len(self._views(split)) for split, keys in self.keys.items())
        self.known = self.computed = 0

    def __call__(self, split: str) -> Generator[Progress, None, tuple[Features, Labels]]:
        """The features (N, C) and labels (N,) of a split, "train" or "validation".

        Yields:
            How far the pass over both splits is.
        """
        if not self.caches:
            self._open_caches()
        images, keys = self.images[split], self.keys[split]
        caches = [self.caches[mirrored] for mirrored in self._views(split)]
        for count in _compute(self.setup, images, keys, caches):
            self.computed += count
            yield self.known + self.computed, self.computed, self.total
        parts = [cache.features(keys) for cache in caches]
        return np.concatenate(parts), np.concatenate([images.labels] * len(parts))

    def _views(self, split: str) -> tuple[bool, ...]:
        """For each view of a split's images, whether it is mirrored."""
        return (False, True) if self.mirrors and split == "train" else (False,)

    def _open_caches(self) -> None:
        self.caches = {view: _open_cache(self.setup, view) for view in self._views("train")}
        for split, keys in self.keys.items():
            for view in self._views(split):
                self.known += len(keys) - len(self.caches[view].missing(keys))


def features_in_words(setup: Setup) -> str:
    """What the pass of `--freeze all` counts."""
    reader, splits = FeatureReader(setup), setup.splits
    parts = [plural(len(splits.train), "training image")]
    if reader.mirrors:
        parts[0] += ", each as it is and mirrored"
    if splits.validation is not None:
        parts.append(plural(len(splits.validation), "validation image"))
    return f"One pass computes {plural(reader.total, 'row')} of features: {', and '.join(parts)}"


def _some(images: LabelledImages, seed: int) -> LabelledImages:
    """Images to which a first classifier is fitted: all, or so many at random."""
    order = np.random.default_rng(seed).permutation(len(images))[:_MOST_TO_BEGIN]
    return images.subset(np.sort(order)) if len(order) < len(images) else images


def features_of(setup: Setup, images: LabelledImages) -> Features:
    """The features (N, C) of some of a run's images as they are: from the cache, or computed."""
    cache, keys = _open_cache(setup, mirrored=False), _keys(setup, images)
    for _ in _compute(setup, images, keys, [cache]):
        pass
    return cache.features(keys)


def _keys(setup: Setup, images: LabelledImages) -> list[bytes]:
    """The digests of what is read of some of a run's images."""
    splits = setup.splits
    by_place: dict[tuple[int, int], bytes] = {}
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for name, part in parts.items():
        if part is not None:
            stored = stored_digests(part.storage, part.indices, splits.digests[name])
            digests = map(bytes, stored)
            places = ((id(part.storage), index) for index in part.indices.tolist())
            by_place |= dict(zip(places, digests, strict=True))
    return [by_place[id(images.storage), index] for index in images.indices.tolist()]


def _compute(
    setup: Setup, images: LabelledImages, keys: Sequence[bytes], caches: Sequence["_Cache"]
) -> Generator[int, None, None]:
    """Compute the features that caches lack. What is done by then is kept if it is closed.

    Images are computed in the same batches whatever the cache has: the last bits of a feature may
    depend on its batch, and a run that goes on is to be equal to one that was never stopped.

    Yields:
        The number of images of each batch that a cache lacked.
    """
    network, lacking = setup.network, [set(cache.missing(keys)) for cache in caches]
    assert isinstance(network, ResNet)
    network.eval()
    begins = sorted({index // _BATCH * _BATCH for index in set().union(*lacking)})
    rows = [index for begin in begins for index in range(begin, min(begin + _BATCH, len(keys)))]
    batches = setup.in_order(images.subset(rows), _BATCH) if rows else ()
    try:
        for begin, batch in zip(begins, batches, strict=True):
            for cache, missing in zip(caches, lacking, strict=True):
                new = [row for row in range(len(batch.images)) if begin + row in missing]
                if not new:
                    continue
                pixels = batch.images.flip(-1) if cache.mirrored else batch.images
                with torch.inference_mode():
                    features = network.embed(pixels).float().cpu().numpy()
                cache.add([keys[begin + row] for row in new], features[new])
                yield len(new)
    finally:
        for cache in caches:
            cache.write()


def _open_cache(setup: Setup, mirrored: bool) -> "_Cache":
    """The cache of one view; of layers that are frozen throughout, it is opened once."""
    if setup.job.recipe.freeze != "all":
        return _Cache(setup, mirrored)
    if mirrored not in setup.feature_caches:
        setup.feature_caches[mirrored] = _Cache(setup, mirrored)
    cache: _Cache = setup.feature_caches[mirrored]
    return cache


class _Cache:
    """The features that a network computes for one view of images, in a file of the cache.

    Args:
        setup: has the network and its preprocessing.
        mirrored: the view.
    """

    def __init__(self, setup: Setup, mirrored: bool) -> None:
        assert isinstance(setup.network, ResNet)
        self.mirrored, self.file = mirrored, _cache_file(setup, mirrored)
        digests, features = _read_cache(self.file, setup.network.num_features)
        self.rows = dict(zip(map(bytes, digests), features, strict=True))
        self.changed, self.written, self.cost = False, time.monotonic(), 0.0

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Which of the images have no features here."""
        return [index for index, key in enumerate(keys) if key not in self.rows]

    def features(self, keys: Sequence[bytes]) -> Features:
        """The features of images that all have some, (N, C)."""
        return np.stack([self.rows[key] for key in keys])

    def add(self, keys: Sequence[bytes], features: Features) -> None:
        """Add the features of some images; the file follows every few seconds."""
        self.rows |= dict(zip(keys, features, strict=True))
        self.changed = True
        if time.monotonic() - self.written > max(_WRITE_EVERY, self.cost / _WRITING_SHARE):
            self.write()

    def write(self) -> None:
        """Write the file, if something was added."""
        if self.changed:
            start = time.monotonic()
            digests = np.frombuffer(b"".join(self.rows), np.uint8).reshape(-1, 32)
            _write_cache(self.file, digests, np.stack([*self.rows.values()]))
            self.changed, self.written = False, time.monotonic()
            self.cost = self.written - start


def _cache_file(setup: Setup, mirrored: bool) -> Path:
    """The cache file of a network, a preprocessing, a view and what computes."""
    what = [setup.preprocessing.to_dict(), mirrored, setup.device.type, torch.__version__]
    digest = hashlib.sha256(to_json(what).encode())
    for name, value in setup.network.state_dict().items():
        if not name.startswith("fc."):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().view(-1).numpy())
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npz"


def _read_cache(file: Path, width: int) -> tuple[NDArray[np.uint8], Features]:
    """Digests of images (M, 32) and their features (M, C); none if there is no such file."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(io.BytesIO(read_input(file, _MOST)), allow_pickle=False) as arrays:
            digests, features = arrays["digests"], arrays["features"]
        whole = digests.dtype == np.uint8 and digests.shape == (len(features), 32)
        if whole and features.dtype == np.float32 and features.shape[1:] == (width,):
            return digests, features
    return np.empty((0, 32), np.uint8), np.empty((0, width), np.float32)


def _write_cache(file: Path, digests: NDArray[np.uint8], features: Features) -> None:
    """Write a cache file, and remove the oldest ones beyond the most that is kept."""
    content = io.BytesIO()
    np.savez(content, digests=digests, features=features)
    if content.tell() > _MOST:
        return
    with writing_to_cache():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content.getvalue())
        files = sorted(file.parent.glob("*.npz"), key=lambda entry: entry.stat().st_mtime)
        total = sum(entry.stat().st_size for entry in files)
        for old in files:
            if total <= _MOST:
                break
            total -= old.stat().st_size
            old.unlink(missing_ok=True)
