"""The index of folders tells what a fresh walk tells, and lists only what changed."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.data.sources import folder_index
from resnets.data.sources.folder_index import FolderIndex
from resnets.data.sources.walking import Entries, entries, listing
from resnets.errors import ContentError
from tests.in_process import call

PNG = b"\x89PNG\r\n\x1a\n"
TICKS = itertools.count(10**18)  # nanoseconds: in 2001


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of few files are kept, too."""
    monkeypatch.setattr(folder_index, "_LEAST", 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:
    """Two folders of two images each that nobody has touched for a while."""
    for path in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png", "bee/more/2.png"):
        write(tmp_path / "data" / path)
    settle(tmp_path / "data")
    return tmp_path / "data"


def write(path: Path, content: bytes = PNG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def settle(root: Path) -> None:
    """Let time pass: each folder that changed just now gets a time long ago that none had yet."""
    for folder, _, _ in os.walk(root, topdown=False):
        if Path(folder).stat().st_mtime_ns > 10**18 + 10**9:
            tick = next(TICKS)
            os.utime(folder, ns=(tick, tick))


def look(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """What an index tells, which is then saved."""
    index = FolderIndex(root)
    images, others = index.below("")
    index.save()
    return [*images], others


def walked(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """What a walk without an index tells."""
    content = listing(root)
    return [*content.images], [*content.passed_over]


def listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which folders a look lists anew."""
    folders: list[str] = []

    def noted(folder: Path) -> Entries:
        folders.append(folder.relative_to(root).as_posix())
        return entries(folder)

    with monkeypatch.context() as patch:
        patch.setattr(folder_index, "entries", noted)
        assert look(root) == walked(root)
    return folders


NAMES = ["a", "b.png", "c.jpg", "d.txt", "config.toml", "log.jsonl", "x.onnx", ".sorted.json"]
NAMES += ["labels.jsonl", "find", ".hidden", "learning-rate.png", "contact-sheet.png"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
CHANGES = st.tuples(st.sampled_from(["write", "folder", "remove", "link", "replace"]), PATHS)


def change(root: Path, kind: str, path: Path) -> None:
    """Change a tree in one place, unless that is not possible there."""
    if any(each.is_file() for each in path.parents):
        return
    if kind == "remove" and path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif kind == "remove":
        path.unlink(missing_ok=True)
    elif kind == "replace" and path.is_file():
        path.write_bytes(b"no image" if path.read_bytes() == PNG else PNG)
    elif not path.exists() and not path.is_symlink():
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "write":
            path.write_bytes(PNG)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link" and path != root / "a":  # a link to itself is no folder to look into
            path.symlink_to(root / "a", target_is_directory=True)


@settings(max_examples=20)
@given(st.lists(st.lists(CHANGES, max_size=6), min_size=1, max_size=4))
def test_after_any_changes_the_index_tells_what_a_fresh_walk_tells(
    rounds: list[list[tuple[str, str]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETS_CACHE", f"{folder}/cache")
        root = Path(folder) / "data"
        root.mkdir()
        for changes in rounds:
            for kind, path in changes:
                change(root, kind, root / path)
            settle(root)
            assert look(root) == walked(root)


def test_only_folders_that_changed_are_listed_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert listed(root, monkeypatch) == [".", "ant", "bee", "bee/more"]
    assert listed(root, monkeypatch) == []
    write(root / "bee/more/3.png")
    settle(root)
    assert listed(root, monkeypatch) == ["bee", "bee/more"]  # bee could hold only runs now
    (root / "ant/0.png").rename(root / "ant/7.png")
    settle(root)
    assert listed(root, monkeypatch) == [".", "ant"]


def test_a_folder_that_changed_just_now_is_not_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within the tick of the file system's clock."""
    write(root / "ant/2.png")
    look(root)
    assert listed(root, monkeypatch) == [".", "ant"]


def test_a_file_without_an_ending_is_judged_by_its_content_each_time(root: Path) -> None:
    write(root / "ant/odd", b"text")
    settle(root)
    assert "ant/odd" not in look(root)[0]
    write(root / "ant/odd")  # in place: its folder stays as it is
    assert "ant/odd" in look(root)[0]


def test_a_link_that_leads_elsewhere_now_is_seen(root: Path, tmp_path: Path) -> None:
    (root / "ant/more").symlink_to(tmp_path / "elsewhere")
    settle(root)
    assert "ant/more" in look(root)[1][0] or "ant/more" not in look(root)[0]
    write(tmp_path / "elsewhere/4.png")
    assert "ant/more/4.png" in look(root)[0]


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "ant/up").symlink_to(root)
    settle(root)
    images = look(root)[0]
    assert images == look(root)[0] == walked(root)[0]
    assert not any("up/ant/up" in path for path in images)


@pytest.mark.skipif(os.name == "nt", reason="names on Windows are Unicode")
def test_names_that_are_not_utf_8_come_back_as_they_were(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        write(root / "ant" / name)
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    settle(root)
    assert f"ant/{name}" in look(root)[0]
    assert look(root) == walked(root)


@pytest.fixture(params=["empty", "cut", "flipped", "foreign", "folder"])
def damage(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    def damaged(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.unlink()
        texts = {"empty": b"", "cut": content[:-9], "flipped": content, "foreign": b"a"}
        file.mkdir() if request.param == "folder" else file.write_bytes(texts[request.param])

    return damaged


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_a_damaged_index_is_as_good_as_none(
    root: Path, cache: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    look(root)
    damage(next((cache / "folders").iterdir()))
    assert len(listed(root, monkeypatch)) == 4


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_an_index_that_cannot_be_written_is_no_fault(root: Path, cache: Path) -> None:
    cache.write_text("a file in its place", encoding="utf-8")
    assert look(root) == look(root) == walked(root)


def test_small_folders_are_not_kept(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_index, "_LEAST", 6)
    look(root)
    assert not cache.exists()


def test_the_cache_keeps_the_newest(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_index, "_KEPT", 2)
    for number in range(4):
        write(tmp_path / f"other-{number}/0.png")
        look(tmp_path / f"other-{number}")
    assert len([*(cache / "folders").iterdir()]) == 2


@pytest.fixture
def bucket(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The data's folder is a bucket that is mounted, as the system tells it."""
    device = root.stat().st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw - fuse.bucket bucket rw\n"
    monkeypatch.setattr(folder_index, "read_text", lambda _: line)
    folder_index._has_times.cache_clear()
    yield
    folder_index._has_times.cache_clear()


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="only Linux has it")
@pytest.mark.usefixtures("bucket")
def test_a_mounted_bucket_is_listed_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders have no times of their own, so nothing would show that an image was added."""
    assert len(listed(root, monkeypatch)) == len(listed(root, monkeypatch)) == 4


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(root: Path) -> None:
    (root / "ant").chmod(0)
    with pytest.raises(ContentError, match="ant: cannot be read"):
        look(root)
    (root / "ant").chmod(0o700)


def test_doctor_and_training_start_from_the_index(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command lists each folder; the second, in whichever order, none."""
    for number, folder in enumerate(("ant", "bee") * 6):
        shade = Image.new("RGB", (8, 8), (20 * number, 90, 9))
        shade.save(root / folder / f"image-{number}.png")
    for old in root.rglob("*/[012].png"):
        old.unlink()
    settle(root)
    folders: list[Path] = []

    def noted(folder: Path) -> Entries:
        folders.append(folder)
        return entries(folder)

    monkeypatch.setattr(folder_index, "entries", noted)
    train = "train DATA --network resnet14 --image-size 8 --steps 1 --no-report"
    train += " --output OUT --overwrite"
    for first, second in (("doctor DATA", train), (train, "doctor DATA")):
        shutil.rmtree(cache, ignore_errors=True)
        listed = []
        for line in (first, second):
            folders.clear()
            words = line.replace("DATA", str(root)).replace("OUT", str(cache.parent / "run"))
            done = call(*words.split())
            assert done.returncode == 0, done.stderr
            listed.append(len(folders))
        assert listed[0] > 0
        assert listed[1] == 0


OPENING = """
import re, sys, time
from resnets.data.sources.opening import read_source
began = time.process_time()
content = read_source(sys.argv[1])
taken = time.process_time() - began
status = open("/proc/self/status").read()  # ru_maxrss would be that of the parent, if larger
print(len(content.images["all"]), taken, int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024)
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_a_million_files_are_listed_in_30_seconds_and_again_in_2_within_300_mb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processor time, which programs beside this one do not lengthen."""
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    for label in range(1000):
        folder = tmp_path / f"data/n{label:08}"
        write(folder / "0.png")
        for number in range(1, 1000):
            os.link(folder / "0.png", folder / f"n{label:08}_{number}.png")
    settle(tmp_path / "data")
    for most in (30, 2):
        command = [sys.executable, "-c", OPENING, str(tmp_path / "data")]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        images, seconds, megabytes = map(float, output.split())
        sys.stdout.write(f"{images:,.0f} files: {seconds:.1f} s, {megabytes:.0f} MB\n")
        assert images == 1_000_000
        assert seconds < most
        assert megabytes < 300
