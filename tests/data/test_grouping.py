"""What belongs together is in one split: by folders, by a pattern of the path, or by a column."""

import hashlib
import io
import itertools
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.grouping import GroupBy, GroupingError
from resnets.data.sources.layout import CLASSES_FIRST
from resnets.data.sources.opening import Splits, open_data, open_source
from resnets.data.splits import SplitRule, draw, merged
from resnets.errors import UsageError

Groups = np.ndarray[Any, np.dtype[np.int64]]
Digests = np.ndarray[Any, np.dtype[np.uint8]]

BY_FOLDER = SplitRule(group_by="folder:1")


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Groups, Digests, Groups]:
    """Labels, contents (some of which are there twice) and groups of images."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, groups = draw(st.integers(1, 80)), draw(st.integers(1, 30))
    digests = random.integers(0, 256, (count, 32), dtype=np.uint8)
    copies = draw(st.integers(0, count // 4))
    digests[:copies] = digests[random.integers(0, count, copies)]
    return random.integers(0, 3, count), digests, random.integers(0, groups, count)


def together(digests: Digests, groups: Groups) -> Groups:
    return merged(groups, [row.tobytes() for row in digests])


@given(grouped(), st.floats(0, 0.9))
def test_no_group_and_no_picture_is_on_both_sides(
    content: tuple[Groups, Digests, Groups], fraction: float
) -> None:
    labels, digests, groups = content
    chosen = draw(labels, digests, fraction, "key", together(digests, groups))
    for values in (groups.tolist(), [row.tobytes() for row in digests]):
        drawn = {value for value, one in zip(values, chosen, strict=True) if one}
        left = {value for value, one in zip(values, chosen, strict=True) if not one}
        assert not drawn & left
    for label in np.unique(labels):
        assert not chosen[labels == label].all()


@given(grouped(), st.floats(0, 0.9), st.randoms())
def test_neither_the_order_nor_the_numbers_of_groups_matter(
    content: tuple[Groups, Digests, Groups], fraction: float, shuffled: random.Random
) -> None:
    labels, digests, groups = content
    order = list(range(len(labels)))
    shuffled.shuffle(order)
    numbers = list(range(1000))
    shuffled.shuffle(numbers)
    other = np.array(numbers)[groups][order]
    first = draw(labels, digests, fraction, "key", together(digests, groups))
    again = draw(labels[order], digests[order], fraction, "key", together(digests[order], other))
    assert {row.tobytes() for row in digests[first]} == {
        row.tobytes() for row in digests[order][again]
    }


@given(grouped())
def test_groups_that_share_a_picture_are_one_whatever_the_way(
    content: tuple[Groups, Digests, Groups],
) -> None:
    """Connected components, found again by spreading through all that is linked."""
    _, digests, groups = content
    rows = [row.tobytes() for row in digests]
    components = merged(groups, rows)
    count = len(rows)
    linked = np.array(
        [[groups[i] == groups[j] or rows[i] == rows[j] for j in range(count)] for i in range(count)]
    )
    for _ in range(count.bit_length()):
        linked = linked @ linked
    np.testing.assert_array_equal(components[:, None] == components[None, :], linked)


def encode(seed: Any) -> bytes:
    digest = hashlib.sha256(repr(seed).encode()).digest()
    pixels = np.random.default_rng(list(digest)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(root: Path, paths: Iterable[str]) -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(path))
    return root


def patients(people: int = 12, images: int = 5) -> list[str]:
    """Each person has images in both classes."""
    return [
        f"{label}/p{person:02}/{number}.png"
        for label in ("ill", "well")
        for person in range(people)
        for number in range(images)
    ]


def people_in(splits: Splits, place: Callable[[str], str]) -> list[set[str]]:
    """The groups in each split; fails where one is in two."""
    parts = [part for part in (splits.train, splits.validation, splits.test) if part is not None]
    groups = [{place(name) for name in part.names} for part in parts]
    for one, other in itertools.combinations(groups, 2):
        assert not one & other
    return groups


def person(name: str) -> str:
    return name.split("/")[-2]


def test_a_person_with_images_of_several_classes_is_in_one_split(tmp_path: Path) -> None:
    root = write(tmp_path, patients())
    plain = open_source(root, layout=CLASSES_FIRST).splits()
    with pytest.raises(AssertionError):  # or there is nothing to test here
        people_in(plain, person)
    splits = open_data(root, validation=0.2, test=0.25, split_rule=BY_FOLDER)
    assert [len(each) for each in people_in(splits, person)] == [7, 2, 3]
    assert splits.split["group_by"] == "folder:1"
    assert "group_by" not in plain.split
    assert plain.fingerprint == splits.fingerprint


def test_seeds_draw_other_groups_and_names_and_order_do_not_matter(tmp_path: Path) -> None:
    root = write(tmp_path / "a", patients())
    tests = {
        frozenset(people_in(open_data(root, test_seed=seed, split_rule=BY_FOLDER), person)[-1])
        for seed in range(8)
    }
    assert len(tests) > 3
    before = people_in(open_data(root, split_rule=BY_FOLDER), person)
    for label in ("ill", "well"):
        for number in range(12):
            (root / label / f"p{number:02}").rename(root / label / f"q{(5 * number) % 12:02}")
    after = people_in(open_data(root, split_rule=BY_FOLDER), person)
    renamed = [{f"q{5 * int(name[1:]) % 12:02}" for name in part} for part in before]
    assert renamed == after


def test_equal_pictures_of_two_people_tie_them(tmp_path: Path) -> None:
    root = write(tmp_path, patients())
    for number in range(1, 12, 2):
        shutil.copy(root / f"ill/p{number:02}/0.png", root / f"well/p{number - 1:02}/copy.png")
    people = people_in(
        open_data(root, validation=0.2, test=0.2, split_rule=BY_FOLDER),
        lambda name: str(int(person(name)[1:]) // 2),
    )
    assert sum(map(len, people)) == 6


@pytest.mark.parametrize(
    ("by", "place"),
    [
        ("folder:2", lambda name: "/".join(name.split("/")[1:3])),
        ("pattern:/(p\\d+)/", lambda name: name.split("/")[2]),
        ("pattern:(?:^|/)site(.)", lambda name: name.split("/")[1]),
    ],
)
def test_deeper_folders_and_patterns(tmp_path: Path, by: str, place: Callable[[str], str]) -> None:
    paths = [
        f"{label}/site{site}/p{number}/{image}.png"
        for label in ("a", "b")
        for site in "xyz"
        for number in range(5)
        for image in range(2)
    ]
    splits = open_data(write(tmp_path, paths), test=0.3, split_rule=SplitRule(group_by=by))
    assert len(people_in(splits, place)) >= 2


def rows(count: int = 48) -> Iterator[tuple[str, str, str]]:
    """Path, label and person of a table."""
    for number in range(count):
        yield f"{number}.png", ("ill", "well")[number % 2], f"person {number // 4}"


def test_a_column_of_a_table(tmp_path: Path) -> None:
    write(tmp_path, (path for path, _, _ in rows()))
    lines = [f"{who},{path},{label}" for path, label, who in rows()]
    random.Random(0).shuffle(lines)
    (tmp_path / "table.csv").write_text("\n".join(["who,path,label", *lines]), encoding="utf-8")
    split_rule = SplitRule(group_by="column:who")
    splits = open_data(tmp_path / "table.csv", validation=0.2, test=0.2, split_rule=split_rule)
    people = people_in(splits, lambda name: str(int(name.removesuffix(".png")) // 4))
    assert [len(each) for each in people] == [8, 2, 2]


def test_a_column_of_parquet_files(tmp_path: Path) -> None:
    for part in range(2):
        own = [row for number, row in enumerate(rows()) if number % 2 == part]
        table = pa.table(
            {
                "image": [{"bytes": encode(path), "path": path} for path, _, _ in own],
                "label": [label for _, label, _ in own],
                "who": pa.array([int(who.split()[1]) for _, _, who in own]),
            }
        )
        pq.write_table(table, tmp_path / f"all-{part}.parquet")
    splits = open_data(
        tmp_path, validation=0.2, test=0.2, split_rule=SplitRule(group_by="column:who")
    )

    def who(name: str) -> str:
        file, row = name.removesuffix("]").split("[")
        return str((2 * int(row) + int(file[4])) // 4)

    assert [len(each) for each in people_in(splits, who)] == [8, 2, 2]


def test_groups_in_two_of_the_sources_own_splits_are_named(tmp_path: Path) -> None:
    paths = [f"train/{path}" for path in patients(6)] + [f"test/{path}" for path in patients(3)]
    splits = open_data(write(tmp_path, paths), split_rule=BY_FOLDER)
    (warning,) = splits.warnings
    assert "3 groups" in warning
    assert "'p00'" in warning
    assert people_in_two(splits.train.names, splits.validation.names if splits.validation else ())


def people_in_two(one: Iterable[str], other: Iterable[str]) -> bool:
    return not {*map(person, one)} & {*map(person, other)}


def test_images_that_are_each_a_group_of_their_own_are_named(tmp_path: Path) -> None:
    split_rule = SplitRule(group_by="pattern:(.*)")
    (warning,) = open_data(write(tmp_path, patients(4)), split_rule=split_rule).warnings
    assert "its own" in warning


@pytest.mark.parametrize(
    "text",
    ["patient", "folder", "folder:", "folder:0", "folder:-1", "folder:a", "pattern:(", "pattern:a",
     "pattern:(a)(b)", "column:", "camera:1", ""],
)  # fmt: skip
def test_what_names_no_groups_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--group-by"):
        GroupBy.parse(text)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("folder:2", r"ill/p00/0\.png and 119 more.*level 2"),
        ("pattern:(nobody)", r"ill/p00/0\.png and 119 more.*not matched"),
        ("pattern:(x*)", "not matched"),
        ("pattern:(png)", "all 120 images are in one group"),
        ("column:who", "no such column"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(tmp_path: Path, by: str, message: str) -> None:
    with pytest.raises(GroupingError, match=message):
        open_data(write(tmp_path, patients()), split_rule=SplitRule(group_by=by))


def test_columns_that_are_missing_or_have_gaps_are_refused(tmp_path: Path) -> None:
    write(tmp_path, (path for path, _, _ in rows()))
    lines = [f"{path},{label},{who}" for path, label, who in rows()]
    lines[5] = lines[5].rpartition(",")[0] + ","
    (tmp_path / "table.csv").write_text("\n".join(["path,label,who", *lines]), encoding="utf-8")
    for by, message in (("who", r"5\.png: without a value"), ("Who", "'path', 'label', 'who'")):
        with pytest.raises(GroupingError, match=message):
            open_data(tmp_path / "table.csv", split_rule=SplitRule(group_by=f"column:{by}"))
    with pytest.raises(GroupingError, match="folders"):
        open_data("digits", split_rule=BY_FOLDER)
