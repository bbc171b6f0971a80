"""The blocks and shortcuts against the papers' equations, written out with torch's functions."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnets.networks import Architecture, Bottleneck, ResidualBlock, build
from resnets.networks.blocks import (
    SHORTCUTS,
    Choices,
    PreActBlock,
    PreActBottleneck,
    Residual,
    Step,
    ZeroPadding,
)
from resnets.networks.layers import DilatedAverage
from resnets.networks.norms import BatchNorm2d


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def trained(block: Residual) -> Any:
    """In evaluation mode, with norms that do something."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.uniform_(module.bias, -1, 1)
    return block.eval()


def norm(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta"""
    columns = bn.weight, bn.bias, bn.running_mean, bn.running_var
    gamma, beta, mean, variance = (column[:, None, None] for column in columns)
    return gamma * (x - mean) / (variance + bn.eps).sqrt() + beta


def agree(block: Residual, x: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_a_residual_block_is_relu_of_two_convolutions_plus_the_projected_input() -> None:
    b, x = trained(ResidualBlock(8, 16, stride=2)), torch.randn(2, 8, 10, 10)
    branch = F.relu(norm(F.conv2d(x, b.conv1.weight, stride=2, padding=1), b.bn1))
    branch = norm(F.conv2d(branch, b.conv2.weight, padding=1), b.bn2)
    projected = norm(F.conv2d(x, b.downsample[0].weight, stride=2), b.downsample[1])
    agree(b, x, F.relu(branch + projected))


def test_a_block_that_keeps_the_shape_adds_its_input_itself() -> None:
    b, x = trained(ResidualBlock(8, 8)), torch.randn(2, 8, 5, 5)
    branch = F.relu(norm(F.conv2d(x, b.conv1.weight, padding=1), b.bn1))
    branch = norm(F.conv2d(branch, b.conv2.weight, padding=1), b.bn2)
    assert b.downsample is None
    agree(b, x, F.relu(branch + x))


@pytest.mark.parametrize(("strided", "strides"), [(1, (2, 1)), (2, (1, 2))])
def test_a_bottleneck_strides_in_its_1x1_or_its_3x3(strided: int, strides: tuple[int, int]) -> None:
    b = trained(Bottleneck(8, 16, stride=2, choices=Choices(groups=4, strided_conv=strided)))
    x = torch.randn(2, 8, 10, 10)
    branch = F.relu(norm(F.conv2d(x, b.conv1.weight, stride=strides[0]), b.bn1))
    branch = F.conv2d(branch, b.conv2.weight, stride=strides[1], padding=1, groups=4)
    branch = norm(F.conv2d(F.relu(norm(branch, b.bn2)), b.conv3.weight), b.bn3)
    projected = norm(F.conv2d(x, b.downsample[0].weight, stride=2), b.downsample[1])
    assert branch.shape == (2, 64, 5, 5)
    agree(b, x, F.relu(branch + projected))


def test_a_preactivation_block_leaves_the_identity_path_clean() -> None:
    b, x = trained(PreActBlock(8, 8)), torch.randn(2, 8, 5, 5)
    branch = F.conv2d(F.relu(norm(x, b.bn1)), b.conv1.weight, padding=1)
    branch = F.conv2d(F.relu(norm(branch, b.bn2)), b.conv2.weight, padding=1)
    agree(b, x, branch + x)


def test_a_preactivation_bottleneck_projects_what_is_activated_without_a_norm() -> None:
    b, x = trained(PreActBottleneck(8, 4, stride=2)), torch.randn(2, 8, 10, 10)
    active = F.relu(norm(x, b.bn1))
    branch = F.relu(norm(F.conv2d(active, b.conv1.weight), b.bn2))
    branch = F.relu(norm(F.conv2d(branch, b.conv2.weight, stride=2, padding=1), b.bn3))
    branch = F.conv2d(branch, b.conv3.weight)
    agree(b, x, branch + F.conv2d(active, b.downsample[0].weight, stride=2))


def test_the_first_preactivation_block_activates_before_its_paths_split() -> None:
    """He et al. 2016, appendix."""
    network = build(Architecture("preact_residual", (2,), width=8, stem="cifar"))
    first, second = network.get_submodule("layer1")
    x = torch.randn(2, 8, 5, 5)
    for block, shortcut in ((trained(first), F.relu(norm(x, first.bn1))), (trained(second), x)):
        branch = block.branch(F.relu(norm(x, block.bn1)))
        agree(block, x, branch + shortcut)


@pytest.mark.parametrize("kind", [ResidualBlock, Bottleneck, PreActBlock, PreActBottleneck])
def test_without_a_shortcut_only_the_branch_is_left(kind: type[Residual]) -> None:
    plain = Choices(shortcut=SHORTCUTS["none"])
    block, x = trained(kind(8, 8, choices=plain)), torch.randn(2, 8, 5, 5)
    if isinstance(block, PreActBlock | PreActBottleneck):
        agree(block, x, block.branch(F.relu(norm(x, block.bn1))))
    else:
        agree(block, x, F.relu(block.branch(x)))


def test_a_block_whose_branch_is_zero_is_the_identity() -> None:
    """So that it begins as in Goyal et al. 2017, section 5.1; ReLU keeps what a block put out."""
    x = torch.rand(2, 32, 8, 8)
    for name in ("residual", "bottleneck", "preact_residual", "preact_bottleneck"):
        width = 8 if name.endswith("bottleneck") else 32
        network = build(Architecture(name, (2,), width=width, stem="cifar", zero_init=True))
        torch.testing.assert_close(network.get_submodule("layer1")[1](x), x)
        network(torch.rand(2, 3, 8, 8)).sum().backward()
        last = network.get_submodule("layer1")[1].get_parameter(BLOCK_ENDS[name])
        assert last.grad is not None
        assert last.grad.abs().sum() > 0, "it must be able to leave zero"


BLOCK_ENDS = {
    "residual": "bn2.weight",
    "bottleneck": "bn3.weight",
    "preact_residual": "conv2.weight",
    "preact_bottleneck": "conv3.weight",
}


def test_dropout_comes_before_the_last_convolution_and_only_in_training() -> None:
    block = PreActBlock(8, 8, choices=Choices(dropout=0.5))
    seen: list[Tensor] = []
    block.conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.rand(4, 8, 16, 16) + 1
    nn.init.ones_(block.bn2.bias)
    block.train()(x)
    block.eval()(x)
    dropped = [float((values == 0).float().mean()) for values in seen]
    assert dropped[0] - dropped[1] == pytest.approx(0.5 * (1 - dropped[1]), abs=0.05)


def test_removing_strides_and_dilating_computes_the_same_values_more_densely(
    kind: Architecture, side: int
) -> None:
    """À trous (arXiv:1606.00915, section 3.1): every D-th pixel is that of the strided network.

    Except with attention, whose means are over more pixels then.
    """
    strided = replace(kind, output_stride=None, norm="frozen", attention="none", zero_init=False)
    if strided.stride == strided.stem_stride:
        pytest.skip("has a single stage")
    dense = replace(strided, output_stride=strided.stride // 4 if strided.stride > 4 else 1)
    few, many = build(strided).double().eval(), build(dense).double().eval()
    many.load_state_dict(few.state_dict())
    images = torch.randn(1, kind.in_channels, 2 * side, 2 * side, dtype=torch.float64)
    with torch.no_grad():
        expected = few.features(images)[-1]
        features = many.features(images)[-1]
    step = strided.stride // dense.stride
    assert features.shape[2] == step * expected.shape[2]
    torch.testing.assert_close(features[..., ::step, ::step], expected, rtol=1e-3, atol=1e-3)


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
