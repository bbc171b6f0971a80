import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resnets.files.outputs import writable
from resnets.files.reading import read_input
from resnets.files.writing import replacing, write_atomically

WRITER = """
import sys
from resnets.files.writing import write_atomically
for round in range(100_000):
    write_atomically(sys.argv[1], bytes([round % 256]) * 200_000)
    print(flush=True)
"""


def test_a_block_that_raises_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_gets_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomically(tmp_path / "ours", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "ours")}
    assert len(modes) == 1


def test_a_system_that_cannot_change_the_mode_of_an_open_file_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows before Python 3.13, which has no signals that wait and no folders to sync."""
    monkeypatch.delattr(os, "fchmod")
    monkeypatch.setattr("resnets.files.reading._NONBLOCK", 0)
    monkeypatch.setattr("resnets.files.writing.sync_folder", lambda folder: None)  # noqa: ARG005
    for content in (b"new", b"replaced"):
        assert writable(tmp_path / "file") == tmp_path / "file"
        write_atomically(tmp_path / "file", content)
        assert read_input(tmp_path / "file", 10) == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("delay", [0.0, 0.011, 0.023])
def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "file"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
    content = path.read_bytes()
    assert len(content) == 200_000
    assert len(set(content)) == 1


@pytest.fixture
def null(tmp_path: Path) -> Path:
    """A copy of /dev/null."""
    path = tmp_path / "null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except (PermissionError, AttributeError) as error:
        pytest.skip(f"making a device needs root ({error})")
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def from_pipe(path: Path, write: Callable[[], None]) -> bytes:
    """What arrives at the other end of a pipe when something is written."""
    contents: list[bytes] = []
    reader = threading.Thread(target=lambda: contents.append(path.read_bytes()))
    reader.start()
    write()
    reader.join(timeout=300)
    return b"".join(contents)


def test_a_device_is_written_to_and_stays(null: Path) -> None:
    write_atomically(writable(null), b"gone")
    assert stat.S_ISCHR(null.stat().st_mode)
    assert names_in(null.parent) == ["null"]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = writable(tmp_path / "pipe")
    assert from_pipe(pipe, lambda: write_atomically(pipe, b"x" * 300_000)) == b"x" * 300_000
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_nothing_goes_to_a_pipe_when_the_block_raises(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RuntimeError), replacing(tmp_path / "pipe") as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "other").mkdir()
    if there:
        (tmp_path / "other/target").write_bytes(b"old")
    (tmp_path / "second").symlink_to(Path("other") / "target")
    (tmp_path / "first").symlink_to("second")
    write_atomically(writable(tmp_path / "first"), b"new")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "other/target").read_bytes() == b"new"
    assert names_in(tmp_path) == ["first", "other", "second"]


def test_standard_output_takes_a_file_after_what_was_printed() -> None:
    code = (
        "from pathlib import Path; from resnets.files.outputs import writable;"
        "from resnets.files.writing import write_atomically;"
        "print('before'); write_atomically(writable(Path('/dev/stdout')), b'content\\n');"
        "print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"before\ncontent\nafter\n"


def test_standard_output_that_goes_to_a_file_is_not_cut_off(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from resnets.files.outputs import writable;"
        "from resnets.files.writing import write_atomically;"
        "write_atomically(writable(Path('/dev/fd/1')), b'new\\n')"
    )
    (tmp_path / "log").write_bytes(b"old\n")
    with (tmp_path / "log").open("ab") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_bytes() == b"old\nnew\n"


def test_a_full_disk_is_an_error_and_the_device_stays() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space"):
        write_atomically(writable(full), b"x")
    assert stat.S_ISCHR(full.stat().st_mode)


def test_a_private_file_that_is_replaced_stays_private(tmp_path: Path) -> None:
    (tmp_path / "private").touch(mode=0o600)
    write_atomically(tmp_path / "private", b"new")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
