import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnets.networks.layers import (
    Blur,
    EfficientAttention,
    SqueezeExcitation,
    StandardisedConv2d,
    StochasticDepth,
)


def test_squeeze_and_excitation_scales_channels_by_a_gate_made_from_all_their_means() -> None:
    layer, x = SqueezeExcitation(32, reduction=2), torch.randn(2, 32, 5, 5)
    squeezed = x.mean((2, 3))
    hidden = F.relu(F.linear(squeezed, layer.fc1.weight[:, :, 0, 0], layer.fc1.bias))
    gate = torch.sigmoid(F.linear(hidden, layer.fc2.weight[:, :, 0, 0], layer.fc2.bias))
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])


@pytest.mark.parametrize(
    ("channels", "inner"), [(64, 8), (184, 8), (192, 16), (256, 16), (2048, 128)]
)
def test_squeeze_and_excitation_is_as_narrow_as_timms(channels: int, inner: int) -> None:
    assert SqueezeExcitation(channels).fc1.weight.shape == (inner, channels, 1, 1)


def test_efficient_attention_convolves_the_means_over_neighbouring_channels() -> None:
    layer, x = EfficientAttention(16), torch.randn(2, 16, 5, 5)
    means = F.pad(x.mean((2, 3)), (1, 1))
    weights = layer.conv.weight.flatten()
    mixed = sum(weights[tap] * means[:, tap : tap + 16] for tap in range(3))
    torch.testing.assert_close(layer(x), x * torch.sigmoid(mixed)[:, :, None, None])


@pytest.mark.parametrize(
    ("channels", "size"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)]
)
def test_the_kernel_of_efficient_attention_grows_with_the_channels(channels, size) -> None:
    """Equation 12 of Wang et al. 2020, the even numbers going up as in its authors' code."""
    assert EfficientAttention(channels).conv.weight.shape == (1, 1, size)


def test_blur_is_the_binomial_filter_before_subsampling() -> None:
    """Triangle-3 of Zhang 2019, section 3.2: [1, 2, 1] by [1, 2, 1] over 16."""
    x = torch.randn(2, 3, 9, 8)
    taps = torch.tensor([1.0, 2, 1])
    kernel = (taps[:, None] * taps / 16).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=3)
    torch.testing.assert_close(Blur(2)(x), expected)


def test_blur_without_its_stride_is_the_dilated_filter() -> None:
    x = torch.randn(2, 3, 8, 8)
    taps = torch.tensor([1.0, 2, 1])
    kernel = (taps[:, None] * taps / 16).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel, dilation=2, groups=3)
    torch.testing.assert_close(Blur(1, dilation=2)(x), expected)


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = StochasticDepth(0.3).train()
    y = layer(torch.ones(4000, 2, 3, 3))
    values = {round(value, 4) for value in y.flatten().tolist()}
    assert values == {0.0, round(1 / 0.7, 4)}
    assert torch.equal(y.amax((1, 2, 3)), y.amin((1, 2, 3))), "an image is dropped as a whole"
    assert float(y.mean()) == pytest.approx(1, abs=0.03)  # 3 standard errors


def test_stochastic_depth_keeps_everything_in_evaluation() -> None:
    x = torch.randn(4, 2, 3, 3)
    assert torch.equal(StochasticDepth(0.9).eval()(x), x)


def test_a_standardised_convolution_uses_filters_of_mean_zero_and_variance_one() -> None:
    """Qiao et al. 2019, equations 6 to 8, written out with NumPy's mean and standard deviation."""
    layer = StandardisedConv2d(4, 6, 3, stride=2, padding=1, bias=False).double()
    nn.init.normal_(layer.weight, 3, 2)
    filters = layer.weight.detach().numpy()
    mean, std = (statistic(filters, (1, 2, 3), keepdims=True) for statistic in (np.mean, np.std))
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    expected = F.conv2d(x, torch.from_numpy((filters - mean) / std), stride=2, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)
