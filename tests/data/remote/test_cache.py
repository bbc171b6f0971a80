"""The cache stays below its limit, and what was used longest ago leaves first."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets.data.digests import content_digest
from resnets.data.remote.cache import Cache
from resnets.data.remote.ranges import Place


def put(cache: Cache, number: int, length: int) -> Place:
    data = b"%08d" % number + bytes(length - 8)
    where = Place("a.tar", number, length, content_digest(data))
    cache.put(where, data)
    return where


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("??/*"))


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(8, 3000), max_size=30), limit=st.integers(0, 5000))
def test_its_bytes_never_exceed_the_limit(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = Cache(folder, limit)
    for number, length in enumerate(lengths):
        where = put(cache, number, length)
        assert size(folder) <= limit
        assert cache.has(where) == (length <= limit and limit > 0)


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10_000)
    places = [put(cache, number, 1000) for number in range(10)]
    for age, where in enumerate(places):
        os.utime(cache.path(where), (1e9 + age, 1e9 + age))
    assert cache.get(places[0]) is not None
    put(cache, 10, 1000)
    assert [number for number in range(10) if not cache.has(places[number])] == [1, 2, 3]


def test_a_large_limit_is_parted_into_groups_of_which_each_stays_below_its_share(
    tmp_path: Path,
) -> None:
    assert [Cache(tmp_path, limit).groups for limit in (0, 1 << 26, 50 << 30)] == [1, 1, 256]
    assert Cache(tmp_path, 1 << 29).groups == 8
    cache = Cache(tmp_path, 1 << 29)
    for number in range(20):
        put(cache, number, 5_000)
    counted = sum(int(file.read_bytes()) for file in tmp_path.glob("bytes-*-of-8"))
    assert counted == size(tmp_path) == 100_000
