"""WebDataset's own reader, Python's tarfile and a second run are the witnesses."""

import hashlib
import io
import multiprocessing
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets.data import sharding
from resnets.data.digests import digests_of_bytes
from resnets.data.labelled import LabelledImages
from resnets.data.places import LocalFolder
from resnets.data.sharding import Settings, Written, write_shards
from resnets.data.shards import UNFINISHED
from resnets.data.sources.opening import read_source
from resnets.data.splits import SourceContent
from resnets.data.storage import PixelStorage, RowNames
from resnets.errors import ContentError, UsageError

SMALL = Settings(size=16, quality=90, shard_mb=1)
TINY = Settings(size=8, quality=90, shard_mb=1)


def shard(source: Any, place: Path, **options: Any) -> Written:
    options = {"settings": SMALL, "workers": 0} | options
    return write_shards(read_source(source), LocalFolder(place), **options)


def digests(place: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in place.iterdir()}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images go into a shard."""
    monkeypatch.setattr(sharding, "_mean_bytes", lambda *_: 1e6 / 3)


@pytest.fixture
def animals(folder: Callable[[Iterable[str]], Path]) -> Path:
    return folder([f"{name}/{n}.{kind}" for name in ("ant", "bee") for n, kind in PARTS])


PARTS = [(0, "jpg"), (1, "png"), (2, "bmp"), (3, "png")]


def known(source: Any) -> dict[str, set[tuple[str, str, bytes]]]:
    """By split, each image's name, class and the digest of its original."""
    content = read_source(source)
    return {
        split: {
            (name, content.class_names[label], images.storage.digests(int(row)).digest)
            for name, label, row in zip(images.names, images.labels, images.indices, strict=True)
        }
        for split, images in content.images.items()
    }


@pytest.mark.usefixtures("few")
def test_shards_hold_the_same_images_under_the_same_names_and_digests(
    folder: Callable[[Iterable[str]], Path], tmp_path: Path
) -> None:
    images = folder([f"{split}/{name}/{n}.png" for split in ("train", "val") for name, n in PAIRS])
    written = shard(images, tmp_path / "shards")
    assert known(tmp_path / "shards") == known(images)
    assert sum(each.images for each in written.about.shards) == 2 * len(PAIRS)
    assert all(each.images <= 3 for each in written.about.shards)


PAIRS = [("ant", 0), ("ant", 1), ("bee", 0), ("bee", 1)]


@pytest.mark.usefixtures("few")
def test_an_image_that_fits_is_read_as_the_bytes_of_its_file(animals: Path, tmp_path: Path) -> None:
    shard(animals, tmp_path / "shards")
    images = read_source(tmp_path / "shards").images["all"]
    for index, name in enumerate(images.names):
        if not name.endswith(".bmp"):
            assert images.encoded(index) == (animals / name).read_bytes()


def test_an_index_of_copies_of_one_image_is_read(tmp_path: Path) -> None:
    """However little it would take, compressed."""
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    for number in range(500):
        (tmp_path / "photos" / "ant" / f"{number}.png").hardlink_to(tmp_path / "one.png")
    written = shard(tmp_path / "photos", tmp_path / "shards")
    assert sum(each.images for each in written.about.shards) == 500
    assert known(tmp_path / "shards") == known(tmp_path / "photos")
    assert shard(tmp_path / "photos", tmp_path / "shards").kept == len(written.about.shards)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("ending", [".tar", UNFINISHED])
def test_what_is_deleted_meanwhile_is_an_error_that_names_it(
    animals: Path, tmp_path: Path, ending: str
) -> None:
    place = tmp_path / "shards"

    def delete(_: int) -> None:
        for file in place.glob(f"all-000000*{ending}"):
            file.unlink()

    with pytest.raises(ContentError, match=r"shards: all-000000\.tar was written.* again"):
        shard(animals, place, progress=delete)
    shard(animals, place)
    assert known(place) == known(animals)


@settings(max_examples=20, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2)), min_size=1))
def test_pixels_that_fit_return_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int, int]]
) -> None:
    place = tmp_path_factory.mktemp("shards")
    width, height, _ = shapes[0]
    pixels = np.random.default_rng(len(shapes)).integers(
        0, 256, (len(shapes), height, width, 3), np.uint8
    )
    labels = [label for *_, label in shapes]
    storage = PixelStorage(pixels, RowNames.of(["a"], [len(shapes)]))
    images = LabelledImages(storage, labels, ["x", "y", "z"])
    content = SourceContent("python", {"train": images})
    write_shards(content, LocalFolder(place), Settings(9, 90, 1), workers=0)
    read = read_source(place).images["train"]
    order = [int(name[2:-1]) for name in read.names]
    assert sorted(order) == [*range(len(shapes))]
    assert read.labels.tolist() == [labels[index] for index in order]
    for place_of, index in enumerate(order):
        assert np.array_equal(read.image(place_of), pixels[index])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # its reader leaves files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("few")
def test_webdataset_reads_the_shards(animals: Path, tmp_path: Path) -> None:
    import webdataset

    shard(animals, tmp_path / "shards")
    files = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    samples = [
        sample
        for file in files
        for sample in webdataset.WebDataset(file, shardshuffle=False).decode("rgb8")
    ]
    assert [sample["__key__"] for sample in samples] == [f"{n:09}" for n in range(8)]
    images = read_source(tmp_path / "shards").images["all"]
    for index, sample in enumerate(samples):
        assert sample["cls"] == images.labels[index]
        assert sample["json"]["class"] == images.class_names[sample["cls"]]
        assert sample["json"]["name"] == images.names[index]
        if "png" in sample:
            assert np.array_equal(sample["png"], images.image(index))


@pytest.mark.usefixtures("few")
def test_the_index_says_where_each_image_lies_and_how_large_it_is(
    folder: Callable[[Iterable[str]], Path], tmp_path: Path
) -> None:
    """By Pillow and Python's tarfile, from photos that are wider than they are tall."""
    photos = folder([f"{name}/{n}.png" for name in ("ant", "bee") for n in range(4)])
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        Image.new("RGB", (40 + number, 24), (number, 9, 9)).save(file)
    shard(photos, tmp_path / "shards")
    rows = pq.read_table(tmp_path / "shards" / "index.parquet").to_pylist()
    assert len(rows) == 8
    for row in rows:
        content = (tmp_path / "shards" / row["shard"]).read_bytes()
        data = content[row["offset"] : row["offset"] + row["length"]]
        with Image.open(io.BytesIO(data)) as image:
            assert (row["width"], row["height"]) == image.size
            assert min(image.size) == SMALL.size < max(image.size)
        with tarfile.open(tmp_path / "shards" / row["shard"]) as tar:
            member = next(each for each in tar if each.name.startswith(f"{row['key']}.jpg"))
            assert (member.offset_data, member.size) == (row["offset"], row["length"])
        assert row["digest"] == digests_of_bytes((photos / row["name"]).read_bytes()).digest
        assert (row["label"], row["name"][:3]) in ((0, "ant"), (1, "bee"))


@pytest.mark.parametrize("each", [1, 3, 8])
def test_the_order_of_images_is_the_same_in_any_number_of_shards(
    animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    """So the order of an epoch, which is one of their numbers, is, too."""
    names = []
    for images in (each, 5):
        monkeypatch.setattr(sharding, "_mean_bytes", lambda *_, images=images: 1e6 / images)
        written = shard(animals, tmp_path / f"{images} each")
        assert len(written.about.shards) == -(-8 // images)
        names.append([*read_source(tmp_path / f"{images} each").images["all"].names])
    assert names[0] == names[1]


def test_a_shard_has_about_the_size_that_was_asked_for(
    folder: Callable[[Iterable[str]], Path], tmp_path: Path
) -> None:
    """Noise does not compress: about 120 kB an image, so eight a million bytes."""
    photos = folder([f"ant/{n}.png" for n in range(20)])
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        noise = np.random.default_rng(number).integers(0, 256, (200, 200, 3), np.uint8)
        Image.fromarray(noise).save(file)
    shard(photos, tmp_path / "shards", settings=Settings(size=256, quality=90, shard_mb=1))
    *full, _ = sorted((tmp_path / "shards").glob("*.tar"))
    assert len(full) == 2
    for file in full:
        assert 0.8e6 < file.stat().st_size < 1.1e6


@pytest.mark.usefixtures("few")
def test_the_files_depend_on_the_images_alone(animals: Path, tmp_path: Path) -> None:
    shard(animals, tmp_path / "a")
    shard(animals, tmp_path / "b", workers=2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    with tarfile.open(tmp_path / "a" / "all-000000.tar") as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("writes", range(1, 8))
def test_a_run_that_stops_anywhere_is_finished_by_the_next(
    animals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    shard(animals, tmp_path / "whole")
    done = 0

    def stop(*_: Any) -> None:
        nonlocal done
        done += 1
        if done > writes:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        real = sharding.replacing
        patch.setattr(sharding, "replacing", lambda path: (stop(), real(path))[1])
        rows = LocalFolder.write_bytes
        patch.setattr(
            LocalFolder, "write_bytes", lambda self, *words: (stop(), rows(self, *words))[1]
        )
        with pytest.raises(KeyboardInterrupt):
            shard(animals, tmp_path / "shards")
    with pytest.raises(ContentError, match="stopped before"):
        read_source(tmp_path / "shards")
    written = shard(animals, tmp_path / "shards")
    assert written.kept == (writes - 1) // 2
    assert digests(tmp_path / "shards") == digests(tmp_path / "whole")


KILLED = """
import os, signal, sys
from resnets import cli
from resnets.data import sharding
from resnets.data.digests import digests_of_bytes

members, add = [], sharding._Tar.add

def killed(tar, name, content):
    members.append(name)
    if len(members) == 14:  # of the second shard
        os.kill(os.getpid(), signal.SIGKILL)
    return add(tar, name, content)

sharding._mean_bytes = lambda *_: 1e6 / 3
sharding._Tar.add = killed
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("few")
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_process_that_is_killed_leaves_whole_shards(animals: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED, encoding="utf-8")
    words = ["shard", animals, "--output", tmp_path / "shards", "--size", "16", "--shard-mb", "1"]
    done = subprocess.run([sys.executable, script, *words, "--workers", "0"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert any(name.startswith(".all-000001.tar") for name in digests(tmp_path / "shards"))
    assert shard(animals, tmp_path / "shards").kept == 1
    shard(animals, tmp_path / "whole")
    assert digests(tmp_path / "shards") == digests(tmp_path / "whole")


@pytest.mark.usefixtures("few")
def test_only_what_changed_is_written_again(
    animals: Path, tmp_path: Path, encoded: Callable[..., bytes]
) -> None:
    place = tmp_path / "shards"
    shard(animals, place)
    assert shard(animals, place).kept == 3
    (animals / "ant/1.png").write_bytes(encoded(99))
    assert shard(animals, place).kept == 2
    assert known(place) == known(animals)
    (place / "all-000002.tar").write_bytes(b"")
    assert shard(animals, place).kept == 2
    (animals / "ant/0.jpg").unlink()
    (animals / "bee/0.jpg").unlink()
    shard(animals, place)
    assert known(place) == known(animals)
    assert sorted(digests(place)) == ["all-000000.tar", "all-000001.tar", "index.parquet"]
    assert shard(animals, place, settings=TINY).kept == 0


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("has_index", [True, False], ids=["finished", "stopped"])
def test_shards_of_other_data_are_replaced_only_by_overwrite(
    animals: Path, tmp_path: Path, has_index: bool
) -> None:
    """Also where all files have the same names."""
    place, others = tmp_path / "shards", tmp_path / "others"
    shutil.copytree(animals, others)
    for number, file in enumerate(sorted(others.rglob("*.*"))):
        Image.new("RGB", (9, 9), (number, 200, 77)).save(file)
    shard(animals, place)
    if not has_index:
        (place / "index.parquet").rename(place / f"all-000000.tar{UNFINISHED}")
    before = digests(place)
    with pytest.raises(UsageError, match=r"holds shards of other data .*--overwrite"):
        shard(others, place)
    assert digests(place) == before
    shard(others, place, overwrite=True)
    assert known(place) == known(others)


@pytest.mark.usefixtures("few")
def test_the_same_data_goes_on_after_any_change_but_of_all_images(
    animals: Path, tmp_path: Path
) -> None:
    place = tmp_path / "shards"
    shard(animals, place)
    *changed, renamed = sorted(animals.rglob("*.*"))
    for number, file in enumerate(changed):
        Image.new("RGB", (9, 9), (number, 200, 77)).save(file)
    renamed.rename(renamed.with_name(f"other{renamed.suffix}"))
    shard(animals, place)
    assert known(place) == known(animals)


def test_unreadable_images_are_named_or_left_out(animals: Path, tmp_path: Path) -> None:
    (animals / "ant/0.jpg").write_bytes((animals / "ant/0.jpg").read_bytes()[:-200])
    with pytest.raises(ContentError, match=r"ant/0\.jpg: broken .*--skip-unreadable"):
        shard(animals, tmp_path / "shards")
    assert [*digests(tmp_path / "shards")] == ["begun.shard-rows"]
    written = shard(animals, tmp_path / "shards", skip_unreadable=True)
    assert [name for name, _ in written.skipped] == ["ant/0.jpg"]
    assert len(read_source(tmp_path / "shards").images["all"]) == 7
    again = shard(animals, tmp_path / "shards", skip_unreadable=True)
    assert (again.kept, again.left_out, again.skipped) == (1, 1, ())


def test_a_folder_of_other_files_is_refused(animals: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").touch()
    with pytest.raises(UsageError, match="thesis"):
        shard(animals, tmp_path / "other")


@pytest.mark.parametrize(
    "name", ["all-000000.tar", "train-000000.tar", "index.parquet", ".mine.tar.gz"]
)
def test_a_file_that_was_not_written_here_is_kept(animals: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "own" / name
    file.parent.mkdir()
    file.write_bytes(b"my only copy")
    with pytest.raises(UsageError, match=name.replace(".", r"\.")):
        shard(animals, file.parent)
    assert file.read_bytes() == b"my only copy"


def test_a_parquet_file_of_others_is_not_replaced_by_the_index(
    animals: Path, tmp_path: Path
) -> None:
    place = tmp_path / "own"
    place.mkdir()
    pq.write_table(pa.table({"mine": [1]}), place / "index.parquet")
    with pytest.raises(UsageError, match=r"index\.parquet"):
        shard(animals, place)
    assert pq.read_table(place / "index.parquet").to_pydict() == {"mine": [1]}


@pytest.mark.usefixtures("few")
def test_a_file_that_was_put_beside_shards_is_kept(animals: Path, tmp_path: Path) -> None:
    """Also under a name that more images would need, and after a run that was stopped."""
    place = tmp_path / "shards"
    shard(animals, place)
    (place / "all-000003.tar").write_bytes(b"my only copy")
    for number in range(2):
        (animals / f"ant/more{number}.png").write_bytes((animals / "ant/1.png").read_bytes())
    with pytest.raises(UsageError, match=r"all-000003\.tar"):
        shard(animals, place)
    assert (place / "all-000003.tar").read_bytes() == b"my only copy"
    (animals / "ant/more1.png").unlink()
    shard(animals, place)
    (place / "all-000003.tar").unlink()
    (animals / "ant/more1.png").write_bytes((animals / "ant/1.png").read_bytes())
    shard(animals, place)
    assert known(place) == known(animals)


@pytest.mark.usefixtures("few")
def test_a_damaged_index_is_written_anew(animals: Path, tmp_path: Path) -> None:
    place = tmp_path / "shards"
    shard(animals, place)
    whole = digests(place)
    index = (place / "index.parquet").read_bytes()
    for cut in (b"", index[: len(index) // 2]):
        (place / "index.parquet").write_bytes(cut)
        assert shard(animals, place).kept == 0
        assert digests(place) == whole


@pytest.mark.parametrize("wrong", [{"size": 0}, {"quality": 101}, {"shard_mb": 0}])
def test_settings_without_a_meaning_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "-")):
        Settings(**({"size": 256, "quality": 90, "shard_mb": 256} | wrong))


def test_an_interruption_ends_no_other_process_of_the_program(
    animals: Path, few: None, tmp_path: Path
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    before = {*multiprocessing.active_children()}  # of earlier tests, until memory is collected
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            shard(animals, tmp_path / "shards", workers=2, progress=interrupted)
        other.join(0.5)
        assert other.is_alive()
        assert {*multiprocessing.active_children()} - before == {other}
    finally:
        other.kill()
        other.join()
