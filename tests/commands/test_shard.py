from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import cli


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
    assert "1 image left out before" in printed.err


def test_shards_inside_of_the_folder_that_is_read_are_refused(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (images, images / "shards"):
        assert cli.main(["shard", str(images), "--output", str(place)]) == 2
        assert "inside" in capsys.readouterr().err
