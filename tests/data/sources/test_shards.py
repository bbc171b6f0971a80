"""The folder that shards were made from is the witness."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnets import cli
from resnets.data import shards
from resnets.data.membership import (
    Generation,
    TrainedOn,
    encoded_members,
    known_member,
    member_digests,
    ranks,
)
from resnets.data.places import LocalFolder
from resnets.data.remote import Place
from resnets.data.sharding import Settings, write_shards
from resnets.data.sources.opening import open_data, open_source, read_source
from resnets.data.splits import NEVER, SplitRule
from resnets.errors import ContentError, OtherImages
from resnets.evaluation.doctor.diagnosis import diagnose
from resnets.runs import frozen_features
from resnets.runs.supervision import restore


@pytest.fixture
def animals(tmp_path: Path, encoded: Callable[..., bytes]) -> Path:
    """Two classes of six images, 20 x 16 pixels, three of each day."""
    for number in range(12):
        name = ("ant", "bee")[number % 2]
        file = tmp_path / "images" / name / f"{name}-day-{number % 3}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(number, ".png", (20, 16)))
    return tmp_path / "images"


@pytest.fixture
def place(animals: Path, tmp_path: Path) -> Path:
    """Shards of the animals, 10 x 8 pixels each."""
    folder = LocalFolder(tmp_path / "shards")
    write_shards(read_source(animals), folder, Settings(8, 90, 1), workers=0)
    return folder.path


def test_the_same_images_are_drawn_as_from_the_folder(animals: Path, place: Path) -> None:
    for rule in (SplitRule(), SplitRule(rule=1), SplitRule(group_by="folder:1")):
        ours, theirs = (
            open_data(source, validation=0.3, split_rule=rule) for source in (place, animals)
        )
        assert ours.fingerprint == theirs.fingerprint
        for split in ("train", "validation", "test"):
            own, other = getattr(ours, split), getattr(theirs, split)
            assert {*(own.names if own else ())} == {*(other.names if other else ())}


def test_groups_of_a_table_are_kept(animals: Path, tmp_path: Path) -> None:
    """The same splits as from the table; a value that changes is written anew."""
    files = sorted(animals.rglob("*.png"))
    table, folder = tmp_path / "table.csv", LocalFolder(tmp_path / "of a table")

    def write(last: str) -> int:
        days = [*(f"day {number % 3}" for number in range(11)), last]
        captions = ["a long text " * 20] * 12
        lines = zip(
            (f"{file},{file.parent.parent.name}" for file in files), days, captions, strict=True
        )
        table.write_text("\n".join(["path,label,day,caption", *map(",".join, lines)]), "utf-8")
        return write_shards(read_source(table), folder, Settings(8, 90, 1), workers=0).kept

    assert [write("day 2"), write("day 2"), write("day 1")] == [0, 1, 0]
    rule = SplitRule(group_by="column:day")
    ours, theirs = (
        open_data(source, validation=0.3, split_rule=rule) for source in (folder.path, table)
    )
    assert ours.split["groups"] == theirs.split["groups"]
    assert (
        {*ours.train.names}
        == {*theirs.train.names}
        != {*open_data(table, validation=0.3).train.names}
    )
    assert "caption" not in read_source(folder.path).columns


def test_what_is_read_has_a_fingerprint_of_its_own(animals: Path, tmp_path: Path) -> None:
    """It tells shards of another size or quality; copied byte by byte, it is the folder's."""
    stored = []
    for size, quality in ((8, 90), (8, 80), (10, 90), (99, 90)):
        folder = LocalFolder(tmp_path / f"{size}-{quality}")
        write_shards(read_source(animals), folder, Settings(size, quality, 1), workers=0)
        splits = open_data(folder.path)
        assert splits.fingerprint == open_data(animals).fingerprint
        stored.append(splits.stored)
    assert len({*stored}) == 4
    assert stored[3] == open_data(animals).stored


def test_a_run_does_not_go_on_with_shards_of_another_size(animals: Path, place: Path) -> None:
    before, after = open_data(animals), open_data(place)
    state = {"fingerprint": before.fingerprint, "stored": before.stored}
    with pytest.raises(OtherImages, match="size"):
        restore(None, state, after)  # type: ignore[arg-type]
    with pytest.raises(OtherImages, match="not the images"):
        restore(None, state | {"fingerprint": "0" * 64}, before)  # type: ignore[arg-type]


def test_features_of_images_in_shards_are_not_those_of_their_originals(
    animals: Path, place: Path
) -> None:
    keys = []
    for source in (animals, place):
        splits = open_data(source)
        setup: Any = SimpleNamespace(splits=splits)
        own = frozen_features._keys(setup, splits.train)
        keys.append({*own})
    assert not keys[0] & keys[1]


def test_what_was_trained_on_the_one_is_known_in_the_other(animals: Path, place: Path) -> None:
    for trained, evaluated in ((animals, place), (place, animals)):
        one, other = (open_source(source).everything() for source in (trained, evaluated))
        members = member_digests(one.images, one.digests)
        history = TrainedOn((Generation.of("", members[:4], members[4:6]),))
        image_ranks = ranks(member_digests(other.images, other.digests), history)
        assert {*np.array(other.images.names)[image_ranks == NEVER]} == {*one.images.names[:4]}
        assert (image_ranks == 1).sum() == 2


def test_an_image_is_read_once_to_look_at_and_never_to_be_recognised(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample by which the white level is found included; but of others' tar files, for JPEG."""
    read = list[Place]()
    read_place = LocalFolder.read

    def counted(self: LocalFolder, place: Place) -> bytes:
        read.append(place)
        return read_place(self, place)

    monkeypatch.setattr(LocalFolder, "read", counted)
    monkeypatch.setattr("resnets.data.white_level.SAMPLE", 1)
    diagnose(read_source(place))
    assert len(read) == len({*read}) == 12
    ours = open_source(place).everything()
    (place / "index.parquet").unlink()
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    theirs = open_source(place).everything()
    read.clear()
    members = [member_digests(each.images, each.digests) for each in (ours, theirs)]
    assert not read
    for each, own in zip((ours, theirs), members, strict=True):
        digests = zip(each.images.indices.tolist(), each.digests, strict=True)
        assert [known_member(each.images.storage, row) for row, _ in digests] == own.tolist()
    assert members[1].tolist() == encoded_members(theirs.digests).tolist()  # as JPEG is lossy


def test_all_commands_take_the_folder_or_its_index(
    place: Path, untrained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(untrained(("ant", "bee")))
    assert cli.main(["evaluate", model, str(place / "index.parquet")]) == 0
    assert cli.main(["doctor", str(place)]) == 0
    text = "".join(capsys.readouterr())
    assert "12" in text
    assert "another format" not in text  # the names are those of the originals


def test_a_large_index_is_mapped_and_read_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_memory = read_source(place).images["all"]
    monkeypatch.setattr(shards, "_MAPPED", 1)
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))

    for _ in range(2):
        mapped = read_source(place).images["all"]
        sent = pickle.loads(pickle.dumps(mapped))  # noqa: S301  (as to a worker process)
        assert len(pickle.dumps(mapped.storage)) < 2_000
        for images in (mapped, sent):
            assert images.encoded(3) == in_memory.encoded(3)
            assert images.storage.digests(3) == in_memory.storage.digests(3)
    assert len([*(tmp_path / "cache/shards").iterdir()]) == 1


def test_a_damaged_shard_is_one_clear_error(place: Path) -> None:
    tar = place / "all-000000.tar"
    content = bytearray(tar.read_bytes())
    images = read_source(place).images["all"]
    offset = images.storage.index.place(5).offset
    content[offset + 100] ^= 1
    tar.write_bytes(content)
    with pytest.raises(ContentError, match=r"all-000000.tar is damaged.*copy it again"):
        images.image(5)
    images.image(4)
    tar.write_bytes(content[: images.storage.index.place(11).offset])
    with pytest.raises(ContentError, match=r"all-000000.tar: .* bytes, and should have"):
        read_source(place)
    with pytest.raises(ContentError, match="cut off"):
        images.image(11)
    (place / "all-000000.tar").unlink()
    with pytest.raises(ContentError, match=r"all-000000.tar: missing"):
        read_source(place)


@settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.data())
def test_a_damaged_index_is_one_clear_error(place: Path, data: st.DataObject) -> None:
    whole = (place / "index.parquet").read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:where]
    else:
        damaged = whole[:where] + bytes([whole[where] ^ data.draw(st.integers(1, 255))])
        damaged += whole[where + 1 :]
    (place / "index.parquet").write_bytes(damaged)
    try:
        read_source(place)
    except ContentError as error:
        problem = str(error)
    else:
        problem = "index.parquet: harmless"
    finally:
        (place / "index.parquet").write_bytes(whole)
    assert "index.parquet" in problem or ".tar" in problem
    assert "\n" not in problem


def test_no_damage_of_an_index_changes_a_label(place: Path) -> None:
    sound, file = read_source(place).images["all"], place / "index.parquet"
    whole = file.read_bytes()
    for where in range(4, len(whole), 3):
        file.write_bytes(whole[:where] + bytes([whole[where] ^ 4]) + whole[where + 1 :])
        try:
            images = read_source(place).images["all"]
        except ContentError:
            continue
        assert images.labels.tolist() == sound.labels.tolist(), where
        assert images.class_names == sound.class_names, where


def test_the_index_has_the_checksum_of_each_shard_and_the_number_of_each_class(
    place: Path,
) -> None:
    schema = pq.read_schema(place / "index.parquet")
    about = shards.About.of(schema)
    assert about.class_names == ("ant", "bee")
    assert about.splits == (shards.SplitCounts("all", (6, 6)),)
    for shard in about.shards:
        assert shard.sha256 == hashlib.sha256((place / shard.file).read_bytes()).hexdigest()
    table = pq.read_table(place / "index.parquet")
    assert {*table["width"].to_pylist()} == {10}
    assert {*table["height"].to_pylist()} == {8}
