import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnets.data.sources.opening import Splits, open_data, read_source
from resnets.data.splits import SplitRule, _share, assign_folds, draw, fingerprint
from resnets.errors import ContentError, UsageError

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
    assert 1 <= _share(count, fraction) <= count - 1


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
    names = rows(splits)
    assert set().union(*names) == {f"digits[{index}]" for index in range(1797)}
    assert sum(map(len, names)) == 1797
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
    assert splits.warnings == ("the source's 18 validation images left out",)
    assert splits.split["validation"] is None


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_fraction_out_of_range_is_refused(name: str, fraction: float) -> None:
    with pytest.raises(UsageError, match=rf"{name}: .* is not a fraction in \[0, 1\)"):
        open_data("digits", **{name: fraction})


@st.composite
def repeated(draw: st.DrawFn) -> tuple[Labels, Digests]:
    """Labels and contents, many of which are there several times, under one label or several."""
    seed, count = draw(st.integers(0, 2**32)), draw(st.integers(1, 60))
    random = np.random.default_rng(seed)
    digests = random.integers(0, 256, (60, 32), dtype=np.uint8)
    which = random.integers(0, draw(st.integers(1, 60)), count)
    return random.integers(0, 3, count), digests[which]


def sides(digests: Digests, chosen: np.ndarray[Any, np.dtype[np.bool]]) -> tuple[set[bytes], ...]:
    """The contents that were drawn, and those that were not."""
    return tuple({row.tobytes() for row in digests[mask]} for mask in (chosen, ~chosen))


@given(repeated(), fractions)
def test_equal_images_are_drawn_together_whatever_their_labels(
    content: tuple[Labels, Digests], fraction: float
) -> None:
    labels, digests = content
    chosen = draw(labels, digests, fraction, "key")
    drawn, left = sides(digests, chosen)
    assert not drawn & left
    for label in np.unique(labels):
        assert not chosen[labels == label].all()


@given(repeated(), fractions, st.data())
def test_the_order_of_repeated_images_does_not_matter(
    content: tuple[Labels, Digests], fraction: float, data: st.DataObject
) -> None:
    labels, digests = content
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    chosen = draw(labels, digests, fraction, "key")
    again = draw(labels[order], digests[order], fraction, "key")
    assert sides(digests, chosen) == sides(digests[order], again)


@given(st.integers(2, 5), st.integers(3, 30), st.floats(0.05, 0.5), st.integers(0, 2**32))
def test_of_images_that_are_all_there_several_times_the_fraction_is_met_within_one_group(
    times: int, pictures: int, fraction: float, seed: int
) -> None:
    digests = np.random.default_rng(seed).integers(0, 256, (pictures, 32), dtype=np.uint8)
    chosen = draw(np.zeros(pictures * times, int), np.tile(digests, (times, 1)), fraction, "")
    assert 1 <= chosen.sum() < pictures * times
    assert abs(chosen.sum() - fraction * pictures * times) <= times


@given(contents(), fractions)
def test_without_repeated_images_the_draw_is_that_of_the_first_versions(
    content: tuple[Labels, Digests], fraction: float
) -> None:
    """Written down again: the lowest keys of each class. Published results rest on it."""
    labels, digests = content
    keys = [hashlib.sha256(b"test 0 " + row.tobytes()).digest() for row in digests]
    expected = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = sorted(np.flatnonzero(labels == label), key=keys.__getitem__)
        expected[own[: _share(len(own), fraction)]] = True
    np.testing.assert_array_equal(draw(labels, digests, fraction, "test 0 "), expected)


def bitmaps(root: Path, count: int, label: str, size: int = 256) -> None:
    """Uncompressed pictures with black borders: files that begin and end alike."""
    (root / label).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.zeros((size, size, 3), np.uint8)
        random = np.random.default_rng([number, *label.encode()])
        pixels[size // 4 : -size // 4] = random.integers(0, 256, (size // 2, size, 3))
        Image.fromarray(pixels).save(root / label / f"{number}.bmp")


def test_pictures_with_like_borders_are_different_images(tmp_path: Path) -> None:
    for label in ("healthy", "ill"):
        bitmaps(tmp_path / "data", 12, label)
    first, second = (open_data(tmp_path / "data", seed=seed) for seed in (0, 1))
    assert first.warnings == second.warnings == ()
    assert rows(first)[1] != rows(second)[1]
    file = tmp_path / "data/ill/3.bmp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert open_data(tmp_path / "data").fingerprint != first.fingerprint


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_picture_are_in_one_split(tmp_path: Path, copies: int, seed: int) -> None:
    """Small and large ones, under other names and in other folders."""
    for label, size in (("a", 8), ("b", 160)):
        bitmaps(tmp_path, 10, label, size)
        for number in range(10):
            file = tmp_path / label / f"{number}.bmp"
            for copy in range(1, copies):
                (tmp_path / label / f"{copy}").mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / label / f"{copy}" / file.name)
    splits = open_data(tmp_path, seed=seed, test_seed=seed, validation=0.2, test=0.2)
    assert splits.warnings == ()
    for one, other in itertools.combinations(rows(splits), 2):
        pictures = [{(name[0], Path(name).name) for name in part} for part in (one, other)]
        assert not pictures[0] & pictures[1]
    train, validation, test = map(len, rows(splits))
    assert train + validation + test == 20 * copies
    assert test == 4 * copies
    assert abs(validation - 0.2 * 16 * copies) <= 2 * copies  # within one group a class


def test_splits_by_the_earlier_rule_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Written down again as it was: files known by size and 32 KiB at either end, drawn alone."""
    for label in ("a", "b"):
        bitmaps(tmp_path, 10, label, 192)
    splits = open_data(tmp_path, test=0, split_rule=SplitRule.of({"fingerprint": "any"}))
    keys = {}
    for file in tmp_path.rglob("*.bmp"):
        data = file.read_bytes()
        ends = b"%d\n" % len(data) + data[: 2**15] + data[-(2**15) :]
        digest = hashlib.sha256(ends).digest()
        keys[f"{file.parent.name}/{file.name}"] = hashlib.sha256(b"validation 0 " + digest).digest()
    expected = set()
    for label in ("a", "b"):
        own = sorted(
            (name for name in keys if name[0] == label), key=lambda name: (keys[name], name)
        )
        expected |= {own[0]}
    assert rows(splits)[1] == expected
    assert "rule" not in splits.split
    assert splits.fingerprint == splits.fingerprints[1] != splits.fingerprints[2]
    assert splits.are_those_of({"fingerprint": splits.fingerprint})
    assert not splits.are_those_of({"fingerprint": splits.fingerprint, "rule": 2})
    now = open_data(tmp_path, test=0)
    assert now.are_those_of({"fingerprint": splits.fingerprint})
    assert now.are_those_of({"fingerprint": now.fingerprint} | now.split)


def test_the_rule_of_a_later_version_is_refused() -> None:
    with pytest.raises(ContentError, match=r"upgrade"):
        SplitRule.of({"fingerprint": "any", "rule": 3})


@pytest.mark.parametrize(
    ("folds", "fold"), [("x", 0), ([3], 1), (3, "1"), (3, 4), (3, -1), (-3, 0), (2.5, 1), (0, 1)]
)
def test_a_damaged_record_of_folds_is_refused(folds: object, fold: object) -> None:
    with pytest.raises(ContentError, match="damaged"):
        SplitRule.of({"rule": 2, "folds": folds, "fold": fold})


def test_labelled_images_and_splits_in_memory_are_a_source_like_any_other() -> None:
    """Dealt by content, so the splits are those of the same images under their name."""
    by_name = open_data("digits")
    whole = read_source("digits").images["all"]
    again = open_data(whole)
    assert again.fingerprint == by_name.fingerprint
    assert rows(again) == rows(by_name)
    assert again.split["source"] == "python: 1,797 images of 10 classes"
    kept = open_data(by_name, validation=0.5, test=0.5)  # its own splits stay as they are
    assert rows(kept) == rows(by_name)
    with pytest.raises(UsageError, match="from Python"):
        open_data(again.split["source"])


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=3, max_size=40),
    st.integers(2, 5),
    st.randoms(use_true_random=False),
)
def test_folds_are_even_hold_equal_images_together_and_follow_no_order(
    images: list[tuple[int, int]], folds: int, shuffler: random.Random
) -> None:
    labels = np.array([label for label, _ in images], np.int64)
    hashes = [hashlib.sha256(b"%d" % content).digest() for _, content in images]
    digests = np.stack([np.frombuffer(each, np.uint8) for each in hashes])
    distinct = {content for _, content in images}
    if len(distinct) < folds:
        with pytest.raises(UsageError, match=f"{len(distinct)} folds"):
            assign_folds(labels, digests, folds, "key")
        return
    parts = assign_folds(labels, digests, folds, "key")
    assert set(parts.tolist()) == set(range(1, folds + 1))
    place = {each: int(part) for each, part in zip(hashes, parts, strict=True)}
    assert [place[each] for each in hashes] == parts.tolist()
    if len(distinct) == len(images):
        for label in set(labels.tolist()):
            sizes = np.bincount(parts[labels == label], minlength=folds + 1)[1:]
            assert sizes.max() - sizes.min() <= 1
    order = shuffler.sample(range(len(images)), len(images))
    again = assign_folds(labels[order], digests[order], folds, "key")
    assert again.tolist() == parts[order].tolist()
