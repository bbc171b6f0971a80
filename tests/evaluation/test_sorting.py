"""Photos are copied by what is predicted of them, and nothing else is ever lost."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import resnets
from resnets.data.sources.layout import layout_of_flags
from resnets.data.sources.opening import read_source
from resnets.data.sources.walking import listing
from resnets.errors import ContentError, UsageError
from resnets.evaluation.predict import Prediction
from resnets.evaluation.sorting import _class_folders, in_words, sort_images, sortable
from resnets.evaluation.source import Source
from tests.in_process import call

NAMES = ("Cat", "cat", "review", "a/b")


@pytest.fixture
def model(untrained: Callable[..., Path]) -> Path:
    """A network that knows classes with names that no folder may have, or that fall together."""
    return untrained(NAMES)


@pytest.fixture
def photos(draw_noise: Callable[..., None], tmp_path: Path) -> Path:
    """Images of one name in three folders, and a broken one."""
    folder = tmp_path / "photos"
    for seed, name in enumerate(("x/1.png", "y/1.png", "z/1.PNG")):
        draw_noise(folder / name, seed=seed)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder that are not hidden, by their relative paths."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_readable_photo_is_copied_once_and_rows_say_where(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    before, target = content(photos), tmp_path / "sorted"
    done = call("predict", model, photos, "--sort", target, "--json")
    assert done.returncode == 1  # one cannot be read
    assert "broken.jpg" in done.stderr
    rows = json.loads(done.stdout)
    went = {row["image"]: row["sorted_to"] for row in rows}
    assert went.pop(str(photos / "broken.jpg")) is None
    assert sorted(content(target).values()) == sorted(Path(name).read_bytes() for name in went)
    for name, copy in went.items():
        assert Path(copy).read_bytes() == Path(name).read_bytes()
        assert Path(copy).stat().st_mtime == pytest.approx(Path(name).stat().st_mtime)
    folders = _class_folders(NAMES)
    assert {Path(row["sorted_to"]).parent.name for row in rows if row["sorted_to"]} == {
        folders[row["prediction"]] for row in rows if row["prediction"]
    }
    assert content(photos) == before
    assert len({copy.lower() for copy in went.values()}) == len(went) == 3


def test_folders_of_classes_are_distinct_and_allowed_everywhere() -> None:
    names = [
        "review",
        "Review",
        "é",
        "e\u0301",
        "con",
        "../up",
        ".git",
        "",
        "a:b",
        "a?b",
        "x" * 999,
    ]
    folders = list(_class_folders(names).values())
    assert len({name.casefold() for name in ["review", *folders]}) == len(names) + 1
    for name in folders:
        assert not set(name) & set('<>:"/\\|?*')
        assert name[0] != "."
        assert 0 < len(name.encode()) <= 255


def test_what_is_unsure_or_unfamiliar_is_to_be_reviewed(photos: Path, tmp_path: Path) -> None:
    sources = [Source(each, photos / each) for each in ("x/1.png", "y/1.png", "z/1.PNG")]
    predictions = [
        Prediction("x/1.png", "Cat", 0.9, "ok"),
        Prediction("y/1.png", "Cat", 0.9, "unfamiliar"),
        Prediction("z/1.PNG", "cat", 0.4, "unsure"),
    ]
    sort_images(predictions, sources, tmp_path / "s", NAMES)
    assert set(content(tmp_path / "s")) == {"Cat/1.png", "review/1.png", "review/1-2.PNG"}


def test_a_folder_with_content_is_replaced_only_if_it_was_sorted_and_only_the_copies(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "sorted"
    assert call("predict", model, photos / "x", "--sort", target).returncode == 0
    refused = call("predict", model, photos / "y", "--sort", target)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    (first,) = content(target)
    folder = (target / first).parent
    (folder / "mine.png").write_bytes(b"put there by hand")
    assert call("predict", model, photos / "y", "--sort", target, "--overwrite").returncode == 0
    files = content(target)
    assert files.pop((folder / "mine.png").relative_to(target).as_posix()) == b"put there by hand"
    assert list(files.values()) == [(photos / "y" / "1.png").read_bytes()]
    (copy,) = files
    (target / copy).write_bytes(b"changed by hand")
    assert call("predict", model, photos / "x", "--sort", target, "--overwrite").returncode == 0
    assert b"changed by hand" in content(target).values()
    assert len(content(target)) == 3
    for strange in (photos, model.parent):
        done = call("predict", model, photos / "x", "--sort", strange, "--overwrite")
        assert done.returncode == 2
        assert "not from" in done.stderr


def test_a_record_that_leads_out_of_the_folder_removes_nothing(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    target, victim = tmp_path / "sorted", photos / "x" / "1.png"
    target.mkdir()
    status = victim.stat()
    facts = [status.st_size, int(status.st_mtime)]
    (target / "linked").symlink_to(photos / "x")
    record = {"../photos/x/1.png": facts, "../1.png": facts, str(victim): facts}
    record["linked/1.png"] = facts
    (target / ".sorted.json").write_text(json.dumps({"copies": record}), encoding="utf-8")
    assert call("predict", model, victim, "--sort", target, "--overwrite").returncode == 0
    assert victim.exists()
    (target / ".sorted.json").write_text("[]", encoding="utf-8")
    damaged = call("predict", model, victim, "--sort", target, "--overwrite")
    assert (damaged.returncode, len(damaged.stderr.splitlines())) == (2, 1)


def test_sorted_photos_inside_of_their_source_are_no_data(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    target = photos / "sorted"
    before = set(listing(photos).images)
    for flags in ([], ["--overwrite"]):
        done = call("predict", model, photos, "--sort", target, "--json", *flags)
        assert {row["image"] for row in json.loads(done.stdout)} == {
            str(photos / name) for name in before
        }
    assert set(listing(photos).images) == before
    assert len(listing(target).images) == 3  # but the folder itself may be trained on
    with pytest.raises(UsageError, match="sorted into"):
        sortable([Source("copy", path) for path in target.rglob("*.png")], target)


def test_other_outputs_and_files_say_it_too(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.parquet"
    done = call("predict", model, photos, "--sort", tmp_path / "s", "--parquet", table)
    assert done.returncode == 1
    columns = pq.read_table(table)  # type: ignore[no-untyped-call]
    assert sum(each is not None for each in columns["sorted_to"].to_pylist()) == 3
    printed = call("predict", model, photos, "--sort", tmp_path / "t", "--csv").stdout
    assert "sorted_to" in printed.splitlines()[0]
    assert call("predict", model, photos, "--overwrite").returncode == 2
    assert call("predict", model, "-", "--sort", tmp_path / "u", stdin=b"x").returncode == 2


def test_python_sorts_files_alike(model: Path, photos: Path, tmp_path: Path) -> None:
    predictions = resnets.predict(model, photos, sort=tmp_path / "s")
    assert (
        sum(each.sorted_to is not None for each in predictions) == len(content(tmp_path / "s")) == 3
    )
    with pytest.raises(UsageError, match="overwrite=True"):
        resnets.predict(model, photos, sort=tmp_path / "s")
    with pytest.raises(UsageError, match="copies files"):
        resnets.predict(model, (photos / "x" / "1.png").read_bytes(), sort=tmp_path / "t")


def test_what_is_left_to_review_is_no_class(photos: Path, tmp_path: Path) -> None:
    """Elsewhere a class may be called so, which is told: the folders may have been moved."""
    sources = [Source(each, photos / each) for each in ("x/1.png", "y/1.png", "z/1.PNG")]
    answers = [("Cat", "ok"), ("a/b", "ok"), ("cat", "unsure")]
    predictions = [
        Prediction(source.name, name, 0.9, status)  # type: ignore[arg-type]
        for source, (name, status) in zip(sources, answers, strict=True)
    ]
    target = tmp_path / "data" / "train"
    sort_images(predictions, sources, target, NAMES)
    for data in (
        read_source(str(target)),
        read_source(str(target.parent), layout_of_flags(None, {"train": "train"}, None)),
    ):
        assert list(data.class_names) == ["Cat", "a_b"]
        assert any("left to review" in line for line in data.warnings)
    done = call("doctor", target)
    assert "left to review" in done.stdout + done.stderr
    (target / ".sorted.json").unlink()
    moved = read_source(str(target))
    assert "review" in moved.class_names
    assert any("left to review" in line for line in moved.warnings)


def test_where_all_is_left_to_review_that_is_told(photos: Path, tmp_path: Path) -> None:
    source = Source("x/1.png", photos / "x/1.png")
    unsure = Prediction(source.name, "Cat", 0.4, "unsure")
    sort_images([unsure], [source], tmp_path / "sorted", NAMES)
    with pytest.raises(ContentError, match="left to review"):
        read_source(str(tmp_path / "sorted"))


def test_a_class_whose_folder_has_another_name_is_told_once(photos: Path, tmp_path: Path) -> None:
    sources = [Source(each, photos / each) for each in ("x/1.png", "y/1.png", "z/1.PNG")]
    names = ("a/b", "a/b", "Cat")
    predictions = [
        Prediction(source.name, name, 0.9, "ok")
        for source, name in zip(sources, names, strict=True)
    ]
    text = "\n".join(in_words(sort_images(predictions, sources, tmp_path / "s", NAMES), NAMES))
    assert text.count("'a/b'") == text.count("'a_b'") == 1
    assert "'Cat'" not in text
    assert "'cat'" not in text  # which no image was sorted into


def test_a_full_disk_is_told_of_the_copy_and_the_same_command_sorts_anew(
    model: Path, draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: the system refuses to write on alike."""
    resource = pytest.importorskip("resource")
    photos, target = tmp_path / "photos", tmp_path / "s"
    for number in range(4):
        draw_noise(photos / f"{number}.png", seed=number)
    draw_noise(photos / "4.png", width=500, height=500)
    words = ("predict", model, photos, "--sort", target)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        full = call(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(f"resnets predict: {target}")
    assert "4 of 5 images are sorted" in full.stderr
    assert len(content(target)) == 4
    (photos / "0.png").unlink()
    assert call(*words).returncode == 0
    assert sorted(content(target).values()) == sorted(content(photos).values())
    assert call(*words).returncode == 2  # this one was not broken off
