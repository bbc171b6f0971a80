"""What a network must survive: copies, files, devices, memory formats, compilers, exports."""

import copy
import pickle

import pytest
import torch
from torch import nn

from resnets.networks import Architecture, ResNet, build
from tests.networks.conftest import FEW, kind_id
from tests.spread import spread


def prepared(kind: Architecture) -> ResNet:
    """In evaluation mode, with statistics of a few random images."""
    torch.manual_seed(0)
    return build(kind).eval()


def images_for(kind: Architecture, side: int, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, kind.in_channels, side, side, generator=generator)


@torch.no_grad()
def test_copies_compute_the_same(kind: Architecture, side: int) -> None:
    network, images = prepared(kind), images_for(kind, side)
    expected = network(images)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        assert torch.equal(twin(images), expected)
        assert twin.architecture == kind
        assert str(twin) == str(network)


@torch.no_grad()
def test_a_network_built_without_storage_computes_the_same_once_it_has_weights(
    kind: Architecture, side: int
) -> None:
    network, images = prepared(kind), images_for(kind, side)
    with torch.device("meta"):
        empty = build(kind).eval()
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    empty.to_empty(device="cpu").load_state_dict(network.state_dict())
    assert torch.equal(empty(images), network(images))


@torch.no_grad()
def test_channels_last_computes_the_same_and_stays_channels_last(
    kind: Architecture, side: int
) -> None:
    network, images = prepared(kind), images_for(kind, side)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4)
    for feature in network.features(images):
        assert feature.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("kind", spread(FEW, every=3), ids=kind_id)
@torch.no_grad()
def test_the_whole_graph_is_captured(kind: Architecture, side: int) -> None:
    network, images = prepared(kind), images_for(kind, side)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), network(images))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
def test_training_compiles_as_a_whole() -> None:
    torch.manual_seed(0)
    network, images = build("resnet14", width=4, depths=(1, 1)), torch.randn(4, 3, 8, 8)
    network(images).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    torch.compiler.reset()
    torch.compile(network, fullgraph=True)(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", spread(FEW, every=3), ids=kind_id)
@torch.no_grad()
def test_the_exported_program_takes_other_numbers_and_sizes_of_images(
    kind: Architecture, side: int
) -> None:
    network, images = prepared(kind), images_for(kind, 2 * side)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (images,), dynamic_shapes=({**dynamic, 1: None},))
    for number, height, width in ((3, 3 * side, 2 * side), (2, 2 * side, 4 * side)):
        others = torch.randn(number, kind.in_channels, height, width)
        torch.testing.assert_close(program.module()(others), network(others), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_a_traced_network_takes_other_numbers_of_images() -> None:
    """As tools that convert traced networks do. A warning would say that shapes were burnt in."""
    network, images = build("resnet14", width=4).eval(), torch.randn(2, 3, 32, 32)
    traced = torch.jit.trace(network, images)
    others = torch.randn(5, 3, 40, 32)
    torch.testing.assert_close(traced(others), network(others))


def test_half_precision_networks_take_half_precision_images() -> None:
    network = build("resnet14", width=4).to(torch.bfloat16)
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_parallel_replicas_hold_no_buffers_but_those_of_norms() -> None:
    for kind in ("resnetblur50", "seresnet50"):
        buffers = {name.rsplit(".", 1)[1] for name, _ in build(kind, width=8).named_buffers()}
        assert buffers == {"running_mean", "running_var", "num_batches_tracked"}
    assert isinstance(build("resnet14").fc, nn.Linear)
