from pathlib import Path

import pytest
from torch import nn

from resnets.networks import (
    Bottleneck,
    BottleneckBlock,
    ResidualBlock,
    ResNet,
    ResNetBottleneck,
    build,
)
from resnets.networks.architecture import Architecture

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8").removesuffix("\n")


def test_the_small_network_prints_the_golden_text() -> None:
    assert str(ResNet(ResidualBlock, (2, 2, 2))) == golden("model1.txt")


def test_the_bottleneck_network_prints_the_golden_text() -> None:
    assert str(ResNetBottleneck(BottleneckBlock, (2, 2, 2, 2))) == golden("model2.txt")


def test_the_golden_texts_are_the_ones_given(shared) -> None:
    for name in ("model1.txt", "model2.txt"):
        assert (GOLDEN / name).read_bytes() == shared(f"architectures/{name}").read_bytes()


def test_the_golden_networks_have_names_too() -> None:
    assert str(build("resnet14")) == golden("model1.txt")
    assert str(build("resnet26", num_classes=10)) == golden("model2.txt")


def test_the_text_does_not_depend_on_what_torch_prints_of_its_norms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch 2.13 added ``bias=True`` there; whatever comes next must not show either."""
    monkeypatch.setattr(nn.BatchNorm2d, "extra_repr", lambda _: "something, else=True")
    assert str(build("resnet14")) == golden("model1.txt")


def test_both_names_of_the_bottleneck_are_one_class() -> None:
    assert BottleneckBlock is Bottleneck
    assert Bottleneck.__name__ == "Bottleneck"


def test_the_title_says_which_blocks_there_are_however_it_was_built() -> None:
    assert str(ResNet(Bottleneck, (1, 1))).startswith("ResNetBottleneck(")
    assert str(ResNetBottleneck(ResidualBlock, (1, 1))).startswith("ResNet(")


def test_no_two_kinds_of_network_print_the_same(kinds: tuple[Architecture, ...]) -> None:
    texts = [str(build(kind)) for kind in kinds]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"shortcut": "padding"}, "(downsample): ZeroPadding(16, 32, stride=2)"),
        ({"shortcut": "none"}, "(downsample): NoShortcut()"),
        ({"dropout": 0.3}, "(dropout): Dropout(p=0.3, inplace=False)"),
        ({"stochastic_depth": 0.75}, "(drop_path): StochasticDepth(p=0.25)"),
        ({"blur": True}, "(blur): Blur(stride=2)"),
        ({"blur": "average"}, "(blur): AvgPool2d(kernel_size=2, stride=2, padding=0)"),
        ({"weight_standardisation": True}, "(conv2): StandardisedConv2d("),
        ({"output_stride": 2}, "padding=(2, 2), dilation=(2, 2), bias=False)"),
        ({"norm": "frozen"}, "(bn1): FrozenBatchNorm2d(16, eps=1e-05)"),
        ({"attention": "se"}, "(se): SqueezeExcitation("),
        ({"attention": "eca"}, "(se): EfficientAttention("),
    ],
)
def test_what_is_chosen_shows(changes: dict[str, object], line: str) -> None:
    assert line in str(ResNet(ResidualBlock, (1, 1, 1), **changes))
