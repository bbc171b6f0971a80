"""The page to learn from is the network of the catalog: the same names, shapes and numbers."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resnets.networks import build

PAGE = Path(__file__).parents[2] / "examples" / "resnet_on_one_page.py"


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page defines."""
    return runpy.run_path(str(PAGE))


def twins(page: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The networks of the page and of the catalog, with the same random weights and statistics."""
    torch.manual_seed(0)
    ours, catalog = page["ResNet20"](), build("resnet20")
    for value in catalog.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5).mul_(0.1 if value.ndim > 1 else 1)
    ours.load_state_dict(catalog.state_dict())
    return ours, catalog


def test_the_state_dict_has_the_names_and_shapes_of_the_catalog(page: dict[str, Any]) -> None:
    ours, catalog = page["ResNet20"]().state_dict(), build("resnet20").state_dict()
    assert [(name, value.shape) for name, value in ours.items()] == [
        (name, value.shape) for name, value in catalog.items()
    ]


@pytest.mark.parametrize("training", [False, True])
def test_the_logits_are_those_of_the_catalog(page: dict[str, Any], training: bool) -> None:
    ours, catalog = (network.train(training) for network in twins(page))
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours(images), catalog(images))
    for name, value in catalog.state_dict().items():  # in training the running means move, too
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_it_starts_as_the_paper_says(page: dict[str, Any]) -> None:
    torch.manual_seed(0)
    weight = page["ResNet20"]().layer3[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
