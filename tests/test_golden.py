"""The golden image of a file is that of its own network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import resnets
from resnets.golden import difference, golden_image, seed_of
from resnets.model_file import Description, load, read_description, read_header, update

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def model_file(untrained: Callable[..., Path]) -> Path:
    return untrained(NAMES)


def test_a_model_file_tells_what_predict_says_of_the_image(model_file: Path) -> None:
    description = read_description(model_file)
    image = golden_image(description.preprocessing, seed_of(description.golden))
    (prediction,) = resnets.predict(model_file, [image], top=3)
    expected = dict(zip(NAMES, description.golden["probabilities"], strict=True))
    assert dict(prediction.top) == pytest.approx(expected, abs=1e-5)


def test_a_file_that_is_calibrated_anew_tells_its_new_probabilities(model_file: Path) -> None:
    before = read_description(model_file).golden
    update(model_file, calibration={"temperature": 3.0, "threshold": 0.5, "target": 0.01})
    after = read_description(model_file)
    assert difference(before, np.array(after.golden["probabilities"])) > 1e-3
    assert load(model_file).description == after


def test_a_header_without_one_is_read(model_file: Path) -> None:
    header = read_header(model_file)
    del header["golden"]
    assert Description.from_header(header, "x").golden == {}


@pytest.mark.parametrize("golden", [{}, {"probabilities": "x"}, {"probabilities": [1.0]}])
def test_nonsense_is_never_right(golden: dict[str, object]) -> None:
    assert difference(golden, np.ones(3, np.float32)) == np.inf
    assert seed_of({"seed": -1}) == seed_of({"seed": "x"}) == 0
