"""Batches of a remote storage are those of the local files, fetched once, ahead of their use."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import TrainingBatches, evaluation_batches
from resnets.data.digests import ImageDigests, content_digest, digests_of_bytes
from resnets.data.labelled import LabelledImages, joined
from resnets.data.remote import Place, RemoteFolder
from resnets.data.storage import FileStorage
from resnets.errors import ContentError
from resnets.images import Preprocessing
from tests.data.remote.conftest import QUICK
from tests.range_server import serving

SMALL = Preprocessing(size=16, resize=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@dataclass(frozen=True)
class Shard:
    """Images one behind the other in a file."""

    folder: RemoteFolder
    places: tuple[Place, ...]
    reads_ahead: bool = True

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> bytes:
        return self.folder.read(self.places[index])

    def name(self, index: int) -> str:
        return f"a.tar[{index}]"

    def digests(self, index: int) -> ImageDigests:
        return digests_of_bytes(self.read(index))

    def expect(self, indices: list[int]) -> None:
        self.folder.expect([self.places[index] for index in indices])


def both(folder: Path, address: str, count: int) -> tuple[LabelledImages, LabelledImages]:
    """The same images as files and as one remote file."""
    random = np.random.default_rng(0)
    content, places, names = b"", [], []
    for number in range(count):
        file = io.BytesIO()
        small = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((30 + number % 7, 40)).save(file, "JPEG")
        data = file.getvalue()
        places.append(Place("a.tar", len(content), len(data), content_digest(data)))
        content += data
        names.append(f"{number}.jpg")
        (folder / names[-1]).write_bytes(data)
    (folder / "a.tar").write_bytes(content)
    labels = np.arange(count) % 2
    shard = Shard(RemoteFolder(address, patience=QUICK), tuple(places))
    local = LabelledImages(FileStorage(folder, names), labels, ["a", "b"])
    return local, LabelledImages(shard, labels, ["a", "b"])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_are_the_same_and_each_image_is_fetched_once(tmp_path: Path, workers: int) -> None:
    with serving(tmp_path) as server:
        local, remote = both(tmp_path, server.address, 90)
        crops = Augmentation(smallest_crop=0.5, flip="random")
        settings = {"batch_size": 20, "workers": workers, "memory_limit": 0}
        loaders = [TrainingBatches(images, SMALL, crops, **settings) for images in (local, remote)]
        server.asked.clear()  # the first image was looked at
        for one, other in zip(*(loader.epoch(0) for loader in loaders), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.indices, other.indices)
        fetched = [n for _, start, stop in server.asked for n in range(start, stop)]
        needed = sum(remote.storage.places[i].length for i in loaders[1].order(0)[:80])
        assert len(fetched) >= needed
        assert len(server.asked) < 80  # neighbours among the coming images go together


def test_evaluation_reads_neighbours_by_one_request(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        local, remote = both(tmp_path, server.address, 40)
        other = LabelledImages(remote.storage, remote.labels, ["a", "b"])
        pairs = [joined([images, images.subset([3])]) for images in (local, other)]
        for one, two in zip(*(evaluation_batches(each, SMALL) for each in pairs), strict=True):
            assert torch.equal(one.images, two.images)
        assert len(server.asked) in (1, 2)  # all of them at once; the fourth perhaps again


def test_an_image_with_other_bytes_is_named(tmp_path: Path) -> None:
    with serving(tmp_path, faults=["wrong"] * 3) as server:
        _, remote = both(tmp_path, server.address, 3)
        with pytest.raises(ContentError, match=r"a\.tar\[1\]: .*index"):
            remote.image(1)


@pytest.mark.slow
def test_a_worker_fetches_what_it_will_read_later_while_answers_are_late(tmp_path: Path) -> None:
    """One by one, 90 answers of 0.1 seconds would take 9 seconds, however fast the machine is."""
    with serving(tmp_path) as server:
        _, remote = both(tmp_path, server.address, 90)
        crops = Augmentation(smallest_crop=0.5, flip="random")
        batches = TrainingBatches(remote, SMALL, crops, batch_size=9, workers=1, memory_limit=0)
        server.delay = 0.1
        server.times.clear()
        assert sum(len(batch.indices) for batch in batches.epoch(0)) == 90
        assert max(server.times) - min(server.times) < 6
