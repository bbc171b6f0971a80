"""Messages of C libraries stay out of standard error, whose own messages come through again."""

import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnets
from resnets.errors import ContentError
from resnets.images.stderr import silent_decoders


def test_what_libraries_print_is_dropped_until_the_last_thread_is_done(
    capfd: pytest.CaptureFixture[str],
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def decode() -> None:
        with silent_decoders():
            entered.set()
            leave.wait(300)

    thread = threading.Thread(target=decode)
    with silent_decoders() as stream:
        thread.start()
        assert entered.wait(300)
        os.write(2, b"noise of a library")
        stream.write("progress\n")
    os.write(2, b"noise of the other thread")
    leave.set()
    thread.join()
    os.write(2, b"an own message")
    assert capfd.readouterr().err == "progress\nan own message"


def broken_tiff(path: Path, seed: int) -> None:
    """An image with a strip in LZW whose codes make no sense: libtiff prints that."""
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "TIFF", compression="tiff_lzw")
    data = bytearray(content.getvalue())
    data[40:200] = bytes(160)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(data))


def test_the_doctor_in_python_names_a_broken_file_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6):
        broken_tiff(tmp_path / f"{'ab'[seed % 2]}/{seed}.tif", seed)
    with Image.open(tmp_path / "a/0.tif") as image, pytest.raises(OSError, match=r".*"):
        image.load()
    assert "LZW" in capfd.readouterr().err, "libtiff prints nothing: this test proves nothing"
    diagnosis = resnets.doctor(tmp_path)
    assert diagnosis.misleading
    assert capfd.readouterr().err == ""
    sys.stderr.write("still there\n")
    sys.stderr.flush()
    assert capfd.readouterr().err == "still there\n"


@pytest.mark.parametrize(("skip", "lines"), [(True, 0), (False, 15)])
def test_a_training_names_broken_files_without_a_line_of_libtiff_for_each(
    skip: bool, lines: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(30):
        pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "TIFF", compression="tiff_adobe_deflate")
        data = content.getvalue()
        (tmp_path / "ab"[seed % 2]).mkdir(exist_ok=True)
        place = tmp_path / "ab"[seed % 2] / f"{seed}.tif"
        place.write_bytes(data[:40] + bytes(400) + data[440:])
    with pytest.raises(ContentError):  # with skip_unreadable, no image is left
        resnets.train(tmp_path, output=False, progress=False, skip_unreadable=skip, epochs=1)
    # the images that ended the training are decoded beside its display, which may have a line
    assert len(capfd.readouterr().err.splitlines()) <= lines
