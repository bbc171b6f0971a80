import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from resnets.networks import build
from resnets.networks.norms import BatchNorm2d, FrozenBatchNorm2d, _group_norm


def two_norms(channels: int) -> tuple[nn.BatchNorm2d, BatchNorm2d]:
    """Torch's norm and the fast one, with the same random scale and shift."""
    torch.manual_seed(channels)
    theirs, ours = nn.BatchNorm2d(channels, momentum=0.3), BatchNorm2d(channels, momentum=0.3)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    ours.fast_training = True
    return theirs, ours


def images(channels: int, height: int, width: int) -> Tensor:
    """Random ones, far from mean 0 and variance 1, in channels_last."""
    x = 3 + 0.5 * torch.randn(6, channels, height, width)
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "shape", [(16, 8, 8), (16, 4, 6), (32, 8, 4), (64, 1, 2), (8, 4, 4), (1, 32, 8)]
)
def test_few_channels_are_normalised_as_torch_does_it_in_float64(
    shape: tuple[int, int, int],
) -> None:
    theirs, ours = two_norms(shape[0])
    x = images(*shape).requires_grad_()
    gradient = torch.randn(x.shape)
    exact = copy.deepcopy(theirs).double()
    x64 = x.detach().double().requires_grad_()
    expected, output = exact(x64), ours(x)
    assert "NarrowNorm" in output.grad_fn.name()
    expected.backward(gradient.double())
    output.backward(gradient)
    pairs = [
        (expected, output),
        (x64.grad, x.grad),
        (exact.weight.grad, ours.weight.grad),
        (exact.bias.grad, ours.bias.grad),
        *zip(exact.buffers(), ours.buffers(), strict=True),
    ]
    for right, mine in pairs:
        assert torch.allclose(right.to(mine.dtype), mine, rtol=1e-4, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_a_network_gets_the_gradients_of_float64() -> None:
    torch.manual_seed(0)
    fast = build("resnet20").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exact = copy.deepcopy(fast).double()
    for module in fast.modules():
        if isinstance(module, BatchNorm2d):
            module.fast_training = True
    x = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.arange(16) % 10
    torch.autograd.backward(nn.functional.cross_entropy(fast(x), labels))
    torch.autograd.backward(nn.functional.cross_entropy(exact(x.double()), labels))
    right = torch.cat([p.grad.flatten() for p in exact.parameters()])
    gradients = torch.cat([p.grad.flatten() for p in fast.parameters()])
    assert (gradients - right).norm() < 2e-5 * right.norm()  # torch's own norm: 7e-4


@pytest.mark.parametrize("how", ["evaluation", "contiguous", "float64", "48 channels", "not asked"])
def test_all_else_is_left_to_torch(how: str) -> None:
    channels = 48 if how == "48 channels" else 16
    theirs, ours = two_norms(channels)
    x = images(channels, 8, 8)
    if how == "contiguous":
        x = x.contiguous()
    if how == "float64":
        x, theirs, ours = x.double(), theirs.double(), ours.double()
    ours.fast_training = how != "not asked"
    for norm in (theirs, ours):
        norm.train(how != "evaluation")
    assert torch.equal(theirs(x), ours(x))


def test_frozen_batch_norm_computes_what_batch_norm_does_in_evaluation() -> None:
    usual = BatchNorm2d(4)
    for tensor in (usual.running_mean, usual.running_var, usual.weight, usual.bias):
        nn.init.uniform_(tensor, 0.5, 2)
    frozen = FrozenBatchNorm2d(4)
    frozen.load_state_dict(usual.state_dict(), strict=True)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(frozen.train()(x), usual.eval()(x))
    assert list(frozen.parameters()) == []


def test_loading_frozen_norms_leaves_the_callers_weights_alone() -> None:
    state = BatchNorm2d(4).state_dict()
    FrozenBatchNorm2d(4).load_state_dict(state)
    assert "num_batches_tracked" in state


@given(st.integers(1, 300))
def test_group_norm_always_divides_the_channels(channels: int) -> None:
    norm = _group_norm(channels)
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32


@pytest.mark.parametrize("channels", [64, 128, 256, 2048])
def test_group_norm_has_the_papers_32_groups(channels: int) -> None:
    """Wu and He 2018, section 4."""
    assert _group_norm(channels).num_groups == 32
