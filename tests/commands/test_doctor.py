"""`resnets doctor` as people run it."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.in_process import call


def doctor(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return call("doctor", *words)


def in_a_process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, whose C libraries may complain."""
    command = [sys.executable, "-m", "resnets", "doctor", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound data set of 12 cats and 12 dogs."""
    for seed, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        for number in range(12):
            picture(100 * seed + number).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_a_sound_folder_gets_a_table_and_exit_code_0(folder):
    done = doctor(folder)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "class  images",
        "cat        12",
        "dog        12",
        "total      24",
        "",
        f"{folder}: no errors (no warnings or notes)",
    ]
    assert done.stderr == ""


def test_planted_faults_are_named_and_give_exit_code_1(folder):
    (folder / "cat" / "empty.png").touch()
    picture(3).save(folder / "dog" / "cat in truth.bmp")
    Image.new("L", (40, 30), 200).save(folder / "dog" / "flat.png")
    done = doctor(folder, "--images", "1")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "    cat/empty.png: 0 bytes; not an image" in lines
    assert "    dog/cat in truth.bmp = cat/3.png ('dog' and 'cat')" in lines
    assert "    dog/flat.png" in lines
    assert lines[-1] == f"{folder}: correct the errors before training (2 errors, 1 warning)"
    levels = [line.split(":")[0] for line in lines if ": " in line and line[0] != " "][:-1]
    assert levels == ["error", "error", "warning"]


def test_json_names_every_image_and_says_the_same(folder):
    for number in range(7):
        (folder / "dog" / f"broken {number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    done = doctor(folder, "--json")
    assert done.returncode == 1
    read = json.loads(done.stdout)
    assert read["misleading"] is True
    assert read["classes"] == {"all": {"cat": 12, "dog": 19}}
    (finding,) = read["findings"]
    assert (finding["kind"], finding["level"], len(finding["images"])) == ("unreadable", "error", 7)


def test_what_cannot_even_be_listed_is_a_finding_and_a_wrong_path_a_usage_error(tmp_path):
    (tmp_path / "loose.png").write_bytes(b"")
    done = doctor(tmp_path, "--json")
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert "no class folders" in finding["text"]
    missing = doctor(tmp_path / "nowhere")
    assert missing.returncode == 2
    assert "no such file or folder" in missing.stderr
    assert missing.stdout == ""


def test_at_a_terminal_it_shows_a_bar_and_colours(folder):
    (folder / "cat" / "empty.png").touch()
    master, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "resnets", "doctor", str(folder)]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        text = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            text += part
        assert process.wait(timeout=300) == 1
    os.close(master)
    shown = text.decode()
    assert "\x1b[31merror" in shown
    assert "100%" in shown
    assert "cat/empty.png: 0 bytes" in shown


def test_the_complaints_of_c_libraries_do_not_reach_the_person(tmp_path):
    file = io.BytesIO()
    picture(0).save(file, "TIFF", compression="tiff_lzw")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cut.tif").write_bytes(file.getvalue()[:-400])
    done = in_a_process(tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""


def test_digits_are_sound():
    done = doctor("digits")
    assert done.returncode == 0
    assert "total   1,797" in done.stdout
    assert done.stdout.endswith("digits: no errors (no warnings or notes)\n")


@pytest.mark.soak
def test_cifar10s_test_split_is_looked_through(shared):
    done = doctor(shared("data/cifar10/test-00000-of-00001.parquet"), "--json")
    assert done.returncode == 1  # there is nothing to learn from in a test split
    read = json.loads(done.stdout)
    assert set(read["classes"]) == {"test"}
    assert sum(read["classes"]["test"].values()) == 10_000
    findings = {finding["kind"]: finding for finding in read["findings"]}
    assert set(findings) == {"no-training", "near"}
    # Barz and Denzler 2020 list 39 pairs within the test split, found by a network and by eye
    assert 20 <= len(findings["near"]["images"]) <= 39


@pytest.mark.slow
def test_bad_images_end_neither_in_a_crash_nor_in_noise(shared):
    done = in_a_process(shared("badimages"), "--json")
    assert done.returncode == 1
    assert done.stderr == ""
    kinds = {finding["kind"] for finding in json.loads(done.stdout)["findings"]}
    assert {"unreadable", "animated", "colours", "deep", "rotated", "tiny", "huge"} <= kinds


def test_white_in_deep_images_is_stated_and_what_is_above_it_counted(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            rng = np.random.default_rng([number, ord(label)])
            values = rng.integers(0, 4096, (40, 40)).astype(np.uint16)
            values[0, 0] = 9000
            Image.fromarray(values).save(tmp_path / label / f"{number}.png")
    report = json.loads(doctor(tmp_path, "--json").stdout)
    findings = {each["kind"]: each for each in report["findings"]}
    assert findings["white"]["level"] == "note"
    assert "4,095" in findings["white"]["text"]
    assert findings["clipped"]["level"] == "warning"
    assert "8 images" in findings["clipped"]["text"]
    assert all("1 value" in name and "9,000" in name for name in findings["clipped"]["images"])
