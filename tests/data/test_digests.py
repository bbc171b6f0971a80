"""Digests are of whole files, and a second look at an unchanged large file does not read it."""

import hashlib
import os
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.digests import (
    _MARK,
    _MOST,
    EDGE,
    FileDigests,
    ImageDigests,
    _read_entries,
    digests_of_bytes,
)
from resnets.data.labelled import LabelledImages
from resnets.data.storage import DigestsOf, FileStorage
from resnets.errors import ContentError

LARGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1024
OLD = time.time() - 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def large(tmp_path: Path, cache: Path) -> FileStorage:
    """Four large files that nobody has touched for a while."""
    (tmp_path / "data").mkdir()
    for number in range(4):
        write(tmp_path / "data" / f"{number}.png", LARGE + b"%d" % number)
    return FileStorage(tmp_path / "data", [f"{number}.png" for number in range(4)])


def write(path: Path, content: bytes, when: float = OLD) -> None:
    path.write_bytes(content)
    os.utime(path, (when, when))


def look(storage: FileStorage) -> list[bytes]:
    digests_of = DigestsOf(storage, np.arange(len(storage)))
    digests = digests_of(range(len(storage)))
    digests_of.save()
    return [own.digest for own in digests if isinstance(own, ImageDigests)]


def reads(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which files a look opens, by their numbers."""
    numbers: list[int] = []
    original = FileStorage.open_image

    def noted(self: FileStorage, index: int) -> AbstractContextManager[IO[bytes]]:
        numbers.append(index)
        return original(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(FileStorage, "open_image", noted)
        look(storage)
    return numbers


def test_a_digest_is_the_sha256_of_the_size_and_the_whole_file(large: FileStorage) -> None:
    for index in range(4):
        content = LARGE + b"%d" % index
        expected = hashlib.sha256(b"%d\n" % len(content) + content).digest()
        assert look(large)[index] == expected  # the second time from what is remembered


@given(st.integers(0, 3), st.integers(EDGE + 1, len(LARGE) - EDGE - 1))
def test_the_earlier_digest_passes_over_the_middle_and_the_digest_does_not(
    seed: int, place: int
) -> None:
    """Earlier versions hashed the size and 32 KiB at either end: `hashlib` is the witness."""
    data = bytearray(LARGE)
    data[place] ^= 1 << seed
    seen, before = digests_of_bytes(bytes(data)), digests_of_bytes(LARGE)
    ends = b"%d\n" % len(data) + LARGE[: 32 * 1024] + LARGE[-32 * 1024 :]
    assert seen.earlier == before.earlier == hashlib.sha256(ends).digest()
    assert seen.digest != before.digest


def test_a_second_look_reads_no_large_file_again(
    large: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(large)
    assert reads(large, monkeypatch) == []
    assert look(large) == first


def test_what_changed_is_read_again_and_only_that(
    large: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = look(large)
    write(large.root / "0.png", b"x" * len(LARGE) + b"0", OLD + 1)  # another time
    write(large.root / "1.png", LARGE + b"1 and more")  # another size
    write(large.root / "2.png", b"x" * len(LARGE) + b"2")  # the same of both, set back
    assert reads(large, monkeypatch) == [0, 1, 2]
    after = look(large)
    assert [new == old for new, old in zip(after, before, strict=True)] == [False] * 3 + [True]


def test_a_file_that_is_as_new_as_its_digest_is_not_trusted(
    large: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be written again within the tick of the file system's clock."""
    now = time.time()
    os.utime(large.root / "3.png", (now, now))
    look(large)
    assert reads(large, monkeypatch) == [3]
    os.utime(large.root / "3.png", (now + 3600, now + 3600))  # a clock that is ahead
    look(large)
    assert reads(large, monkeypatch) == [3]


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "folder"])
def test_a_damaged_memory_is_as_good_as_none(large: FileStorage, cache: Path, damage: str) -> None:
    first = look(large)
    (file,) = (cache / "digests").glob("*.bin")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    texts = {"empty": b"", "cut": bytes(content[:-5]), "flipped": bytes(content), "foreign": b"a"}
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(texts[damage])
    assert look(large) == first
    assert look(large) == first


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_a_cache_that_cannot_be_written_is_no_fault(large: FileStorage, cache: Path) -> None:
    first = look(large)
    for file in (cache / "digests").iterdir():
        file.unlink()
    (cache / "digests").rmdir()
    (cache / "digests").write_text("a file in its place", encoding="utf-8")
    assert look(large) == first


def test_many_looks_at_once_leave_a_whole_memory(large: FileStorage, cache: Path) -> None:
    expected = look(large)
    looks: list[list[bytes]] = []

    def change_and_look(number: int) -> None:
        write(large.root / f"new-{number}.png", LARGE)
        own = FileStorage(large.root, [*large.paths, f"new-{number}.png"])
        looks.append(look(own))

    threads = [threading.Thread(target=change_and_look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each[:4] for each in looks] == [expected] * 8
    (file,) = (cache / "digests").iterdir()  # nothing unfinished is left beside it
    assert len(_read_entries(file)) >= 5


def test_parts_of_one_folder_share_a_memory(
    large: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = [FileStorage(large.root, large.paths[:2]), FileStorage(large.root, large.paths[2:])]
    for half in halves:
        look(half)
    assert reads(large, monkeypatch) == []


def test_small_files_are_kept_only_if_they_are_many(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.png", LARGE[: 2 * EDGE])
    storage = FileStorage(tmp_path, ["a.png"])
    look(storage)
    assert not cache.exists()
    monkeypatch.setattr("resnets.data.storage._MANY", 1)
    look(storage)
    assert reads(storage, monkeypatch) == []


def test_images_that_were_written_anew_in_place_are_named(large: FileStorage) -> None:
    look(large)
    write(large.root / "1.png", LARGE + b"x")
    write(large.root / "2.png", LARGE + b"2", OLD + 5)  # the same again
    digests_of = DigestsOf(large, np.arange(4))
    digests_of(range(4))
    assert digests_of.changed == ["1.png"]


def test_an_earlier_cache_in_any_order_is_read(large: FileStorage) -> None:
    """Versions before 2026-12 wrote the newest files first."""
    known = FileDigests(large.root)
    status = (large.root / "0.png").stat()
    paths = [f"{number}.png" for number in range(50)]
    seen = [ImageDigests(bytes([number]) * 32, bytes(32), familiar=True) for number in range(50)]
    known.put(paths, [status] * 50, seen)
    (entries,) = known.fresh
    for order in (np.argsort(entries["digest"]), np.argsort(entries["digest"])[::-1]):
        content = entries[order].tobytes()
        known.file.parent.mkdir(parents=True, exist_ok=True)
        known.file.write_bytes(_MARK + hashlib.sha256(content).digest() + content)
        assert FileDigests(large.root).get(paths, [status] * 50) == seen


def test_the_memory_is_bounded(
    large: FileStorage, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("resnets.data.digests._MOST", 3)
    monkeypatch.setattr("resnets.data.digests._FOLDERS", 2)
    for number in range(4):
        other = tmp_path / f"other-{number}"
        other.mkdir()
        write(other / "a.png", LARGE)
        look(FileStorage(other, ["a.png"]))
    look(large)
    files = [*(cache / "digests").iterdir()]
    assert len(files) == 2
    assert max(len(_read_entries(file)) for file in files) == 3 < _MOST


def test_digests_come_back_as_they_were_even_with_zeros_at_the_end(
    large: FileStorage, cache: Path
) -> None:
    known = FileDigests(large.root)
    seen = ImageDigests(b"a".ljust(32, b"\0"), bytes(32), familiar=True)
    status = (large.root / "0.png").stat()
    known.put(["0.png"], [status], [seen])
    known.save()
    assert FileDigests(large.root).get(["0.png", "1.png"], [status] * 2) == [seen, None]


def test_a_link_that_is_no_file_is_named_not_read(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/a/zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "data/a/pipe.png")
    images = LabelledImages(
        FileStorage(tmp_path / "data", ["a/zero.png", "a/pipe.png"]), [0, 0], "a"
    )
    with images.cached_digests() as digests_of:
        zero, pipe = digests_of(range(2))
    assert isinstance(zero, ContentError)
    assert "not a file but a" in str(zero)
    assert isinstance(pipe, ContentError)
    assert "not a file but a" in str(pipe)
