import numpy as np
import pytest
import torch

from resnets.data.augmentation.geometry import (
    _reflect,
    affine,
    crop_and_flip,
    mirrored,
)

BLACK = torch.zeros(3, dtype=torch.uint8)


def random_pixels(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("reflect", [False, True])
def test_crops_and_flips_are_those_of_padding_slicing_and_reversing(reflect: bool) -> None:
    pixels = random_pixels(200, 6, 9, 3)
    random = np.random.default_rng(1)
    shifts, flips = random.integers(-4, 5, (200, 2)), random.random(200) < 0.5
    fill = torch.tensor([7, 8, 9], dtype=torch.uint8)
    ours = crop_and_flip(pixels, shifts, flips, reflect, fill)
    for image, (down, right), flip, result in zip(pixels, shifts, flips, ours, strict=True):
        borders = ((4, 4), (4, 4))
        mode = {"mode": "reflect"} if reflect else {}
        planes = [
            np.pad(image[:, :, c], borders, **(mode or {"constant_values": int(fill[c])}))
            for c in range(3)
        ]
        window = np.stack(planes, 2)[4 + down :, 4 + right :][:6, :9]
        assert (result.numpy() == (window[:, ::-1] if flip else window)).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reflection_goes_on_beyond_the_image_as_in_numpy(size: int) -> None:
    line = np.arange(size)
    expected = np.pad(line, 20, mode="reflect")
    assert _reflect(torch.arange(-20, size + 20), size).tolist() == expected.tolist()


def test_flipping_twice_is_no_change() -> None:
    pixels = random_pixels(10, 5, 7, 3)
    still, flips = np.zeros((10, 2), np.int64), np.arange(10) % 3 == 0
    once = crop_and_flip(pixels, still, flips, False, BLACK)
    assert torch.equal(once[flips], pixels[flips].flip(2))
    assert torch.equal(once[~flips], pixels[~flips])
    assert torch.equal(mirrored(pixels, flips), once)
    assert torch.equal(mirrored(once, flips), pixels)


def test_affine_maps_of_quarter_turns_are_exact() -> None:
    pixels = random_pixels(2, 8, 8, 3)
    # x' = y, y' = 8 - x: each place takes what is a quarter turn back from it
    turn = np.array([[[0, 1, 0], [-1, 0, 8]], [[1, 0, 0], [0, 1, 0]]])
    result = affine(pixels, turn, BLACK)
    assert torch.equal(result[0], pixels[0].rot90(-1, (0, 1)))
    assert torch.equal(result[1], pixels[1])
