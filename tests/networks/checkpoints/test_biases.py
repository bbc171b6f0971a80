"""Biases of convolutions before norms, against the same network that keeps them, in float64."""

from typing import Any

import pytest
import torch
from torch import nn

from resnets.errors import ContentError
from resnets.networks import Architecture, build
from resnets.networks.checkpoints.foreign import _understand

SMALL = {"width": 8, "num_classes": 5}
NETWORKS: list[dict[str, Any]] = [
    {"block": "residual", "depths": (2, 1, 1), "stem": "cifar", "shortcut": "padding"},
    {"block": "residual", "depths": (1, 1), "stem": "cifar", "shortcut": "projection3x3"},
    {"block": "residual", "depths": (2, 1), "attention": "se"},
    {"block": "bottleneck", "depths": (2, 1), "stem": "deep", "shortcut": "pooled"},
    {"block": "bottleneck", "depths": (1, 1), "stem": "deep_strided", "blur": True},
    {"block": "preact_residual", "depths": (3, 2), "stem": "cifar", "shortcut": "padding"},
    {"block": "preact_residual", "depths": (2, 2), "activated_start": False},
    {"block": "preact_bottleneck", "depths": (2, 2), "stem": "cifar"},
    {"block": "preact_bottleneck", "depths": (2, 2), "stem": "deep", "shortcut": "pooled"},
    {"block": "preact_residual", "depths": (2, 2), "shortcut": "projection_everywhere"},
]


def with_biases(network: nn.Module) -> nn.Module:
    """The network in float64, every convolution with a large bias, every norm with statistics."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.randn(module.out_channels))
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network.double().eval()


@pytest.mark.parametrize("choices", NETWORKS, ids=str)
def test_a_bias_before_a_norm_is_moved_into_its_mean_wherever_it_stands(
    choices: dict[str, Any],
) -> None:
    network = with_biases(build(Architecture(**choices | SMALL)))
    hidden = {k: choices[k] for k in ("blur", "activated_start") if k in choices}
    checkpoint = _understand(network.state_dict(), **hidden)
    assert checkpoint.left_over.unknown == ()
    rebuilt = checkpoint.build().double()
    rebuilt.load_state_dict(checkpoint.weights, strict=False)  # building rounds to float32
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(rebuilt(images), expected, rtol=1e-9, atol=1e-9)
        for name, value in network.named_parameters():
            if name.endswith("conv1.bias"):
                value.zero_()
        assert not torch.allclose(network(images), expected)  # they mattered


def test_a_bias_that_no_norm_takes_up_is_not_dropped_in_silence() -> None:
    network = build("resnet18", width=16, norm="group", num_classes=3)
    state = with_biases(network).state_dict()
    with pytest.raises(ContentError, match=r"not understood.*conv1\.bias"):
        _understand(state).build()


def test_the_bias_of_an_attention_stays_where_it_is() -> None:
    state = build("resnet18", width=16, attention="se", num_classes=3).state_dict()
    weights = _understand(state).weights
    assert torch.equal(weights["layer1.0.se.fc1.bias"], state["layer1.0.se.fc1.bias"])
