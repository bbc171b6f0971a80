import socket
from pathlib import Path

import pytest

from resnets.errors import UsageError
from resnets.files.outputs import writable, writable_folder
from resnets.files.writing import write_atomically


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "to_folder").symlink_to(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        names = ("nofolder/x", "file/x", ".", "to_folder", "circle", "socket", "n" * 300, "a\0b")
        before = names_in(tmp_path)
        for name in names:
            with pytest.raises(UsageError):
                writable(tmp_path / name)
    for check in (writable, writable_folder):  # elsewhere a name for standard output
        with pytest.raises(UsageError, match="/dev/stdout"):
            check(Path("-"))
    for folder in ("file", "file/deeper", "circle/x", "n" * 300):
        with pytest.raises(UsageError):
            writable_folder(tmp_path / folder)
    assert names_in(tmp_path) == before


def test_a_folder_that_takes_no_files_is_refused_even_for_root(tmp_path: Path) -> None:
    folder = Path("/proc")
    if not folder.is_dir():
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
    for check in (writable, writable_folder):
        with pytest.raises(UsageError, match="cannot be written"):
            check(folder / "new")


def test_what_can_be_written_is_given_back_and_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    names = ("old", "new", "." + "n" * 253)
    assert [writable(tmp_path / name) for name in names] == [tmp_path / name for name in names]
    assert writable_folder(tmp_path / "a/b/c") == tmp_path / "a/b/c"
    assert names_in(tmp_path) == ["old"]
    write_atomically(tmp_path / names[2], b"a name as long as the disk allows")
