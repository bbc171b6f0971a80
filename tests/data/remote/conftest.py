"""A folder with a file of known bytes, connections for one test each, and checks of buckets."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from resnets.data.digests import content_digest
from resnets.data.remote import Place, RemoteFolder, lock
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import Patience
from resnets.data.remote.lock import locked_remotely
from resnets.data.sharding import Settings, write_shards
from resnets.data.sources.opening import read_source
from resnets.data.sources.shards import read_shards
from resnets.data.splits import SourceContent
from resnets.errors import FolderInUse, UsageError
from resnets.locks import LOCK

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
QUICK = Patience(attempts=3, seconds=5.0, first_pause=0.001)


def place(offset: int, length: int, file: str = "a.tar") -> Place:
    """A place of the file, with its digest."""
    return Place(file, offset, length, content_digest(CONTENT[offset : offset + length]))


def bytes_at(where: Place) -> bytes:
    return CONTENT[where.offset : where.stop]


def check_files_and_ranges(bucket: RemoteFolder, tmp_path: Path) -> None:
    """An empty folder of a bucket keeps whole files, and reads ranges of them."""
    (tmp_path / "large").write_bytes(CONTENT)
    bucket.write_file("a.tar", tmp_path / "large")
    bucket.write_bytes("index.parquet", b"index")
    assert bucket.names() == ["a.tar", "index.parquet"]
    assert bucket.read_file("index.parquet", 10) == b"index"
    assert bucket.size("a.tar") == len(CONTENT)
    assert bucket.size("b.tar") is None
    places = [place(start, 500) for start in (9, 200_000, 700)]
    bucket.expect(places)
    assert [bucket.read(each) for each in places] == [bytes_at(each) for each in places]
    bucket.remove("index.parquet")
    bucket.remove("index.parquet")
    assert bucket.size("index.parquet") is None


def check_shards(bucket: RemoteFolder) -> None:
    """An empty folder of a bucket keeps shards, as ours and as anybody's tar files."""
    few = read_source("digits").images["all"].subset(range(5))

    def write(quality: int) -> int:
        content, settings = SourceContent("python", {"train": few}), Settings(8, quality, 1)
        return write_shards(content, bucket, settings, workers=0).kept

    bucket.write_bytes("train-000000.tar", b"my only copy")
    with pytest.raises(UsageError, match=r"train-000000\.tar"):
        write(90)
    assert bucket.read_file("train-000000.tar", 100) == b"my only copy"
    bucket.remove("train-000000.tar")
    assert [write(90), write(90), write(80)] == [0, 1, 0]
    assert bucket.names() == ["index.parquet", "train-000000.tar"]
    others = SourceContent("python", {"train": read_source("digits").images["all"].subset([5, 6])})
    with pytest.raises(UsageError, match="other data"):
        write_shards(others, bucket, Settings(8, 80, 1), workers=0)
    assert write(80) == 1
    read = read_shards(bucket.address).images["train"]
    assert sorted(read.names) == sorted(few.names)
    assert np.array_equal(read.image(0), few.image([*few.names].index(read.names[0])))
    bucket.remove("index.parquet")  # so they are anybody's tar files
    plain = read_source(bucket.address).images["train"]
    assert [plain.encoded(index) for index in range(5)] == [read.encoded(row) for row in range(5)]


def check_one_at_a_time(bucket: RemoteFolder) -> None:
    """Also where both begin at the same time; what holds it lives longer than a sign of life."""
    few = read_source("digits").images["all"].subset(range(5))
    content = SourceContent("python", {"train": few})
    with locked_remotely(bucket):
        time.sleep(0.3)
        with pytest.raises(FolderInUse, match=rf"in use by another process \({os.getpid()} on "):
            write_shards(content, bucket, Settings(8, 90, 1), workers=0)
        assert bucket.names() == [LOCK]
    assert write_shards(content, bucket, Settings(8, 90, 1), workers=0).kept == 0
    assert LOCK not in bucket.names()
    together = threading.Barrier(2)

    def work(_: int) -> bool:
        together.wait()
        try:
            with locked_remotely(bucket):
                time.sleep(2 * lock._BOTH)
        except FolderInUse:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(work, range(2))) == [False, True]
    assert LOCK not in bucket.names()


def check_taken_over(bucket: RemoteFolder) -> None:
    """An empty folder of a bucket, in which a process was killed."""
    bucket.write_bytes(LOCK, b"123 on elsewhere\nabc\n")
    with locked_remotely(bucket):
        assert f"{os.getpid()} on " in bucket.read_file(LOCK, 1000).decode()
    assert bucket.names() == []


@pytest.fixture
def quick_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_LIFE": 0.1, "_DEAD": 0.6, "_LOOK": 0.05}.items():
        monkeypatch.setattr(lock, name, seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "shards"
    path.mkdir()
    (path / "a.tar").write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def _new_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    _disconnect()
