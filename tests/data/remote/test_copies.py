"""Copies of others' small parquet files take no more of the disk than --cache says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnets.data.remote import copies
from resnets.data.sources.opening import with_cache
from resnets.data.sources.remote import read_address
from resnets.errors import UsageError
from tests.in_process import call
from tests.range_server import RangeServer, serving


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """Four sets of about 20,000 bytes each, from a web server, and an empty cache."""
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    for number in range(4):
        rows = {"image": [os.urandom(5000) for _ in range(4)], "label": [0, 1, 0, 1]}
        pq.write_table(pa.table(rows), tmp_path / f"train-{number}.parquet")
    with serving(tmp_path) as server:
        yield server
    end_process()


def end_process() -> None:
    """Give back what this process holds, as its end does."""
    while copies._in_use:
        os.close(copies._in_use.pop())


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("cache/copies/*/*.parquet"))


def size(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in tmp_path.glob("cache/copies/*/*"))


def read(server: RangeServer, number: int, limit: int = 50_000) -> bytes:
    content = read_address(f"{server.address}/train-{number}.parquet", limit)
    image = content.images["train"].encoded(3)
    assert isinstance(image, bytes)
    return image


def test_what_was_used_longest_ago_leaves_first(sets: RangeServer, tmp_path: Path) -> None:
    for number in (0, 1, 0, 2):
        read(sets, number)
        end_process()
    assert kept(tmp_path) == ["train-0.parquet", "train-2.parquet"]
    assert size(tmp_path) <= 50_000


def test_what_a_process_uses_stays(sets: RangeServer, tmp_path: Path) -> None:
    for number in range(3):
        read(sets, number)
    assert len(kept(tmp_path)) == 3
    end_process()
    read(sets, 3)
    assert kept(tmp_path) == ["train-2.parquet", "train-3.parquet"]


def test_without_a_cache_of_a_size_everything_stays(sets: RangeServer, tmp_path: Path) -> None:
    for number in range(4):
        read(sets, number, 0)
        end_process()
    assert len(kept(tmp_path)) == 4


def test_what_does_not_fit_is_refused_before_it_is_copied(
    sets: RangeServer, tmp_path: Path
) -> None:
    data = f"{sets.address}/train-0.parquet"
    with pytest.raises(UsageError, match="resnets shard"):
        with_cache(data, "10KB")
    done = call("doctor", data, "--cache", "10KB", cwd=tmp_path)
    assert (done.returncode, "--cache" in done.stderr) == (2, True)
    assert kept(tmp_path) == []
