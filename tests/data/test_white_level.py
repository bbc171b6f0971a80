"""What white is in a data set of 16 or 32 bits a value, and that all who read it use that."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import TrainingBatches, evaluation_batches
from resnets.data.labelled import LabelledImages
from resnets.data.sources.opening import open_data
from resnets.data.storage import FileStorage
from resnets.data.white_level import _WhiteLevel, find_white_level
from resnets.deployment.export.int8 import _frames
from resnets.images import Preprocessing, White
from resnets.images.white import Clipped


@pytest.fixture
def dim(tmp_path: Path) -> LabelledImages:
    """12 images of 12 bits in files of 16, all of one grey each: 0, 300, 600 ... 3300."""
    (tmp_path / "data").mkdir()
    for number in range(12):
        values = np.full((20, 20), 300 * number, np.uint16)
        values[0, 0] = 4095
        Image.fromarray(values).save(tmp_path / "data" / f"{number}.png")
    storage = FileStorage(tmp_path / "data", [f"{number}.png" for number in range(12)])
    return LabelledImages(storage, [0, 1] * 6, ["even", "odd"])


EXPECTED = np.rint(np.arange(12) * 300 * 255 / 4095)  # of each image's grey, 0 to 255


def test_white_is_found_in_a_sample_and_what_is_above_it_counted(dim: LabelledImages) -> None:
    assert find_white_level(dim) == _WhiteLevel(White(int16=4095), Clipped(0, 0, 12, 0.0))
    assert list(find_white_level(open_data("digits").train).in_words()) == []
    (line,) = find_white_level(dim).in_words()
    assert "4,095" in line


def test_an_image_that_cannot_be_read_has_no_say(dim: LabelledImages) -> None:
    storage = dim.storage
    assert isinstance(storage, FileStorage)
    (storage.root / "3.png").write_bytes(b"\x89PNG")
    (storage.root / "5.png").unlink()
    assert find_white_level(dim).white == White(int16=4095)


@pytest.mark.parametrize("crop", [0.0, 0.9])
@pytest.mark.parametrize(("workers", "limit"), [(0, 1 << 30), (0, 0), (1, 0)])
def test_batches_are_of_the_white_that_the_preprocessing_has(
    dim: LabelledImages, workers: int, limit: int, crop: float
) -> None:
    """In memory, streamed here and by a worker; whole images and random crops."""
    seen = Preprocessing(16, 16, (0.0,) * 3, (1.0,) * 3, White(int16=4095))
    plain = Augmentation(flip="none", crop_padding=0, smallest_crop=crop)
    batches = TrainingBatches(
        dim, seen, plain, batch_size=12, workers=workers, memory_limit=limit, seed=0
    )
    (batch,) = batches.epoch(0)
    greys = 255 * batch.images[:, 0, 8, 8].numpy()
    assert np.abs(greys - EXPECTED[batch.indices.numpy()]).max() < 0.6
    (batch,) = evaluation_batches(dim, seen, 12, workers=workers, memory_limit=limit)
    assert np.abs(255 * batch.images[:, 0, 8, 8].numpy() - EXPECTED).max() < 0.6


def test_frames_for_quantisation_are_of_it_too(dim: LabelledImages) -> None:
    seen = Preprocessing(16, 16, (0.0,) * 3, (1.0,) * 3, White(int16=4095))
    frames = np.concatenate([*_frames(dim, seen, 5)])
    np.testing.assert_array_equal(frames[:, 8, 8, 0], EXPECTED)


def test_subsets_keep_it(dim: LabelledImages) -> None:
    known = dim.with_white(White(int16=4095))
    assert known.subset([3]).image(0, 1)[9, 9, 0] == EXPECTED[3]
    assert dim.subset([3]).image(0, 1)[9, 9, 0] == round(900 / 257)  # 65,535 where nothing is known
