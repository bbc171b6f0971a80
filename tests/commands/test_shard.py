import csv
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import cli
from tests.in_process import call
from tests.spread import spread


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of two classes."""
    for name in ("ant/0.png", "ant/1.png", "bee/0.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), len(name), np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def test_what_was_written_kept_and_left_out_is_told(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "bee/notes.txt").touch()
    (images / "bee/1.png").write_bytes(b"no image")
    place = tmp_path / "shards"
    words = ["shard", str(images), "--output", str(place), "--workers", "0"]
    assert cli.main(words) == 1
    assert "bee/1.png: not an image" in capsys.readouterr().err
    assert cli.main([*words, "--skip-unreadable"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{place}: 3 images in 1 shard")
    assert "bee/notes.txt ignored" in printed.err
    assert "left out bee/1.png: not an image" in printed.err
    assert cli.main([*words, "--skip-unreadable"]) == 0
    printed = capsys.readouterr()
    assert "(1 kept)" in printed.out
    assert "1 unreadable image left out before" in printed.err


def test_all_images_that_are_left_out_are_listed_beside_the_index(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        (images / f"bee/=bad {number}.png").write_bytes(b"no image")
    place = tmp_path / "shards"
    command = ["shard", str(images), "--output", str(place), "--workers", "0", "--skip-unreadable"]
    listed = place / "skipped.csv"

    def names() -> list[str]:
        header, *rows = csv.reader(io.StringIO(listed.read_text()))
        assert header == ["image", "reason"]
        assert all("not an image" in reason for _, reason in rows)
        return sorted(name for name, _ in rows)

    assert cli.main(command) == 0
    assert str(listed) in capsys.readouterr().err
    expected = sorted(f"bee/=bad {number}.png" for number in range(12))
    assert names() == expected
    assert cli.main(command) == 0  # all shards are kept
    assert names() == expected
    for number in range(12):
        (images / f"bee/=bad {number}.png").unlink()
    assert cli.main(command) == 0
    assert not listed.exists()


def test_images_that_data_has_lost_are_told(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [images / f"bee/{number}.png" for number in (1, 2)]
    for value, file in enumerate(lost):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(file)
    command = ["shard", str(images), "--output", str(tmp_path / "s"), "--workers", "0"]
    assert cli.main(command) == 0
    assert "before" not in capsys.readouterr().err
    for file in lost:
        file.unlink()
    assert cli.main(command) == 0
    assert "2 images of the shards that were there before" in capsys.readouterr().err
    assert cli.main(command) == 0
    assert "before" not in capsys.readouterr().err


def test_an_error_tells_what_stays(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "bee/1.png").write_bytes(b"no image")
    assert cli.main(["shard", str(images), "--output", str(tmp_path / "s"), "--workers", "0"]) == 1
    assert "goes on from there" in capsys.readouterr().err


def test_a_list_of_somebody_else_stays(images: Path, tmp_path: Path) -> None:
    place = tmp_path / "shards"
    command = ["shard", str(images), "--output", str(place), "--workers", "0", "--skip-unreadable"]
    assert cli.main(command) == 0
    (place / "skipped.csv").write_text("mine")
    (images / "bee/bad.png").write_bytes(b"no image")
    assert cli.main(command) == 0
    assert (place / "skipped.csv").read_text() == "mine"


def test_shards_inside_of_the_folder_that_is_read_are_refused(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (images, images / "shards"):
        assert cli.main(["shard", str(images), "--output", str(place)]) == 2
        assert "inside" in capsys.readouterr().err


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of images that take seconds to write as shards of one megabyte."""
    pixels = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    for number in range(96):
        file = tmp_path / "many" / f"{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, number)).save(file, compress_level=0)
    return tmp_path / "many"


def shard_at_work(images: Path, place: Path) -> "subprocess.Popen[str]":
    """A process that has begun to write shards, two at once, of which none is complete."""
    words = ["shard", images, "--output", place, "--workers", "2", "--size", "700"]
    program = (
        "import signal; from resnets import cli; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # the tests may ignore it
        "raise SystemExit(cli.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words), "--shard-mb", "70"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(place.glob(".train-*")) + list(place.glob(".all-*")):
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.soak
def test_two_processes_do_not_write_shards_into_one_folder(many: Path, tmp_path: Path) -> None:
    place = tmp_path / "shards"
    with shard_at_work(many, place) as first:
        done = call("shard", many, "--output", place, "--workers", "0")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"in use by another process ({first.pid} on " in done.stderr
        assert first.wait() == 0
    assert not (place / ".lock").exists()
    assert call("shard", many, "--output", place, "--workers", "0").returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to one process")
@pytest.mark.parametrize("name", spread(["SIGTERM", "SIGINT"]))  # the former by a queue
def test_a_signal_does_not_wait_for_the_shards_at_work(
    many: Path, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "shards"
    with shard_at_work(many, place) as process:
        number = getattr(signal, name)
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert process.stderr is not None
        (line,) = process.stderr.read().splitlines()
        assert "goes on from there" in line
    left = {path.name for path in place.iterdir()}
    planned = [name for name in (place / "begun.shard-rows").read_text().split("\n") if name]
    whole = {name for name in left if name.endswith(".tar")}  # before the signal came
    rows = {f"{name}.shard-rows" for name in whole}
    assert left - rows - whole == {"begun.shard-rows"}  # no half of a shard, no lock, no index
    assert len(whole) < len(planned)
    done = call("shard", many, "--output", place, "--workers", "0", "--size", "8")
    assert done.returncode == 0, done.stderr
