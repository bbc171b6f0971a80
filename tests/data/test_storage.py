import _thread
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.digests import EDGE, digests_of_bytes
from resnets.data.storage import FileStorage, RowNames, in_threads


@pytest.mark.parametrize("size", [0, 1, EDGE, 2 * EDGE, 2 * EDGE + 1, 5 * EDGE])
def test_a_file_is_known_by_the_same_digest_as_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size])
    storage = FileStorage(tmp_path, ["a"])
    assert storage.digests(0) == digests_of_bytes(data[:size])
    assert storage.read(0) == data[:size]


@given(st.sampled_from([2 * EDGE, 2 * EDGE + 1, 4 * EDGE]), st.data())
def test_any_byte_of_an_image_changes_its_digest(size: int, chosen: st.DataObject) -> None:
    data = bytearray(size)
    place = chosen.draw(st.integers(0, size - 1))
    before = digests_of_bytes(bytes(data))
    data[place] = 1
    assert digests_of_bytes(bytes(data)).digest != before.digest


def test_images_of_different_sizes_have_different_digests() -> None:
    digests = {digests_of_bytes(bytes(size)).digest for size in (0, 1, 3 * EDGE, 3 * EDGE + 1)}
    assert len(digests) == 4


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_rows_are_named_by_their_file_and_their_place_in_it(rows: list[int]) -> None:
    names = RowNames.of([f"f{number}" for number in range(len(rows))], rows)
    expected = [f"f{file}[{row}]" for file, count in enumerate(rows) for row in range(count)]
    assert [names(index) for index in range(sum(rows))] == expected


@given(st.integers(0, 70), st.integers(1, 9))
def test_threads_share_out_every_index_once_and_in_order(count: int, size: int) -> None:
    assert [index for part in in_threads(list, count, size) for index in part] == list(range(count))


def test_what_stops_the_caller_waits_for_few_indices_only() -> None:
    """A photo may take tenths of a second, and Ctrl-C waited for hundreds."""
    done: list[int] = []

    def work(part: range) -> None:
        if part.start == 0:
            _thread.interrupt_main()
        time.sleep(0.02)
        done.extend(part)

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(work, 20_000))
    assert len(done) < 256


def test_an_error_in_a_thread_is_raised_here_and_ends_the_rest() -> None:
    done: list[int] = []
    threads = threading.active_count()

    def work(part: range) -> None:
        if part.start == 0:
            raise RuntimeError("in a thread")
        time.sleep(0.005)  # all together would take seconds, whatever the number of threads
        done.append(part.start)

    with pytest.raises(RuntimeError, match="in a thread"):
        list(in_threads(work, 10_000, 1))
    assert len(done) < 9_999
    assert threading.active_count() <= threads
