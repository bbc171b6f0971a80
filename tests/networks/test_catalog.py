import gzip
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.networks import CATALOG, Architecture, build
from resnets.networks.catalog import _IMAGENET, display_name, name_of, select


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, "torchvision") for name in ("resnet18", "resnet50", "resnext50_32x4d")),
        ("wide_resnet50_2", "torchvision"),
        *((name, "timm") for name in ("resnet26", "resnet50d", "seresnet50")),
    ],
)
def test_the_weights_have_the_names_and_shapes_of_other_projects(shared, name, layout) -> None:
    with gzip.open(shared(f"parity/{layout}-{name}.json.gz")) as file:
        theirs = {key: tuple(shape) for key, shape in json.load(file)["state"].items()}
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in build(name).state_dict().items()}
    assert list(ours) == list(theirs)
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnetv2_50", "timm-resnetv2_50"),
        ("resnet18", "huggingface-resnet18"),
        ("resnet50", "huggingface-resnet50"),
    ],
)
def test_there_are_as_many_parameters_as_where_the_names_differ(shared, name, file) -> None:
    with gzip.open(shared(f"parity/{file}.json.gz")) as stream:
        theirs = json.load(stream)
    classes = 1000 if theirs["layout"] == "timm" else 10
    with torch.device("meta"):
        network = build(name, num_classes=classes)
    assert sum(p.numel() for p in network.parameters()) == theirs["parameters"]


@pytest.mark.parametrize(
    ("depth", "name"),
    [
        *((depth, f"resnet{depth}") for depth in (18, 26, 34, 50, 101, 152, 200)),
        *((depth, f"resnet{depth}") for depth in (14, 20, 32, 44, 56, 110, 1202)),
        *((depth, f"preact_resnet{depth}") for depth in (164, 1001)),
    ],
)
def test_a_depth_of_the_papers_gives_their_network(depth: int, name: str) -> None:
    assert select(depth=depth) == CATALOG[name].architecture


def test_other_depths_follow_the_papers_formulas() -> None:
    assert select(depth=38).depths == (6, 6, 6)  # 6n + 2
    assert select(depth=47).depths == (5, 5, 5)  # 9n + 2
    assert select(depth=47).block == "preact_bottleneck"


def test_small_images_can_be_asked_for_where_imagenet_has_the_depth_too() -> None:
    network = select(depth=50, stem="cifar")
    assert (network.block, network.depths, network.width) == ("residual", (8, 8, 8), 16)


def test_the_block_decides_where_both_formulas_hold() -> None:
    assert select(depth=110, block="preact_bottleneck").depths == (12, 12, 12)
    assert select(depth=164, block="residual").depths == (27, 27, 27)


@given(st.integers(3, 400), st.sampled_from(Architecture.__annotations__["block"].__args__))
def test_what_a_depth_gives_has_that_depth(depth: int, block: str) -> None:
    try:
        network = select(depth=depth, block=block)
    except UsageError:
        assert depth not in _IMAGENET or block not in _IMAGENET[depth][0]
    else:
        assert network.depth == depth


@pytest.mark.parametrize(
    ("depth", "nearest"),
    [
        (51, "47, 50, 56"),
        (0, "8, 11, 14"),
        (-3, "8, 11, 14"),
        (19, "18, 20"),
        (1000, "1001"),
        (10**12, "1202"),
    ],
)
def test_an_unknown_depth_names_the_nearest(depth: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"no network has depth {depth}") as error:
        build(depth=depth)
    assert nearest in str(error.value)


@pytest.mark.parametrize("depth", ["50", 50.5, True, float("inf"), float("nan")])
def test_a_depth_is_a_whole_number(depth: object) -> None:
    with pytest.raises(UsageError, match="no network has depth"):
        build(depth=depth)


@pytest.mark.parametrize(("name", "meant"), [("resnet-50", "resnet50"), ("wrn28_10", "28_10")])
def test_an_unknown_name_names_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=meant):
        build(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet15", ["resnet14", "resnet18"]), ("wide_resnet29_10", ["wide_resnet28_10"])],
)
def test_a_name_with_another_number_names_the_nearest_by_number(name: str, near: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        build(name)
    names = str(refused.value).partition("nearest: ")[2].split(", ")
    assert names[: len(near)] == near


def test_a_name_or_a_depth_is_needed_and_not_both() -> None:
    for arguments in ({}, {"name": "resnet18", "depth": 18}):
        with pytest.raises(UsageError, match="a name or a depth"):
            build(**arguments)


def test_an_unknown_change_names_the_nearest_field() -> None:
    with pytest.raises(UsageError, match="no field 'classes' to change; nearest: num_classes"):
        build("resnet18", classes=5)


def test_every_row_takes_changes() -> None:
    network = build("resnet20", num_classes=3, in_channels=1, shortcut="projection")
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_the_catalog_is_read_without_torch() -> None:
    code = "import sys, resnets.networks.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_network_keeps_its_name_with_other_classes_channels_and_chance() -> None:
    for name, row in CATALOG.items():
        others = {"num_classes": 7, "in_channels": 1, "dropout": 0.1, "stochastic_depth": 0.2}
        assert name_of(replace(row.architecture, **others)) == name


def test_a_network_of_another_width_is_told_by_its_blocks_and_depth() -> None:
    narrow = replace(CATALOG["resnet14"].architecture, width=4)
    assert name_of(narrow) is None
    assert display_name(narrow) == "residual, 14 layers"
    assert display_name(CATALOG["resnet14"].architecture) == "resnet14"
