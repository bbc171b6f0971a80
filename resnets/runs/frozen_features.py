"""Features of images by a frozen network, computed once and kept in the cache."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from resnets.files import cache_folder, read_input, write_atomically
from resnets.json_text import to_json
from resnets.networks import ResNet
from resnets.runs.setup import Setup
from resnets.training.head import Features, Labels

_MOST = 1 << 30  # bytes of the cache
_BATCH = 64  # images


def read_features(setup: Setup, split: str) -> Generator[int, None, tuple[Features, Labels]]:
    """The features (N, C) and labels (N,) of a split, "train" or "validation".

    Training images that may be mirrored are there twice: as they are, and mirrored.

    Args:
        setup: its network is frozen but for the classifier.
        split: of its images.

    Yields:
        How many batches are done.
    """
    images = setup.splits.train if split == "train" else setup.splits.validation
    assert images is not None
    views = (False, True) if split == "train" and _mirrors(setup) else (False,)
    parts, done = [], 0
    for mirrored in views:
        view = _view(setup, split, mirrored)
        while True:
            try:
                next(view)
            except StopIteration as end:
                parts.append(end.value)
                break
            done += 1
            yield done
    labels = np.asarray(images.labels, np.int64)
    return np.concatenate(parts), np.concatenate([labels] * len(views))


def _mirrors(setup: Setup) -> bool:
    return setup.job.recipe.augmentation.flip != "none"


def _view(setup: Setup, split: str, mirrored: bool) -> Generator[int, None, Features]:
    """The features (N, C) of a split, from the cache where they are there."""
    images = setup.splits.train if split == "train" else setup.splits.validation
    network = setup.network
    assert images is not None
    assert isinstance(network, ResNet)
    keys = np.ascontiguousarray(setup.splits.digests[split]).view("V32")[:, 0]
    file = _cache_file(setup, mirrored)
    known = _read_cache(file, network.num_features)
    places = {key.tobytes(): place for place, key in enumerate(known[0])}
    at = np.array([places.get(key.tobytes(), -1) for key in keys])
    features = np.empty((len(keys), network.num_features), np.float32)
    features[at >= 0] = known[1][at[at >= 0]]
    missing = np.flatnonzero(at < 0)
    if not len(missing):
        return features
    network.eval()
    done = 0
    for number, batch in enumerate(setup.in_order(images.subset(missing), _BATCH), 1):
        pixels = batch.images.flip(-1) if mirrored else batch.images
        with torch.inference_mode():
            embedded = network.embed(pixels).float().cpu().numpy()
        features[missing[done : done + len(embedded)]] = embedded
        done += len(embedded)
        yield number
    _write_cache(
        file,
        np.concatenate([known[0], keys[missing]]),
        np.concatenate([known[1], features[missing]]),
    )
    return features


def _cache_file(setup: Setup, mirrored: bool) -> Path:
    """The cache file of a network, a preprocessing and a view."""
    digest = hashlib.sha256(to_json([setup.preprocessing.to_dict(), mirrored]).encode())
    for name, value in setup.network.state_dict().items():
        if not name.startswith("fc."):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return cache_folder() / "features" / f"{digest.hexdigest()[:32]}.npz"


def _read_cache(file: Path, width: int) -> tuple[NDArray[np.void], Features]:
    """Digests of images (M,) and their features (M, C); none if there is no such file."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        with np.load(io.BytesIO(read_input(file, _MOST)), allow_pickle=False) as arrays:
            digests, features = arrays["digests"], arrays["features"]
        whole = digests.dtype == np.uint8 and digests.shape == (len(features), 32)
        if whole and features.dtype == np.float32 and features.shape[1:] == (width,):
            return np.ascontiguousarray(digests).view("V32").reshape(-1), features
    return np.empty(0, "V32"), np.empty((0, width), np.float32)


def _write_cache(file: Path, digests: NDArray[np.void], features: Features) -> None:
    """Write a cache file, and remove the oldest ones beyond the most that is kept."""
    content = io.BytesIO()
    as_bytes = np.frombuffer(digests.tobytes(), np.uint8).reshape(-1, 32)
    np.savez(content, digests=as_bytes, features=features)
    if content.tell() > _MOST:
        return
    with contextlib.suppress(OSError):  # a full or read-only cache only costs time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content.getvalue())
        files = sorted(file.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime)
        total = sum(each.stat().st_size for each in files)
        for old in files:
            if total <= _MOST:
                break
            total -= old.stat().st_size
            old.unlink(missing_ok=True)
