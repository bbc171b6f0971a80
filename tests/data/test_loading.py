import numpy as np
import pytest
import torch

from resnets.data.augmentation.crops import ResizedCrop
from resnets.data.batches import _InMemory, _open_pixels, _Streamed
from resnets.data.labelled import LabelledImages
from resnets.data.storage import PixelStorage
from resnets.data.streaming import Reader
from resnets.images import Preprocessing


@pytest.mark.parametrize(("largest", "kind"), [(40 * 40 * 3, _InMemory), (1000, _Streamed)])
def test_large_images_are_not_held_to_be_cropped_in_floating_point(
    largest: int, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.data.batches._LARGEST_HELD", largest)
    storage = PixelStorage(np.zeros((4, 40, 40, 3), np.uint8), str)
    images = LabelledImages(storage, [0, 1, 0, 1], ["ant", "bee"])
    reader = Reader(images, Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3), ResizedCrop(0.25, 4 / 3))
    assert isinstance(_open_pixels(reader, 0, torch.device("cpu")), kind)
