import json
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets.errors import ContentError, UsageError
from resnets.networks import Architecture, ResidualBlock, ResNet, ResNetBottleneck, build
from resnets.networks import architecture as names
from resnets.networks.blocks import BLOCKS, SHORTCUTS
from resnets.networks.layers import ATTENTIONS
from resnets.networks.norms import NORMS
from resnets.networks.stems import _STEMS

PLAIN = Architecture("residual", (1, 1))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any allowed architecture that is small enough to build."""

    def maybe(strategy: st.SearchStrategy[Any], otherwise: Any) -> Any:
        return draw(st.one_of(st.just(otherwise), strategy))

    block = draw(st.sampled_from(get_args(names.Block)))
    bottleneck = block.endswith("bottleneck")
    stem = draw(st.sampled_from(get_args(names.Stem)))
    depths = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    strides = [(1 if stem in ("cifar", "linear") else 4) * 2**stage for stage in range(len(depths))]
    norm = draw(st.sampled_from(get_args(names.Norm)))
    shortcut = draw(st.sampled_from(get_args(names.Shortcut)))
    blur = draw(st.sampled_from((False, True, "average")))
    return Architecture(
        block=block,
        depths=depths,
        width=draw(st.sampled_from((8, 16, 24))),
        stem=stem,
        stem_width=maybe(st.sampled_from((8, 16, 40)), None),
        shortcut=shortcut,
        activated_start=draw(st.booleans()),
        norm=norm,
        groups=maybe(st.sampled_from((1, 2, 4)), 1) if bottleneck else 1,
        base_width=draw(st.sampled_from((64, 128))) if bottleneck else 64,
        strided_conv=2 if blur else draw(st.sampled_from((1, 2))),
        attention=draw(st.sampled_from(get_args(names.Attention))),
        reduction=draw(st.sampled_from((4, 16))),
        blur=blur,
        dropout=maybe(st.floats(0, 0.9), 0.0),
        stochastic_depth=maybe(st.floats(0, 0.9), 0.0),
        output_stride=maybe(st.sampled_from(strides), None),
        weight_standardisation=draw(st.booleans()),
        zero_init=draw(st.booleans()) and shortcut != "none" and norm != "frozen",
        num_classes=draw(st.integers(1, 12)),
        in_channels=draw(st.integers(1, 5)),
    )


@given(architectures())
def test_an_architecture_survives_json(architecture: Architecture) -> None:
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


@settings(max_examples=30)
@given(architectures())
def test_a_network_built_from_its_own_architecture_has_the_same_weights_and_text(
    architecture: Architecture,
) -> None:
    network = build(architecture)
    again = build(Architecture.from_dict(network.architecture.to_dict()))
    assert again.architecture == architecture
    assert str(again) == str(network)
    again.load_state_dict(network.state_dict(), strict=True)


def test_constructors_and_architectures_build_the_same_networks() -> None:
    small = ResNet(ResidualBlock, (2, 2, 2), in_channels=1)
    assert small.architecture == Architecture(
        "residual",
        (2, 2, 2),
        width=16,
        stem="cifar",
        shortcut="projection3x3",
        num_classes=10,
        in_channels=1,
    )
    large = ResNetBottleneck("bottleneck", [1, 2, 3, 4])
    assert large.architecture == Architecture("bottleneck", (1, 2, 3, 4), num_classes=10)
    assert type(build(large.architecture)) is ResNetBottleneck


def test_each_name_that_is_allowed_stands_for_something() -> None:
    tables = {
        "block": BLOCKS,
        "stem": _STEMS,
        "shortcut": SHORTCUTS,
        "norm": NORMS,
        "attention": ATTENTIONS,
    }
    hints = get_type_hints(Architecture)
    for field, table in tables.items():
        assert set(get_args(hints[field])) == set(table), field


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("block", "basic", "residual, bottleneck"),
        ("block", 3, "residual, bottleneck"),
        ("depths", (), "1 to 8 numbers"),
        ("depths", 3, "1 to 8 numbers"),
        ("depths", "22", "1 to 8 numbers"),
        ("depths", (2, 0), "from 1 up"),
        ("depths", (2, 1.5), "from 1 up"),
        ("depths", (2, 1001), "1000 at most"),
        ("width", -16, "from 1 up"),
        ("width", True, "from 1 up"),
        ("width", 16.0, "from 1 up"),
        ("stem", "vgg", "cifar, imagenet"),
        ("stem_width", 0, "from 1 up"),
        ("shortcut", "A", "padding"),
        ("norm", "layer", "batch, group, frozen"),
        ("groups", 2, "only bottlenecks"),
        ("base_width", 128, "only bottlenecks"),
        ("strided_conv", 3, "1 (the 1x1: v1) or 2"),
        ("attention", "cbam", "none, se, eca"),
        ("dropout", 1.0, "a probability"),
        ("dropout", "a lot", "a probability"),
        ("stochastic_depth", -0.1, "a probability"),
        ("stochastic_depth", float("nan"), "a probability"),
        ("output_stride", 16, "4, 8"),
        ("output_stride", "8", "4, 8"),
        ("blur", 1, "True or False"),
        ("blur", "most", "'average'"),
        ("weight_standardisation", "yes", "True or False"),
        ("num_classes", 0, "from 1 up"),
        ("in_channels", None, "from 1 up"),
    ],
)
def test_what_no_network_has_is_refused_with_what_is_allowed(
    field: str, value: object, allowed: str
) -> None:
    with pytest.raises(UsageError, match=field) as error:
        replace(PLAIN, **{field: value})
    assert allowed in str(error.value)
    wrong_value = value[-1] if field == "depths" and isinstance(value, tuple) and value else value
    assert str(wrong_value) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"block": "bottleneck", "width": 10, "base_width": 4}, "multiple of 64"),
        ({"block": "bottleneck", "blur": True, "strided_conv": 1}, "with blur it is 2"),
        ({"stem": "deep", "width": 12}, "multiple of 8"),
        ({"zero_init": True, "shortcut": "none"}, "needs shortcuts"),
        ({"zero_init": True, "norm": "frozen"}, "norm that trains"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        replace(PLAIN, **changes)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "block, architecture.depths must be given"),
        ({"block": "residual"}, "depths must be given"),
        ({"block": "residual", "depths": [1], "heads": 8}, "architecture.heads: no such setting"),
        ({"block": "residual", "depths": [1], "width": "64"}, "width is '64'"),
        ({"block": ["residual"], "depths": [1]}, "block is"),
    ],
)
def test_a_description_that_makes_no_sense_is_a_content_error(
    values: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ContentError, match=reason):
        Architecture.from_dict(values)


def test_every_field_is_described() -> None:
    assert Architecture.__doc__ is not None
    for field in fields(Architecture):
        assert f"        {field.name}: " in Architecture.__doc__
