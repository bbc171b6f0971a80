from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resnets.deployment.export.graph import _folded, _resized_and_cropped
from resnets.images import Preprocessing
from resnets.networks import build

GREY = ((0.5,), (0.25,))


def seen(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    crop: np.ndarray = _resized_and_cropped(torch.from_numpy(pixels[None]), preprocessing)[
        0
    ].numpy()
    return crop.transpose(2, 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 9))
@example(1, 90, 40, 9)
@example(64, 64, 32, 0)
@example(15, 16, 35, 3)  # 2 levels: each pass rounds a tie the other way
def test_even_of_noise_the_graph_sees_what_pillow_makes_up_to_its_two_roundings(
    height: int, width: int, size: int, more: int
) -> None:
    preprocessing = Preprocessing(size, size + more, *GREY)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 1), np.uint8)
    expected = preprocessing.pixels(pixels).astype(float)
    assert np.abs(seen(pixels, preprocessing) - expected).max() <= 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 30), st.booleans(), st.integers(1, 40), st.integers(0, 9))
def test_without_resizing_the_graph_only_moves_bytes(
    longer: int, tall: bool, size: int, more: int
) -> None:
    resize = size + more
    preprocessing = Preprocessing(size, resize, *GREY)
    shape = (resize + longer, resize, 1) if tall else (resize, resize + longer, 1)
    pixels = np.random.default_rng(longer).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(seen(pixels, preprocessing), preprocessing.pixels(pixels))


def crops(size: int, more: int, kernel: Any, mode: Any, rounding: Any) -> Preprocessing:
    choices = {"interpolation": kernel, "crop_mode": mode, "crop_rounding": rounding}
    return Preprocessing(size, size + more, *GREY, **choices)


kernels = st.sampled_from(["bilinear", "bicubic"])
modes = st.sampled_from(["center", "squash", "border"])
roundings = st.sampled_from(["down", "even"])
sides = st.integers(1, 90)


@settings(max_examples=100, deadline=None)
@given(sides, sides, st.integers(1, 40), st.integers(0, 9), kernels, modes, roundings)
def test_in_every_crop_mode_the_graph_sees_what_pillow_makes(
    height: int, width: int, size: int, more: int, kernel: str, mode: str, rounding: str
) -> None:
    """Of values that no filter clips: Pillow chooses whether rows or columns are clipped first."""
    preprocessing = crops(size, more, kernel, mode, rounding)
    low, high = (0, 256) if kernel == "bilinear" else (64, 192)
    pixels = np.random.default_rng(height).integers(low, high, (height, width, 1), np.uint8)
    expected = preprocessing.pixels(pixels).astype(float)
    assert np.abs(seen(pixels, preprocessing) - expected).max() <= 2


def test_the_bicubic_graph_clips_after_each_pass_as_pillow_does() -> None:
    """Of an image that Pillow resizes across first."""
    pixels = 255 * np.random.default_rng(0).integers(0, 2, (90, 120, 1), np.uint8)
    preprocessing = crops(50, 10, "bicubic", "center", "even")
    crop = seen(pixels, preprocessing)
    assert np.abs(crop - preprocessing.pixels(pixels)).max() <= 1
    assert crop.min() == 0
    assert crop.max() == 255


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 9), kernels, modes, roundings)
def test_of_a_frame_every_graph_only_moves_bytes(
    size: int, more: int, kernel: str, mode: str, rounding: str
) -> None:
    preprocessing = crops(size, more, kernel, mode, rounding)
    side = preprocessing.resize
    pixels = np.random.default_rng(size).integers(0, 256, (side, side, 1), np.uint8)
    window = preprocessing.window
    crop = seen(pixels, preprocessing).transpose(1, 2, 0)
    np.testing.assert_array_equal(crop, pixels[window, window])
    np.testing.assert_array_equal(preprocessing.pixels(pixels)[0], pixels[window, window, 0])


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_a_photo_differs_from_pillow_in_few_pixels(kernel: Any) -> None:
    """What is left are Pillow's corners of boxes, which are float32."""
    rows, columns = np.mgrid[:375, :500][..., None]
    waves = 127.5 + 127.5 * np.sin(rows / 7) * np.cos(columns / np.array([3, 5, 9]))
    preprocessing = Preprocessing(224, 256, (0.5,) * 3, (0.2,) * 3, interpolation=kernel)
    pixels = waves.astype(np.uint8)
    difference = seen(pixels, preprocessing) - preprocessing.pixels(pixels)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.002


@pytest.mark.parametrize(
    ("name", "choices", "left"),
    [
        ("resnet20", {}, 0),
        ("resnet14", {"norm": "frozen"}, 0),
        ("resnet14", {"block": "preact_residual"}, 6),
        ("resnet14", {"block": "bottleneck", "attention": "se", "shortcut": "pooled"}, 0),
        ("resnet14", {"shortcut": "none", "stem": "deep_strided", "blur": True}, 1),
        ("resnet14", {"norm": "group"}, 0),
        ("resnet14", {"norm": "group", "weight_standardisation": True, "blur": "average"}, 0),
        ("resnet14", {"weight_standardisation": True, "stem": "padded"}, 0),
    ],
)
def test_folding_changes_no_answer_and_leaves_no_norm_after_a_convolution(
    name: str, choices: dict[str, str], left: int
) -> None:
    torch.manual_seed(0)
    network = build(name, width=8, **choices).double().eval()
    for key, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + ("var" in key) / 2)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    kinds = ("BatchNorm2d", "FrozenBatchNorm2d")
    simpler = _folded(network)
    with torch.no_grad():
        torch.testing.assert_close(simpler(images), network(images))
    norms = [m for m in simpler.modules() if type(m).__name__ in kinds]
    assert len(norms) == left
    assert sum(type(m).__name__ in kinds for m in network.modules()) > 7 or "group" in str(choices)
