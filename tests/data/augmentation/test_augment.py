import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from resnets.data.augmentation.augment import (
    Normaliser,
    erase_,
    mix,
    moved,
)
from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.augmentation.draws import Draws
from resnets.errors import UsageError
from resnets.images import Preprocessing

FILL = torch.tensor([125, 120, 110], dtype=torch.uint8)
IMAGENET = Preprocessing(size=16, resize=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def draws(count: int, epoch: int = 0, seed: int = 0) -> Draws:
    return Draws(seed, epoch, count, np.arange(count))


def random_pixels(count: int, height: int = 16, width: int = 16, channels: int = 3) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(
        random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    )


def float_images(count: int, height: int = 16, width: int = 16) -> torch.Tensor:
    """Channels_last images without a zero."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) + 0.1
    return images.contiguous(memory_format=torch.channels_last)


def test_an_augmentation_without_values_changes_nothing() -> None:
    pixels, images = random_pixels(20), float_images(20)
    nothing = Augmentation()
    assert torch.equal(moved(pixels, draws(20), nothing, FILL), pixels)
    before = images.clone()
    erase_(images, draws(20), nothing)
    assert torch.equal(images, before)
    assert not nothing.mixes
    assert nothing.resized_crop is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smallest_crop": 1.5}, "smallest_crop is 1.5; it must be from 0 to 1"),
        ({"crop_ratio": 0.5}, "crop_ratio is 0.5; it must be from 1 to 100"),
        ({"crop_padding": -1}, "crop_padding is -1; it must be at least 0"),
        ({"padding_mode": "edge"}, "padding_mode is 'edge'; it must be one of zero, reflect"),
        ({"flip": True}, "flip is True; it must be one of none, random, alternating"),
        ({"policy": "auto"}, "policy is 'auto'; it must be one of none, randaugment, trivialaug"),
        ({"policy_magnitude": 31}, "policy_magnitude is 31; it must be from 0 to 30"),
        ({"erase": float("nan")}, "erase is nan; it must be from 0 to 1"),
        ({"mixup": -0.2}, "mixup is -0.2; it must be at least 0"),
        ({"cutmix": float("nan")}, "cutmix is nan; it must be at least 0"),
        ({"smallest_crop": 0.1, "crop_padding": 4}, "smallest_crop or crop_padding, not both"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation(**changes)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_normalised_images_are_what_the_formula_says(channels: int) -> None:
    mean, std = (0.5, 0.4, 0.3, 0.2)[:channels], (0.2, 0.25, 0.3, 0.5)[:channels]
    pixels = random_pixels(5, 8, 6, channels)
    normalise = Normaliser(Preprocessing(8, 8, mean, std), torch.device("cpu"))
    images = normalise(pixels)
    expected = (pixels.numpy().transpose(0, 3, 1, 2) / 255 - np.reshape(mean, (-1, 1, 1))) / (
        np.reshape(std, (-1, 1, 1))
    )
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)
    filled = normalise(normalise.fill.expand(1, 2, 2, channels).contiguous())
    assert filled.abs().max() <= 0.5 / 255 / min(std) + 1e-6


def test_crop_positions_are_uniform() -> None:
    # An image whose pixel (y, x) is 16 y + x tells by its middle where it was cropped.
    count, padding = 8100, 4
    image = (torch.arange(16)[:, None] * 16 + torch.arange(16)).to(torch.uint8)
    pixels = image[None, :, :, None].expand(count, 16, 16, 1).contiguous()
    augmentation = Augmentation(crop_padding=padding)
    middle = moved(pixels, draws(count), augmentation, FILL[:1])[:, 8, 8, 0].int()
    down, right = middle // 16 - 8, middle % 16 - 8
    places = torch.bincount((down + padding) * 9 + right + padding, minlength=81).numpy()
    assert len(places) == 81
    assert stats.chisquare(places).pvalue > 0.001


def test_what_a_crop_shows_beyond_the_image_is_the_mean_colour() -> None:
    pixels = torch.zeros(50, 8, 8, 3, dtype=torch.uint8)
    result = moved(pixels, draws(50), Augmentation(crop_padding=4), FILL)
    outside = result[(result != 0).any(3)]
    assert len(outside) > 100
    assert (outside == FILL).all()
    reflected = Augmentation(crop_padding=4, padding_mode="reflect")
    assert (moved(pixels, draws(50), reflected, FILL) == 0).all()


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_half_of_the_images_are_mirrored(flip: str) -> None:
    pixels = random_pixels(400)
    result = moved(pixels, draws(400), Augmentation(flip=flip), FILL)
    same = (result == pixels).flatten(1).all(1)
    mirrored = (result == pixels.flip(2)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert stats.binomtest(int(same.sum()), 400).pvalue > 0.001


def test_alternating_flips_show_every_image_both_ways_in_two_epochs() -> None:
    pixels = random_pixels(50)
    for epoch in range(5):
        one, two = (
            moved(pixels, draws(50, epoch + later), Augmentation(flip="alternating"), FILL)
            for later in (0, 1)
        )
        assert torch.equal(one, two.flip(2))


def test_erased_rectangles_have_the_areas_of_the_paper() -> None:
    images = torch.ones(4000, 3, 32, 32).to(memory_format=torch.channels_last)
    erase_(images, draws(4000), Augmentation(erase=0.25))
    areas = (images == 0).all(1).flatten(1).double().mean(1)
    erased = areas[areas > 0].numpy()
    assert stats.binomtest(len(erased), 4000, 0.25).pvalue > 0.001
    # sides are whole pixels and end at the image: a little off the uniform law of 0.02 to 0.33
    assert 0.015 < erased.min() < 0.025
    assert 0.31 < erased.max() < 0.345
    assert abs(erased.mean() - 0.175) < 0.01
    for image in images[areas > 0][:50]:
        rows, columns = (image[0] == 0).any(1), (image[0] == 0).any(0)
        assert (image == 0).sum() == 3 * rows.sum() * columns.sum()  # a rectangle


def test_cutout_zeroes_a_square_around_a_uniform_centre() -> None:
    images = torch.ones(5000, 3, 20, 20).to(memory_format=torch.channels_last)
    erase_(images, draws(5000), Augmentation(cutout=6))
    holes = (images == 0).all(1)
    assert holes.sum((1, 2)).max() == 36
    # how often a pixel is in the hole: as often as the centre is near it and in the image
    near = np.minimum(np.arange(20) + 3, 19) - np.maximum(np.arange(20) - 2, 0) + 1
    expected = np.outer(near, near) / 400
    assert abs(holes.double().mean(0).numpy() - expected).max() < 5 * (0.25 / 5000) ** 0.5


def mixed(alpha: float, name: str, count: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    """Images 0, 1, 0, 1, ... of one value each, mixed with the one before."""
    values = torch.arange(count + 1) % 2
    images = values[:, None, None, None].expand(-1, 3, 8, 8).float()
    images = images.contiguous(memory_format=torch.channels_last)
    augmentation = Augmentation(**{name: alpha})
    return mix(images, F.one_hot(values, 2).float(), draws(count), augmentation)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_weighs_by_a_beta_distribution(alpha: float) -> None:
    images, targets = mixed(alpha, "mixup")
    weight = torch.where(torch.arange(3000) % 2 == 0, images[:, 0, 0, 0], 1 - images[:, 0, 0, 0])
    # image i + 1 has value (i + 1) % 2; its weight is what is left of it
    assert stats.kstest(weight.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.001
    assert (images == images[:, :1, :1, :1]).all()
    torch.testing.assert_close(targets[:, 1], images[:, 0, 0, 0])
    torch.testing.assert_close(targets.sum(1), torch.ones(3000))


def test_cutmix_pastes_a_rectangle_and_weighs_by_its_area() -> None:
    images, targets = mixed(1.0, "cutmix")
    assert set(images.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(targets[:, 1], images.mean((1, 2, 3)))
    for image in images[:100, 0]:  # one of the two values fills a rectangle
        boxes = [
            (image == v).sum() == (image == v).any(1).sum() * (image == v).any(0).sum()
            for v in (0, 1)
        ]
        assert any(boxes)
    assert 0.5 < targets.max(1).values.mean() < 0.85


def rectangle_left(random: np.random.Generator, side: int) -> float:
    """What CutMix's own code leaves of an image: 1 - the area of its box after clipping."""
    cut = int(side * np.sqrt(1 - random.beta(1.0, 1.0)))
    lines = [np.clip(random.integers(side) + np.array([-1, 1]) * (cut // 2), 0, side)
             for _ in range(2)]  # fmt: skip
    return float(1 - np.prod([high - low for low, high in lines]) / side**2)


def test_the_share_that_cutmix_leaves_follows_the_law_of_its_authors() -> None:
    images = torch.zeros(4001, 1, 64, 64).to(memory_format=torch.channels_last)
    labels = F.one_hot(torch.arange(4001) % 2, 2).float()
    _, targets = mix(images, labels, draws(4000), Augmentation(cutmix=1.0))
    ours = (targets * labels[1:]).sum(1)
    random = np.random.default_rng(0)
    theirs = [rectangle_left(random, 64) for _ in range(4000)]
    # theirs has even sides only: the two laws differ by less than two pixels of 64
    assert stats.ks_2samp(ours.numpy(), theirs).statistic < 0.043 + 2 / 64


def test_with_mixup_and_cutmix_each_image_gets_one_of_them() -> None:
    values = torch.arange(2001) % 2
    images = values[:, None, None, None].expand(-1, 3, 8, 8).float()
    images = images.contiguous(memory_format=torch.channels_last)
    augmentation = Augmentation(mixup=1.0, cutmix=1.0)
    result, _ = mix(images, F.one_hot(values, 2).float(), draws(2000), augmentation)
    blended = ((result > 0) & (result < 1)).flatten(1).all(1).sum().item()
    assert stats.binomtest(blended, 2000).pvalue > 0.001


everything = st.builds(
    Augmentation,
    crop_padding=st.integers(0, 20),
    padding_mode=st.sampled_from(["zero", "reflect"]),
    flip=st.sampled_from(["none", "random", "alternating"]),
    policy=st.sampled_from(["none", "randaugment", "trivialaugment"]),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    cutout=st.integers(0, 30),
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.sampled_from([0.0, 1.0]),
)


@given(everything, st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32), st.integers(0, 9))
def test_what_happens_to_an_image_does_not_depend_on_its_batch(
    augmentation: Augmentation, height: int, width: int, seed: int, start: int
) -> None:
    pixels = random_pixels(12, height, width)
    labels = F.one_hot(torch.arange(12), 12).float()
    normalise = Normaliser(IMAGENET, torch.device("cpu"))

    def augmented(first: int) -> tuple[torch.Tensor, torch.Tensor]:
        mine = draws(12, 3, seed).part(first)
        images = normalise(moved(pixels[first:], mine, augmentation, normalise.fill))
        erase_(images, mine, augmentation)
        if augmentation.mixes:
            return mix(images, labels[first:], mine.part(1), augmentation)
        return images[1:], labels[first + 1 :]

    for whole, part in zip(augmented(0), augmented(start), strict=True):
        assert torch.equal(whole[start:], part)
        assert whole.isfinite().all()
