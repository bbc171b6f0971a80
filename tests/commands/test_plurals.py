"""One of a thing is not called several: a run of one step, and what is said of single images."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets.cli import main

PLURAL = re.compile(
    r"(?<![\d.,/])\b1 (?:[a-z-]+ )?(steps|epochs|images|batches|classes|labels|files|groups|"
    r"predictions|duplicates|errors|warnings|notes|records|processes|threads|networks|runs)\b"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images to train on, one to validate and one to test by, and a file that is broken."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    places = ["train/cat/0", "train/cat/1", "train/dog/0", "train/dog/1", "val/cat/0", "test/dog/0"]
    for place, image in zip(places, pixels, strict=True):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"{place}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "one"
    words = ["train", photos, "--steps", "1", "--batch-size", "4", "--output", folder]
    words += ["--network", "resnet14", "--image-size", "8"]
    assert main([str(word) for word in words]) == 0
    return folder


def test_a_run_of_one_step_has_one_epoch_and_says_so(
    photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", photos, "--steps", "1", "--batch-size", "4", "--output", tmp_path / "run"]
    words += ["--network", "resnet14", "--image-size", "8", "--log-every", "1"]
    assert main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    assert "1 step of 4" in text
    assert not PLURAL.search(text)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<svg.*?</svg>", "", page, flags=re.S)  # where ticks stand beside axis titles
    assert not PLURAL.search(" ".join(re.sub(r"<[^>]*>", " ", page).split()))


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "MODEL", "DATA"],
        ["evaluate", "MODEL", "DATA", "--split", "test", "--other", "DATA/test"],
        ["calibrate", "MODEL", "DATA", "--output", "OUT/new.safetensors"],
        ["compare", "MODEL", "MODEL", "DATA", "--latency", "0"],
        ["explain", "MODEL", "DATA/test", "--output", "OUT/explained"],
        ["predict", "MODEL", "DATA/test"],
        ["doctor", "DATA"],
        ["report", "MODEL", "DATA", "--output", "OUT/report.html"],
    ],
    ids=lambda words: " ".join(words[:1] + words[3:4]),
)
def test_no_command_speaks_of_one_thing_in_the_plural(
    words: list[str],
    run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    places = {"MODEL": run / "model.safetensors", "DATA": photos, "OUT": tmp_path}
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    assert main(words) in (0, 1, 2)  # some refuse so few images, in words
    text = "".join(capsys.readouterr())
    assert text
    assert not PLURAL.search(text)
