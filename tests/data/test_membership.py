"""Images are recognised whatever they are called, wherever they lie and however they are stored."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from resnets.data.membership import (
    _MOST,
    Generation,
    Members,
    TrainedOn,
    encoded_members,
    member_digests,
)
from resnets.data.sources.opening import open_data, open_source
from resnets.errors import ContentError
from tests.data.sources.test_archives import cifar10, dumps, pixels

Save = Callable[[Image.Image, Path], None]


def members_of(source: Path) -> Members:
    everything = open_source(source, to_learn=False).everything()
    return member_digests(everything.images, everything.digests)


def tiles(count: int = 8, mode: str = "RGB") -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).convert(mode)
        for _ in range(count)
    ]


def written(folder: Path, ending: str, **options: object) -> Path:
    for number, tile in enumerate(tiles()):
        place = folder / "ab"[number % 2] / f"{number}{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        tile.save(place, **options)
    return folder


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        (".bmp", {}),
        (".tif", {}),
        (".webp", {"lossless": True, "exact": True}),
        (".png", {"compress_level": 1}),
    ],
)
def test_pixels_are_recognised_in_every_lossless_format(
    ending: str, options: dict[str, object], tmp_path: Path
) -> None:
    first, second = written(tmp_path / "png", ".png"), tmp_path / "other"
    assert set(members_of(first)) == set(members_of(written(second, ending, **options)))
    assert len(set(members_of(first))) == 8


def test_grey_images_are_recognised_as_grey_palette_and_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGB", "RGBA"):
        for number, tile in enumerate(tiles(4, "L")):
            place = tmp_path / mode / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            tile.convert(mode).save(place)
    members = [set(members_of(tmp_path / mode)) for mode in ("L", "P", "RGB", "RGBA")]
    assert all(each == members[0] for each in members)
    assert len(members[0]) == 4


@pytest.mark.parametrize(("ending", "options"), [(".jpg", {"quality": 95}), (".webp", {})])
def test_a_lossy_file_is_recognised_by_its_bytes_alone(
    ending: str, options: dict[str, object], tmp_path: Path
) -> None:
    lossy = written(tmp_path / "lossy", ending, **options)
    checked = open_source(lossy, to_learn=False).everything()
    assert (members_of(lossy) == encoded_members(checked.digests)).all()
    pixels_of = tmp_path / "decoded"
    for file in lossy.rglob(f"*{ending}"):
        place = pixels_of / file.parent.name / f"{file.stem}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(place)
    assert not set(members_of(lossy)) & set(members_of(pixels_of))


def test_an_image_that_cannot_be_decoded_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    folder = written(tmp_path, ".png")
    broken = folder / "a" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    checked = open_source(folder, to_learn=False).everything()
    changed = members_of(folder) == encoded_members(checked.digests)
    assert [checked.images.names[i] for i in np.flatnonzero(changed)] == ["a/0.png"]


def test_cifar_as_parquet_and_as_its_authors_archive_agree(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-batches-py"
    archive.mkdir()
    for name, content in cifar10().items():
        (archive / name).write_bytes(dumps(content))
    own = open_source(archive)
    rows = []
    for images in own.content.images["train"], own.content.images["test"]:
        for index in range(len(images)):
            content = io.BytesIO()
            Image.fromarray(images.image(index)).save(content, "PNG")
            rows.append({"image": {"bytes": content.getvalue(), "path": None}, "label": index % 2})
    pq.write_table(pa.Table.from_pylist(rows[::-1]), tmp_path / "train.parquet")
    assert set(members_of(archive)) == set(members_of(tmp_path / "train.parquet"))
    assert len(set(members_of(archive))) == len(rows) == len(pixels(0)) * 6


def some(start: int, count: int) -> Members:
    return np.arange(start, start + count, dtype=np.uint64) * np.uint64(2**40 + 7)


def test_a_history_comes_back_from_json_with_all_that_any_generation_has_seen() -> None:
    first = TrainedOn((Generation.of("old", some(0, 50), some(50, 5)),))
    history = first.after(Generation.of("new", some(40, 30), some(70, 5)))
    restored = TrainedOn.from_dict(history.to_dict())
    assert (restored.trained == history.trained).all()
    assert (restored.trained == np.sort(some(0, 70))[np.r_[0:50, 50:70]]).all()
    assert (restored.validated == history.validated).all()
    assert [each.train for each in restored.generations] == [30, 50]
    assert (restored.ancestors.trained == np.sort(some(0, 50))).all()
    assert not restored.unknown


def test_a_file_carries_8_bytes_an_image_each_once_and_of_too_many_the_count() -> None:
    history = TrainedOn((Generation.of("a", some(0, 3000), some(3000, 10)),))
    again = history.after(Generation.of("a", some(0, 3000), some(3000, 10)))
    size = [
        sum(len(g["train"].get("digests", "")) for g in each.to_dict()["generations"])
        for each in (history, again)
    ]
    assert size == [3000 * 8 * 4 / 3] * 2
    few = TrainedOn.from_dict(history.to_dict(most=3009))
    assert few.unknown
    assert (few.generations[0].train, few.generations[0].validation) == (3000, 10)
    assert len(few.trained) == 0
    assert _MOST == 2_000_000


@pytest.mark.parametrize(
    "damaged",
    [
        {"kind": "md5", "generations": []},
        {"kind": "sha256/8", "generations": [{"source": "a"}]},
        {"kind": "sha256/8", "generations": [[]]},
        {"kind": "sha256/8", "generations": 3},
        {
            "kind": "sha256/8",
            "generations": [
                {
                    "source": "a",
                    "train": {"count": 1, "digests": "AAA"},
                    "validation": {"count": 0, "digests": ""},
                }
            ],
        },
        {
            "kind": "sha256/8",
            "generations": [
                {
                    "source": "a",
                    "train": {"count": "many", "digests": ""},
                    "validation": {"count": 0, "digests": ""},
                }
            ],
        },
    ],
)
def test_a_damaged_history_is_refused(damaged: dict[str, object]) -> None:
    with pytest.raises(ContentError, match="trained_on"):
        TrainedOn.from_dict(damaged)


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_digests_of_pixels_are_kept_for_the_next_time_and_a_damaged_cache_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    for number in range(300):
        place = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (number + 1, 1), "red").save(place)
    first = members_of(tmp_path / "data")
    (kept,) = (tmp_path / "cache" / "members").iterdir()
    kept.write_bytes(kept.read_bytes()[:8] * 300)
    assert len(set(members_of(tmp_path / "data").tolist())) == 1  # it is read
    for damage in (b"", b"short", kept.read_bytes() * 2):
        kept.write_bytes(damage)
        assert (members_of(tmp_path / "data") == first).all()
    (tmp_path / "data" / "a" / "0.png").write_bytes((tmp_path / "data/b/1.png").read_bytes())
    changed = members_of(tmp_path / "data")
    assert sorted(changed) != sorted(first)
    monkeypatch.setenv("RESNETS_CACHE", "/dev/null/none")
    assert (members_of(tmp_path / "data") == changed).all()


def test_what_a_file_says_of_its_data_is_escaped() -> None:
    values = TrainedOn((Generation("\x1b[2Jdata", 1, 0, unknown="\x1b[31mnobody"),)).to_dict()
    restored = TrainedOn.from_dict(values)
    assert (restored.in_words() + restored.unknown).isprintable()


def seen(folder: Path, names: set[str]) -> Members:
    everything = open_source(folder, to_learn=False).everything()
    members = member_digests(everything.images, everything.digests)
    return members[[name in names for name in everything.images.names]]


def test_drawn_splits_have_nothing_that_an_earlier_network_was_trained_on(tmp_path: Path) -> None:
    for number in range(60):
        place = tmp_path / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(place)
    plain = open_data(tmp_path)
    assert plain.validation is not None
    assert plain.test is not None
    trained, validated = (
        set(plain.test.names) | set(plain.train.names[:10]),
        {*plain.train.names[10:20]},
    )
    avoid = TrainedOn((Generation.of("x", seen(tmp_path, trained), seen(tmp_path, validated)),))
    splits = open_data(tmp_path, avoid=avoid)
    assert splits.validation is not None
    assert splits.test is not None
    assert not set(splits.test.names) & (trained | validated)
    assert not set(splits.validation.names) & trained
    assert (len(splits.test), len(splits.validation)) == (len(plain.test), len(plain.validation))
    assert trained <= set(splits.train.names)
    again = open_data(tmp_path, avoid=avoid)
    assert [*again.train.names] == [*splits.train.names]


def test_where_all_was_seen_nothing_is_tested_and_what_was_validated_on_validates_again(
    tmp_path: Path,
) -> None:
    folder = written(tmp_path, ".png")
    names = {f"{'ab'[n % 2]}/{n}.png" for n in range(8)}
    validated = {"a/0.png", "b/1.png"}
    avoid = TrainedOn(
        (Generation.of("x", seen(folder, names - validated), seen(folder, validated)),)
    )
    splits = open_data(folder, avoid=avoid)
    assert splits.test is None
    assert splits.validation is not None
    assert set(splits.validation.names) <= validated
    assert splits.split["start_network"]["validated_on"]["validation"] == len(splits.validation)


def test_own_splits_are_without_what_was_seen_and_that_is_counted(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("val", 100), ("test", 200)):
        for number in range(start, start + 8):
            place = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(place)
    leaked = {"val/a/100.png", "test/a/200.png", "test/b/201.png"}
    avoid = TrainedOn((Generation.of("x", seen(tmp_path, leaked), seen(tmp_path, set())),))
    splits = open_data(tmp_path, avoid=avoid)
    assert splits.validation is not None
    assert splits.test is not None
    assert not (set(splits.validation.names) | set(splits.test.names)) & leaked
    assert splits.split["start_network"]["left_out"] == {"validation": 1, "test": 2}
    assert (len(splits.validation), len(splits.test), len(splits.train)) == (7, 6, 8)
