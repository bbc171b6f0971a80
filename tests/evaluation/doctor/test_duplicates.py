import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy.fft import dctn
from sklearn.datasets import load_digits

from resnets.evaluation.doctor import duplicates
from resnets.evaluation.doctor.duplicates import (
    Pair,
    _best_matches,
    _digest,
    _grey_square,
    _hashes,
    duplicates_across,
    duplicates_within,
    fingerprints,
    similarity_threshold,
)


def scenes(count, side=64, seed=0):
    """Smooth random pictures: each frequency's contrast falls with it, as in photos."""
    generator = np.random.default_rng(seed)
    wave = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    noise = np.fft.fft2(generator.normal(size=(count, 3, side, side)))
    smooth = np.fft.ifft2(noise / np.maximum(wave, 1 / side)).real
    smooth = 128 + 40 * smooth / smooth.std(axis=(2, 3), keepdims=True)
    return smooth.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def resized(image, factor):
    height, width = image.shape[:2]
    size = (int(width * factor), int(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


RENDERINGS = {
    "compressed": jpeg,
    "darker": lambda image: np.asarray(
        ImageEnhance.Brightness(Image.fromarray(image)).enhance(0.6)
    ),
    "flatter": lambda image: np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(0.5)),
    "grey": lambda image: np.asarray(Image.fromarray(image).convert("L"))[:, :, None],
    "with alpha": lambda image: np.dstack([image, np.full(image.shape[:2], 9, np.uint8)]),
    "half the size": lambda image: resized(image, 0.5),
    "larger": lambda image: resized(image, 1.7),
}


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_a_picture_is_known_again_in_another_rendering(rendering):
    images = scenes(300)
    known = fingerprints(images)
    again = fingerprints(RENDERINGS[rendering](image) for image in images)
    assert duplicates_across(known, again, 0.9) == [
        Pair(i, i, pytest.approx(1, abs=0.1), exact=False) for i in range(300)
    ]


def test_real_photos_are_known_again_and_told_apart(shared):
    files = sorted(shared("photos").glob("*.JPEG"))[:100]
    photos = [np.asarray(Image.open(file).convert("RGB").reduce(2)) for file in files]
    known = fingerprints(photos)
    assert duplicates_within(known, 0.9) == []
    again = duplicates_across(
        known, fingerprints(jpeg(resized(photo, 0.6)) for photo in photos), 0.9
    )
    assert [(pair.first, pair.second) for pair in again] == [(i, i) for i in range(100)]


def bordered(count, seed):
    """Noise between black bars."""
    pictures = np.zeros((count, 64, 64, 3), np.uint8)
    random = np.random.default_rng(seed)
    pictures[:, 16:48] = random.integers(0, 256, (count, 32, 64, 3))
    return pictures


def test_pictures_with_the_same_border_are_told_apart_and_their_copies_are_not():
    images = bordered(60, seed=0)
    known = fingerprints(images)
    assert duplicates_within(known, 0.9) == []
    assert duplicates_across(known, fingerprints(bordered(60, seed=1)), 0.9) == []
    again = duplicates_across(known, fingerprints(jpeg(image) for image in images), 0.9)
    assert [(pair.first, pair.second) for pair in again] == [(i, i) for i in range(60)]


def test_pictures_before_the_same_background_are_told_apart_and_their_copies_are_not():
    background = scenes(1, seed=5)[0].astype(int)
    images = (0.85 * background + 0.15 * scenes(60, seed=6)).astype(np.uint8)
    known = fingerprints(images)
    assert duplicates_within(known, 0.9) == []
    again = duplicates_across(known, fingerprints(resized(image, 1.7) for image in images), 0.9)
    assert [(pair.first, pair.second) for pair in again] == [(i, i) for i in range(60)]


def test_a_mirrored_picture_is_another_one():
    images = scenes(50)
    assert duplicates_across(fingerprints(images), fingerprints(images[:, :, ::-1]), 0.9) == []


@given(st.integers(0, 2**32))
def test_the_hash_is_the_weighted_cosine_transform(seed):
    square = np.random.default_rng(seed).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    waves = dctn(square[0].astype(float), norm="ortho")[:8, :8]
    expected = (waves * np.hypot(*np.mgrid[:8, :8])).ravel()[1:]
    hash_values = _hashes(square)[0]
    assert hash_values == pytest.approx(expected / np.linalg.norm(expected), abs=1e-4)


@pytest.mark.parametrize("grey", [0, 7, 255])
def test_a_picture_of_one_grey_is_like_nothing(grey):
    flat = fingerprints([np.full((9, 5, 1), grey, np.uint8), np.full((20, 20, 3), grey, np.uint8)])
    assert not flat.hashes.any()
    assert duplicates_within(flat, 0.9) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (3, 2, 1), (32, 32, 4), (200, 31, 3)])
def test_an_image_of_any_shape_has_a_grey_square(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    picture = Image.fromarray(image.squeeze(2) if shape[2] == 1 else image)
    if shape[2] == 4:  # what is transparent shows white, as everywhere
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    assert _grey_square(image).shape == (32, 32)
    expected = np.asarray(picture.convert("L")).mean()
    assert _grey_square(image).mean() == pytest.approx(expected, abs=1.5)


def test_no_images_have_no_duplicates():
    none = fingerprints([])
    some = fingerprints(scenes(3))
    assert len(none) == 0
    assert (
        duplicates_within(none, 0.9)
        == duplicates_across(none, some, 0.9)
        == duplicates_across(some, none, 0.9)
        == []
    )


@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 40), st.integers(1, 50))
def test_best_matches_are_those_of_a_loop_at_any_block_size(seed, count, others, block):
    generator = np.random.default_rng(seed)
    first, second = (generator.integers(-3, 4, (n, 5)).astype(np.float32) for n in (count, others))
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.setattr(duplicates, "_BLOCK", block)
        for known, of in ((None, first), (second, second)):
            places, best = _best_matches(first, known)
            for i in range(count):
                candidates = range(i) if known is None else range(others)
                likes = [max(float(first[i] @ of[j]), 0.0) for j in candidates]
                most = max(likes, default=0.0)
                assert best[i] == most
                if most > 0:
                    assert likes[places[i]] == most


@settings(max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=30))
def test_exact_repeats_name_the_first(numbers):
    images = scenes(7, side=8)
    repeats = duplicates_within(fingerprints(images[n] for n in numbers), 0.9)
    expected = [(numbers.index(n), i) for i, n in enumerate(numbers) if n in numbers[:i]]
    assert [(pair.first, pair.second) for pair in repeats] == expected
    assert all(pair.exact and pair.similarity == 1 for pair in repeats)


def test_indices_are_those_of_the_whole_set_though_repeats_are_left_out():
    one, two, other = scenes(3)
    repeats = duplicates_within(
        fingerprints([one, one, two, other, one, jpeg(other), jpeg(two)]), 0.9
    )
    pairs = {(pair.first, pair.second): pair.exact for pair in repeats}
    assert pairs == {(0, 1): True, (0, 4): True, (3, 5): False, (2, 6): False}


def test_a_repeat_within_a_set_does_not_hide_one_across():
    one, two, other = scenes(3)
    known, new = fingerprints([one, two]), fingerprints([other, jpeg(two), two, two])
    pairs = {(pair.first, pair.second): pair.exact for pair in duplicates_across(known, new, 0.9)}
    assert pairs == {(1, 1): False, (1, 2): True, (1, 3): True}


@given(st.integers(0, 2**32))
def test_equal_digests_mean_equal_pixels_and_size(seed):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    other = image.copy()
    other[tuple(generator.integers(0, image.shape))] ^= 1
    assert _digest(image) == _digest(image.copy())
    assert _digest(image[:, ::-1]) == _digest(np.ascontiguousarray(image[:, ::-1]))
    views = (other, image.reshape(6, 4, 3), image.reshape(4, 18, 1), image.transpose(1, 0, 2))
    assert all(_digest(view) != _digest(image) for view in views)


def test_pictures_that_are_all_much_alike_need_to_be_more_alike_to_be_twins():
    images = (load_digits().images * 255 / 16).astype(np.uint8)[..., None]
    known = fingerprints(images)
    threshold = similarity_threshold(known.hashes)
    assert (
        len(duplicates_within(known, 0.9)) > 300
    )  # of 1,797 handwritten digits, all of them different
    assert duplicates_within(known, threshold) == []
    doubled = fingerprints(
        [*images, *(np.clip(image * 0.8, 0, 255).astype(np.uint8) for image in images[:50])]
    )
    twins = duplicates_within(doubled, similarity_threshold(doubled.hashes))
    assert sum(pair.second == pair.first + 1797 for pair in twins) >= 45


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 3000])
def test_the_threshold_of_pictures_with_nothing_in_common_is_the_least(count):
    assert similarity_threshold(fingerprints(scenes(count, side=32)).hashes) == 0.9


@pytest.mark.soak
def test_cifar10_repeats_as_many_training_images_in_its_test_split_as_people_counted(shared):
    # Barz and Denzler 2020, "Do we train on test data?": 286 of 10,000, judged by eye, 33 of them
    # "very similar" only; here against a quarter of the training split
    from resnets.data.sources.opening import read_source

    folder = shared("data/cifar10")
    known, new = (
        [part.image(i) for i in range(len(part))]
        for name in ("train-00000-of-00004.parquet", "test-00000-of-00001.parquet")
        for part in read_source(folder / name).images.values()
    )
    first, second = fingerprints(known), fingerprints(new)
    threshold = similarity_threshold(np.concatenate([first.hashes, second.hashes]))
    assert threshold == 0.9
    repeats = duplicates_across(first, second, threshold)
    assert 0.7 * 286 / 4 < len(repeats) < 1.1 * 286 / 4
    assert not any(pair.exact for pair in repeats)
