"""Published weights, prepared and computed as their publishers do.

`tests/fixtures/published/make.py` wrote what timm and torchvision compute, with weights filled by
their names, the published preprocessing, and the size at which each is validated.
"""

import gzip
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from resnets.evaluation.eager import Eager
from resnets.images import Preprocessing
from resnets.model_file import Description, Model
from resnets.networks import ResNet, load_checkpoint
from resnets.networks.checkpoints.hub_folder import read_hub_folder
from resnets.pretrained.opening import _preprocessing
from resnets.pretrained.table import find
from tests.fixtures.parity import fill
from tests.fixtures.published import photos
from tests.spread import spread

FOLDER = Path(photos.__file__).parent
NAMES = [path.name.removesuffix(".json.gz") for path in sorted(FOLDER.glob("*.json.gz"))]
STEP = 29  # of the pixels that are stored
ROUNDING_GROWS = {  # attention with filled weights multiplies float32's, other on each processor
    "timm-resnetrs50.tf_in1k",
    "timm-seresnet50.ra2_in1k",
}


def facts_of(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def preprocessing_in_table(name: str) -> Preprocessing:
    """As it is for the row of an id, which is all that says so for torchvision's."""
    row = find(name.replace("-", "/", 1))
    assert row is not None
    return _preprocessing(row)


def opened(name: str, facts: Any, folder: Path) -> tuple[ResNet, Preprocessing]:
    """The network and its preprocessing, from files as they lie on the hub."""
    state = {
        key: torch.from_numpy(fill.weights(key, tuple(shape)))
        for key, shape in facts["state"].items()
    }
    save_file(state, folder / "model.safetensors")
    if name.startswith("torchvision"):
        return load_checkpoint(folder / "model.safetensors"), preprocessing_in_table(name)
    config = {"architecture": facts["architecture"], "pretrained_cfg": facts["config"]}
    (folder / "config.json").write_text(json.dumps(config))
    contents = read_hub_folder(folder)
    return contents.network(), contents.preprocessing


def relative_error(logits: NDArray[Any], expected: Any) -> float:
    """The largest difference, relative to the largest logit: filled weights give up to 50,000."""
    expected = np.array(expected)
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def softened(logits: NDArray[Any], scale: float) -> NDArray[Any]:
    """Probabilities (N, K) that are not all 0 or 1: filled weights give far larger logits."""
    exponentials = np.exp((logits - logits.max(1, keepdims=True)) / scale)
    probabilities: NDArray[Any] = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


@pytest.mark.slow
@pytest.mark.parametrize("name", spread(NAMES, every=2))
def test_published_networks_compute_here_what_they_compute_there(name: str, tmp_path: Path) -> None:
    facts = facts_of(name)
    network, preprocessing = opened(name, facts, tmp_path)
    size = preprocessing.size
    numbers = torch.from_numpy(fill.images((1, 3, size, size)))
    pictures = photos.pictures()
    with torch.inference_mode():
        outputs = network(numbers)[0].numpy()
        exact = deepcopy(network).double()(numbers.double())[0].numpy()
    assert relative_error(exact, facts["numbers_in_float64"]) < 1e-6  # they have 7 digits
    if name in ROUNDING_GROWS:
        rounding = relative_error(outputs, exact)
        assert rounding < 0.02
        assert relative_error(outputs, facts["numbers"]) < 10 * rounding
    else:
        assert relative_error(outputs, facts["numbers"]) < 1e-4
    for picture, pixels in zip(pictures, facts["pixels"], strict=True):
        seen = preprocessing.pixels(picture)[:, ::STEP, ::STEP].astype(int)
        assert np.abs(seen - np.array(pixels)).max() <= 1
    names = tuple(map(str, range(20)))
    engine = Eager(Model(network, Description({}, names, preprocessing)))
    logits, theirs = engine.logits(np.stack(pictures[:1])), np.array(facts["logits"])
    logits = np.concatenate([logits, engine.logits(np.stack(pictures[1:]))])
    assert (logits.argmax(1) == theirs.argmax(1)).all()
    ours, published = (softened(each, float(theirs.std())) for each in (logits, theirs))
    assert np.abs(ours - published).max() < 0.01


def test_twelve_networks_or_more_are_held_to_the_same_bound() -> None:
    assert len(set(NAMES) - ROUNDING_GROWS) >= 12


@pytest.mark.parametrize("name", NAMES)
def test_published_pixels_are_within_a_level(name: str, tmp_path: Path) -> None:
    """Timm's config.json says how images are prepared; the table repeats it, and is listed."""
    facts = facts_of(name)
    preprocessing = preprocessing_in_table(name)
    if name.startswith("timm"):
        (tmp_path / "model.safetensors").write_bytes(b"")
        config = {"architecture": facts["architecture"], "pretrained_cfg": facts["config"]}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert read_hub_folder(tmp_path).preprocessing == preprocessing
    for picture, pixels in zip(photos.pictures(), facts["pixels"], strict=True):
        seen = preprocessing.pixels(picture)[:, ::STEP, ::STEP].astype(int)
        assert np.abs(seen - np.array(pixels)).max() <= 1
