import pytest
import torch

from resnets.networks import Architecture, build
from resnets.networks.layers import Blur
from resnets.networks.stems import STEMS, stem


@pytest.mark.parametrize(
    ("name", "widths"),
    [  # He et al. 2019, figure 2b, and what timm says of -S and -T
        ("resnet50c", (32, 32, 64)),
        ("resnet50d", (32, 32, 64)),
        ("resnet50s", (64, 64, 128)),
        ("resnet50t", (24, 32, 64)),
    ],
)
def test_deep_stems_have_three_convolutions_of_these_widths(
    name: str, widths: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        convolutions = [part for part in build(name).conv1 if hasattr(part, "weight")][::2]
    assert tuple(part.out_channels for part in convolutions) == widths
    assert [part.kernel_size for part in convolutions] == [(3, 3)] * 3


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("block", ["residual", "preact_residual"])
def test_every_stem_has_the_stride_and_the_channels_it_says(
    name: str, blur: bool, block: str
) -> None:
    network = Architecture(block, (1,), width=16, stem=name, stem_width=24, blur=blur)
    x = torch.randn(2, 3, 32, 64)
    for part in stem(network).values():
        x = part(x)
    assert x.shape == (2, 24, 32 // network.stem_stride, 64 // network.stem_stride)


def test_blurred_stems_take_the_maximum_at_every_pixel_before_they_subsample() -> None:
    """Zhang 2019, section 3.2: max pooling is dense maxima, then subsampling."""
    parts = stem(Architecture("residual", (1,), width=8, blur=True))
    maximum, blur = parts["maxpool"]
    assert maximum.stride == 1
    assert isinstance(blur, Blur)
    assert blur.stride == 2


def test_preactivation_stems_leave_the_norm_and_the_relu_to_the_first_block() -> None:
    assert list(stem(Architecture("preact_residual", (1,), stem="cifar"))) == ["conv"]
    assert list(stem(Architecture("preact_bottleneck", (1,)))) == ["conv1", "maxpool"]
