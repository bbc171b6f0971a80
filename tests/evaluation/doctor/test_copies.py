import numpy as np
import pytest
from PIL import Image

from resnets.data.labelled import LabelledImages
from resnets.data.storage import FileStorage, PixelStorage, RowNames
from resnets.evaluation.doctor.duplicates import find_duplicates, near_duplicates


def images(pixels: np.ndarray) -> LabelledImages:
    storage = PixelStorage(pixels, RowNames.of(["rows"], [len(pixels)]))
    return LabelledImages(storage, np.zeros(len(pixels), int), ["only"])


@pytest.fixture
def scenes() -> np.ndarray:
    """60 pictures that have nothing in common."""
    coarse = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 3), np.uint8)
    large = [np.asarray(Image.fromarray(each).resize((32, 32), 2)) for each in coarse]
    return np.stack(large)


def test_planted_copies_are_found_and_nothing_else(scenes):
    train, test = scenes[:40], scenes[40:].copy()
    test[3] = train[7]
    test[11] = np.clip(train[20] * 0.8 + 30, 0, 255).astype(np.uint8)  # paler
    copies = find_duplicates(images(test), images(train), 1000)
    assert [(pair.second, pair.first, pair.exact) for pair in copies.pairs] == [
        (3, 7, True),
        (11, 20, False),
    ]
    assert copies.everything
    assert copies.share == 2 / 20


def test_of_many_images_some_are_taken_from_all_over(scenes):
    copies = find_duplicates(images(scenes), images(scenes), 10)
    assert (copies.looked_at, copies.total, copies.among, copies.train_total) == (5, 60, 10, 60)
    assert not copies.everything
    firsts = {pair.second for pair in copies.pairs if pair.exact}
    assert {0, 59} <= firsts


def test_files_that_cannot_be_read_are_passed_over(scenes, tmp_path):
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        Image.fromarray(scenes[number]).save(tmp_path / name)
    (tmp_path / "1.png").write_bytes(b"no image")
    train = LabelledImages(FileStorage(tmp_path, names), [0] * 4, ["only"])
    copies = find_duplicates(images(scenes[2:4]), train, 100)
    assert [(pair.first, pair.second) for pair in copies.pairs] == [(2, 0), (3, 1)]
    assert copies.among == 3


def test_nothing_to_compare_with_is_no_finding(scenes):
    assert find_duplicates(images(scenes), images(scenes[:0]), 10) is None


@pytest.mark.parametrize(("side", "groups", "repeated"), [(96, 2, 3), (32, 0, 0)])
def test_look_alikes_among_the_images_are_counted_in_groups(scenes, side, groups, repeated):
    large = np.stack([np.asarray(Image.fromarray(each).resize((side, side))) for each in scenes])
    new = large[40:].copy()
    for copy, original, paler in ((5, 0, 20), (9, 0, 30), (12, 10, 25)):
        new[copy] = np.clip(new[original] * 0.8 + paler, 0, 255).astype(np.uint8)
    near = near_duplicates(find_duplicates(images(new), images(large[:40]), 1000), None)
    assert near is not None
    assert (near.count, near.groups, near.repeated) == (0, groups, repeated)
    assert bool(near.dependent) == bool(groups)
