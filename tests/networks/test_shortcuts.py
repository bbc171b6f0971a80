import pytest
import torch
from torch import nn

from resnets.networks import build
from resnets.networks.layers import BatchNorm2d, DilatedAverage
from resnets.networks.shortcuts import SHORTCUTS, Step, ZeroPadding

STEP = Step(8, 16, stride=2)


def test_option_a_takes_every_second_pixel_and_pads_channels_of_zeros_on_both_sides() -> None:
    x = torch.randn(2, 8, 6, 6)
    y = SHORTCUTS["padding"](STEP, BatchNorm2d)(x)
    assert y.shape == (2, 16, 3, 3)
    assert torch.equal(y[:, 4:12], x[:, :, ::2, ::2])
    assert not y[:, :4].any()
    assert not y[:, 12:].any()


def test_option_a_has_no_parameters() -> None:
    assert list(ZeroPadding(8, 16, 2).parameters()) == []


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("padding", 0),
        # two projections: 16 x 32 and 32 x 64 weights, and scale and shift of their norms
        ("projection", 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        # and in option C seven for the blocks that keep their 16, 32 or 64 channels
        (
            "projection_everywhere",
            16 * 32
            + 2 * 32
            + 32 * 64
            + 2 * 64
            + 3 * (16**2 + 2 * 16)
            + 2 * (32**2 + 2 * 32)
            + 2 * (64**2 + 2 * 64),
        ),
        ("projection3x3", 9 * 16 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64),
        ("pooled", 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64),
        ("none", 0),
    ],
)
def test_each_option_adds_its_projections_to_resnet20(name: str, more: int) -> None:
    """Options A, B and C of He et al. 2015, section 4.1."""
    parameters = sum(p.numel() for p in build("resnet20", shortcut=name).parameters())
    assert parameters == 269_722 + more


@pytest.mark.parametrize("name", sorted(set(SHORTCUTS) - {"projection_everywhere", "none"}))
def test_blocks_that_keep_the_shape_have_the_identity(name: str) -> None:
    assert SHORTCUTS[name](Step(8, 8), BatchNorm2d) is None


def test_the_pooled_shortcut_sees_every_pixel_where_the_projection_skips_three_of_four() -> None:
    """He et al. 2019, section 4.2, on ResNet-D."""
    seen = {}
    for name in ("projection", "pooled"):
        x = torch.randn(1, 8, 8, 8, requires_grad=True)
        shortcut = SHORTCUTS[name](STEP, None)
        shortcut(x).sum().backward()
        seen[name] = float((x.grad.abs().sum(1) > 0).float().mean())
    assert seen == {"projection": 0.25, "pooled": 1.0}


def test_the_pooled_shortcut_averages_what_there_is_at_the_border_of_odd_sizes() -> None:
    pool = SHORTCUTS["pooled"](STEP, None)[0]
    x = torch.ones(1, 8, 5, 5)
    assert torch.equal(pool(x), torch.ones(1, 8, 3, 3))


def test_dilated_average_is_2x2_pooling_on_each_of_the_interleaved_grids() -> None:
    x = torch.randn(1, 3, 8, 8)
    y = DilatedAverage(2)(x)
    for row in range(2):
        for column in range(2):
            grid = x[..., row::2, column::2]
            expected = nn.functional.avg_pool2d(grid, 2, 1)
            torch.testing.assert_close(y[..., row::2, column::2][..., :-1, :-1], expected)
