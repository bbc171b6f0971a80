from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from resnets.errors import UsageError
from resnets.networks import CATALOG, Architecture, build
from resnets.networks.profile import profile


def test_multiply_adds_are_half_of_the_operations_that_torch_counts(
    kind: Architecture, side: int
) -> None:
    """Torch counts each multiplication and each addition of convolutions and matrices."""
    with torch.device("meta"):
        network = build(kind).eval()
        images = torch.zeros(1, kind.in_channels, side, side)
    with FlopCounterMode(display=False) as counter:
        network(images)
    assert profile(kind, side).multiply_adds * 2 == counter.get_total_flops()


def test_the_parts_add_up_to_the_network(kind: Architecture, side: int) -> None:
    measured = profile(kind, side)
    assert measured.parameters == sum(p.numel() for p in build(kind).parameters())
    assert [part.blocks for part in measured.parts] == [0, *kind.depths, 0]
    names = [f"layer{stage}" for stage in range(1, len(kind.depths) + 1)]
    assert [part.name for part in measured.parts] == ["stem", *names, "head"]


def test_the_parts_have_the_shapes_of_the_papers_table_1() -> None:
    shapes = [part.shape for part in profile(CATALOG["resnet50"].architecture, 224).parts]
    assert shapes == [
        (64, 56, 56),
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
        (2048, 7, 7),
        (1000,),
    ]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet18", [11, 43, 99, 211, 435]),
        ("resnet34", [11, 59, 179, 547, 899]),
        ("resnet50", [11, 35, 91, 267, 427]),
        ("resnet101", [11, 35, 91, 811, 971]),
    ],
)
def test_receptive_fields_are_those_that_others_computed(name: str, fields: list[int]) -> None:
    """The table of gist.github.com/samson-wang/a6073c18f2adf16e0ab5fb95b53db3e6."""
    parts = profile(CATALOG[name].architecture, 224).parts
    assert [part.receptive_field for part in parts[:-1]] == fields


@pytest.mark.parametrize("name", ["resnet50_v1", "resnetblur50", "resnet50d", "resnet20"])
def test_the_receptive_field_is_where_the_gradient_of_one_pixel_is_not_zero(name: str) -> None:
    torch.manual_seed(0)
    architecture = CATALOG[name].architecture
    network = replace(architecture, depths=(1,) * len(architecture.depths), width=16)
    field = profile(network, 256).parts[-2].receptive_field
    model = build(network).eval().double()
    for parameter in model.parameters():  # nothing cancels, no ReLU is silent
        torch.nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.ndim > 1 else 1)
    images = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    feature = model.features(images)[-1]
    middle = feature.shape[2] // 2
    feature[0, :, middle, middle].sum().backward()
    assert field < 200, "it must not touch the border"
    reached = images.grad[0].abs().sum(0) > 0
    rows, columns = reached.any(1).nonzero().flatten(), reached.any(0).nonzero().flatten()
    for indices in (rows, columns):
        assert int(indices[-1] - indices[0]) + 1 == field


def test_memory_is_what_a_block_must_keep() -> None:
    """By hand, in numbers a pixel: image 3; then 4 before and after each of the norms."""
    pixels, features = 32 * 32, 4
    network = Architecture("residual", (1,), width=4, stem="cifar", num_classes=7)
    kept = pixels * (3 + 3 * 2 * 4) + features
    assert profile(network, 32).activation_bytes == 4 * kept


def test_memory_is_that_of_real_tensors() -> None:
    """Kept by autograd for a batch of real images; each storage counted once."""
    network = CATALOG["resnet20"].architecture
    model, images = build(network).train(), torch.zeros(4, 3, 32, 32)
    learned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images)
    sizes = [t.untyped_storage().nbytes() for p, t in kept.items() if p not in learned]
    assert logits.requires_grad
    # statistics of norms are kept as well, but do not grow with the number of images
    assert sum(sizes) / 4 == pytest.approx(profile(network, 32).activation_bytes, rel=0.01)


def test_sizes_that_no_network_takes_are_refused() -> None:
    with pytest.raises(UsageError, match="size is -5"):
        profile(CATALOG["resnet18"].architecture, -5)
    with pytest.raises(UsageError, match="16 x 16 pixels"):
        profile(CATALOG["resnet18"].architecture, 16)
