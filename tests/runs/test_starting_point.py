"""The network that a training starts from, and what it sees of an image."""

from pathlib import Path

import pytest
import torch

from resnets.images import Preprocessing
from resnets.networks import build
from resnets.runs.starting_point import StartingPoint, read_starting_point

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
    seen = start.preprocessing_like(MEASURED)
    assert (seen.size, seen.resize, seen.interpolation) == (64, 72, "bilinear")
    assert seen.mean == mean
    words = start.unknown_preprocessing_in_words
    assert words is not None
    assert ("ImageNet" in words) == (mean != MEASURED.mean)
