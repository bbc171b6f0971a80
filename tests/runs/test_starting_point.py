"""The network that a training starts from, and what it sees of an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import resnets
from resnets.data.batches import ProcessRank
from resnets.errors import ContentError
from resnets.images import Preprocessing
from resnets.networks import build
from resnets.runs.job import Job
from resnets.runs.prepare import prepare
from resnets.runs.setup import Setup
from resnets.runs.starting_point import StartingPoint, read_starting_point
from resnets.training.recipe import Recipe

MEASURED = Preprocessing(64, 72, (0.1, 0.2, 0.3), (0.2, 0.2, 0.2))


def foreign(network: str, folder: Path, classes: int) -> StartingPoint:
    """What is read of weights that nothing describes, for training on five classes."""
    file = folder / "weights.pth"
    torch.save(build(network, num_classes=classes).state_dict(), file)
    return read_starting_point(file, 5)


@pytest.mark.parametrize(
    ("network", "classes", "mean"),
    [
        ("resnet10t", 1000, (0.485, 0.456, 0.406)),  # torchvision's documentation of its weights
        ("resnet10t", 5, (0.485, 0.456, 0.406)),
        ("resnet14", 10, MEASURED.mean),
    ],
)
def test_what_a_file_does_not_tell_is_imagenet_s_or_measured(
    network: str, classes: int, mean: tuple[float, ...], tmp_path: Path
) -> None:
    start = foreign(network, tmp_path, classes)
    seen = start.preprocessing_like(MEASURED) or MEASURED
    assert (seen.size, seen.resize, seen.interpolation) == (64, 72, "bilinear")
    assert seen.mean == mean
    words = start.unknown_preprocessing_in_words
    assert words is not None
    assert ("ImageNet" in words) == (mean != MEASURED.mean)


def prepared(folder: Path, **changes: Any) -> tuple[Setup, str]:
    """What is decided for training on noise in colour, and what was told."""
    notices: list[str] = []
    recipe = Recipe(image_size=32, channels=changes.pop("channels", None))
    job = Job(data=str(folder), recipe=recipe, **changes)
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), notices.append)
    return setup, "\n".join(notices)


@pytest.fixture
def noise(tmp_path: Path, draw_noise: Callable[..., None]) -> Path:
    """A folder with a few images in colour, of two classes."""
    for number in range(8):
        draw_noise(tmp_path / "noise" / "ab"[number % 2] / f"{number}.png", seed=number)
    return tmp_path / "noise"


def test_a_network_for_other_channels_is_adapted_to_the_images(noise: Path, tmp_path: Path) -> None:
    grey = build("resnet14", in_channels=1)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    setup, text = prepared(noise, start=str(tmp_path / "grey.pth"))
    assert setup.preprocessing.channels == 3
    assert "grey" in text
    adapted = setup.network.get_parameter("conv.weight")
    torch.testing.assert_close(adapted.sum(1, keepdim=True), grey.conv.weight)
    setup, _ = prepared(noise, start="resnet14_cifar10", channels=1)
    ancestor = resnets.load("resnet14_cifar10")
    summed = ancestor.network.conv.weight.sum(1, keepdim=True)
    torch.testing.assert_close(setup.network.get_parameter("conv.weight").data, summed)
    means = ancestor.description.preprocessing.mean
    assert setup.preprocessing.mean == pytest.approx([sum(means) / 3])


def test_weights_that_are_not_understood_are_left_out_when_told_to(
    noise: Path, tmp_path: Path
) -> None:
    weights = build("resnet14").state_dict() | {"layer1.0.conv1.act_alpha": torch.ones(1)}
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(ContentError, match="act_alpha"):
        prepared(noise, start=str(tmp_path / "odd.pth"))
    _, text = prepared(noise, start=str(tmp_path / "odd.pth"), ignore_left_over=True)
    assert "act_alpha" in text
