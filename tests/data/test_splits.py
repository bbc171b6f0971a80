import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.data.sources import Splits, open_data
from resnets.data.splits import draw, fingerprint, share
from resnets.errors import UsageError

Folder = Callable[[Iterable[str]], Path]
Labels = np.ndarray[Any, np.dtype[np.int64]]
Digests = np.ndarray[Any, np.dtype[np.uint8]]

fractions = st.floats(0, 1, exclude_max=True)


@st.composite
def contents(draw: st.DrawFn) -> tuple[Labels, Digests]:
    """Labels and contents, no two of which are the same."""
    labels = draw(st.lists(st.integers(0, 5), min_size=1, max_size=60))
    seed = draw(st.integers(0, 2**32))
    digests = np.random.default_rng(seed).integers(0, 256, (len(labels), 32), dtype=np.uint8)
    return np.array(labels), digests


@given(contents(), fractions)
def test_every_class_gives_its_fraction_within_one_image_and_keeps_one(
    content: tuple[Labels, Digests], fraction: float
) -> None:
    labels, digests = content
    chosen = draw(labels, digests, fraction, "")
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        given_away = int(chosen[labels == label].sum())
        assert abs(given_away - fraction * count) <= 1
        assert 0 <= given_away < count


@given(st.integers(3, 10**6), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_of_three_images_or_more_each_side_has_one(count: int, fraction: float) -> None:
    assert 1 <= share(count, fraction) <= count - 1


@given(contents(), fractions, st.data())
def test_the_order_of_the_images_does_not_matter(
    content: tuple[Labels, Digests], fraction: float, data: st.DataObject
) -> None:
    labels, digests = content
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    chosen = draw(labels, digests, fraction, "key")
    np.testing.assert_array_equal(
        draw(labels[order], digests[order], fraction, "key"), chosen[order]
    )


@given(contents(), fractions)
def test_another_image_moves_at_most_one(content: tuple[Labels, Digests], fraction: float) -> None:
    labels, digests = content
    before = draw(labels[:-1], digests[:-1], fraction, "key")
    after = draw(labels, digests, fraction, "key")[:-1]
    assert (before != after).sum() <= 1


def test_draws_with_different_keys_are_independent() -> None:
    """Of 10,000 images the overlap of two tenths is binomial: 100 +- 10."""
    labels = np.zeros(10_000, dtype=np.int64)
    digests = np.random.default_rng(0).integers(0, 256, (10_000, 32), dtype=np.uint8)
    first, second = (draw(labels, digests, 0.1, key) for key in ("test 0 ", "validation 0 "))
    assert first.sum() == second.sum() == 1000
    assert 60 < (first & second).sum() < 140


def rows(splits: Splits) -> list[set[str]]:
    """The names in each split that there is."""
    parts = (splits.train, splits.validation, splits.test)
    return [set(part.names) for part in parts if part is not None]


@pytest.mark.parametrize("validation", [0, 0.1, 0.5])
@pytest.mark.parametrize("test", [0, 0.25])
def test_splits_are_disjoint_and_nothing_is_lost(validation: float, test: float) -> None:
    splits = open_data("digits", validation=validation, test=test)
    found = rows(splits)
    assert set().union(*found) == {f"digits[{index}]" for index in range(1797)}
    assert sum(map(len, found)) == 1797
    assert (splits.validation is None) == (validation == 0)
    assert (splits.test is None) == (test == 0)


def test_the_seed_draws_the_validation_split_and_the_test_split_has_its_own() -> None:
    """So networks trained with different seeds are scored on images that none of them has seen."""
    one, same, other = (rows(open_data("digits", seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one[1] != other[1]
    assert one[2] == other[2]
    assert rows(open_data("digits", test_seed=1))[2] != one[2]


def test_the_splits_and_the_fingerprint_do_not_depend_on_names(folder: Folder) -> None:
    paths = [f"{name}/{number:03}.png" for name in ("cat", "dog") for number in range(30)]
    root = folder(paths)
    before = open_data(root)
    assert before.validation is not None
    contents = [before.validation.encoded(i) for i in range(len(before.validation))]
    for path in paths:
        number = int(path[4:7])
        (root / path).rename(root / path[:4] / f"renamed-{97 * number % 101}.png")
    after = open_data(root)
    assert after.validation is not None
    again = [after.validation.encoded(i) for i in range(len(after.validation))]
    assert sorted(contents) == sorted(again)
    assert before.fingerprint == after.fingerprint


def test_the_fingerprint_changes_with_every_byte_label_name_and_split(folder: Folder) -> None:
    paths = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(4)]
    root = folder(paths)
    seen = {open_data(root).fingerprint}
    file = root / "cat/0.png"
    file.write_bytes(file.read_bytes() + b"x")
    seen.add(open_data(root).fingerprint)
    file.rename(root / "dog/new.png")
    seen.add(open_data(root).fingerprint)
    (root / "cat").rename(root / "cow")
    seen.add(open_data(root).fingerprint)
    for name in ("cow", "dog"):
        (root / "train").mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)
    seen.add(open_data(root).fingerprint)
    assert len(seen) == 5
    assert {len(value) for value in seen} == {64}


@given(contents(), st.randoms())
def test_the_fingerprint_is_of_a_set(content: tuple[Labels, Digests], random: Any) -> None:
    labels, digests = content
    order = list(range(len(labels)))
    random.shuffle(order)
    names = tuple("abcdef")
    assert fingerprint(names, {"all": (labels, digests)}) == fingerprint(
        names, {"all": (labels[order], digests[order])}
    )


def test_how_it_was_split_is_plain_json_and_repeats_it() -> None:
    splits = open_data("digits", validation=0.2, seed=3, test=0.15, test_seed=4)
    split = json.loads(json.dumps(splits.split))
    assert split == splits.split
    assert split["test"] == {"from": "all", "fraction": 0.15, "seed": 4}
    assert split["validation"] == {"from": "train", "fraction": 0.2, "seed": 3}
    again = open_data(
        split["source"],
        validation=split["validation"]["fraction"],
        seed=split["validation"]["seed"],
        test=split["test"]["fraction"],
        test_seed=split["test"]["seed"],
    )
    assert rows(again) == rows(splits)
    assert {name: sum(own.values()) for name, own in split["counts"].items()} == {
        "train": len(splits.train),
        "validation": len(splits.validation or ()),
        "test": len(splits.test or ()),
    }


def test_the_sources_own_splits_are_taken_as_they_are(folder: Folder) -> None:
    paths = [
        f"{split}/{name}/{number}.png"
        for split in ("train", "val", "test")
        for name in ("cat", "dog")
        for number in range(3)
    ]
    splits = open_data(folder(paths))
    assert rows(splits) == [
        {path for path in paths if path.startswith(split)} for split in ("train", "val", "test")
    ]
    assert splits.split["validation"] == splits.split["test"] == {"from": "source"}


def test_a_validation_split_that_is_not_wanted_is_not_learnt_from(folder: Folder) -> None:
    paths = [f"{s}/{c}/{n}.png" for s in ("train", "val") for c in ("cat", "dog") for n in range(9)]
    splits = open_data(folder(paths), validation=0, test=0)
    assert splits.validation is None
    assert len(splits.train) == 18
    assert splits.warnings == ("the 18 validation images of the source are left out",)
    assert splits.split["validation"] is None


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_fraction_out_of_range_is_refused(name: str, fraction: float) -> None:
    with pytest.raises(UsageError, match=rf"{name}: .* is not a fraction in \[0, 1\)"):
        open_data("digits", **{name: fraction})
