"""The images that a user names for a prediction are those that training would take."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from resnets.data.sources.opening import read_source
from resnets.errors import UsageError
from resnets.evaluation.finding_images import find_images, matching_images

Draw = Callable[..., None]


@pytest.fixture
def mixed(tmp_path: Path, draw_noise: Draw) -> Path:
    """Two classes with all that lies about on disks."""
    root = tmp_path / "photos"
    for name in ("ant/1.png", "ant/deep/2.png", "bee/3.png", "bee/4.png"):
        draw_noise(root / name)
    (root / "bee/4.png").rename(root / "bee/four")
    for name in ("ant/@eaDir/1.jpg", "ant/.thumbnails/1.png", "lost+found/x.png"):
        draw_noise(root / name)
    draw_noise(root / "explained/contact-sheet.png")
    draw_noise(tmp_path / "elsewhere/5.png")
    (root / "ant/linked").symlink_to(tmp_path / "elsewhere")
    (root / "ant/round").symlink_to(root / "ant")
    (root / "ant/notes.txt").write_text("notes", encoding="utf-8")
    (root / "ant/IMG_1.JXL").write_bytes(b"\xff\x0a")
    os.mkfifo(root / "bee/pipe.png")
    return root


IMAGES = {"ant/1.png", "ant/deep/2.png", "ant/linked/5.png", "bee/3.png", "bee/four"}


def relative(sources: list[str], root: Path) -> set[str]:
    return {os.path.relpath(name, root) for name in sources}


def test_a_folder_holds_the_same_images_for_training_and_for_a_prediction(mixed: Path) -> None:
    content, matches = read_source(mixed), matching_images(str(mixed))
    assert set(content.images["all"].names) == IMAGES
    assert relative([each.name for each in matches.sources], mixed) == IMAGES
    ours = {os.path.relpath(path, mixed): why for path, why in matches.passed_over}
    assert ours == dict(content.passed_over)
    assert set(ours) == {
        *("ant/@eaDir", "ant/.thumbnails", "lost+found", "explained"),
        *("ant/notes.txt", "ant/IMG_1.JXL", "bee/pipe.png"),
    }


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", IMAGES),
        ("**/*.png", IMAGES - {"bee/four"}),
        ("ant/**/*.png", IMAGES - {"bee/3.png", "bee/four"}),
        ("**/deep", {"ant/deep/2.png"}),
        ("bee", {"bee/3.png", "bee/four"}),
    ],
)
def test_two_stars_search_at_any_depth(pattern: str, expected: set[str], mixed: Path) -> None:
    names = [each.name for each in find_images([str(mixed / pattern)])]
    assert relative(names, mixed) == expected
    assert len(names) == len(set(names))


def test_a_folder_of_which_all_is_passed_over_says_what(tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(b"")
    (tmp_path / "b.psd").write_bytes(b"")
    with pytest.raises(UsageError, match=r"a\.jxl and 1 more ignored.*convert"):
        find_images([str(tmp_path)])
