import os
from pathlib import Path

import pytest

from resnets.files.reading import open_input, read_input, read_limited


def test_only_regular_files_are_read_and_none_that_has_no_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "to_pipe").symlink_to("pipe")
    for read in (open_input, read_input):
        for name in ("pipe", "to_pipe", "zero", "."):
            with pytest.raises(OSError, match="not a file but"):
                read(tmp_path / name, 1 << 40)


def test_a_file_is_read_through_a_link_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_input(tmp_path / "link", 5) == b"12345"
    with open_input(tmp_path / "link", 5) as file:
        assert file.read() == b"12345"
    for read in (open_input, read_input):
        with pytest.raises(OSError, match="at most 4"):
            read(tmp_path / "link", 4)


def test_a_file_that_tells_no_size_is_read_up_to_the_limit() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here")
    assert b"VmHWM" in read_input(status, 1 << 20)
    with pytest.raises(OSError, match="at most"):
        read_input(status, 100)
    with pytest.raises(OSError, match="empty"):
        open_input(status, 1 << 20)


def test_a_stream_is_read_up_to_the_limit() -> None:
    with Path("/dev/zero").open("rb") as endless:
        assert read_limited(endless, 3_000_000) is None
