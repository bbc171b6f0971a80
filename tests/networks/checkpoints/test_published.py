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
from tests.fixtures.parity import fill
from tests.fixtures.published import photos

FOLDER = Path(photos.__file__).parent
NAMES = [path.name.removesuffix(".json.gz") for path in sorted(FOLDER.glob("*.json.gz"))]
STEP = 29  # of the pixels that are stored


def facts_of(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def opened(name: str, facts: Any, folder: Path) -> tuple[ResNet, Preprocessing]:
    """The network and its preprocessing, from files as they lie on the hub."""
    state = {
        key: torch.from_numpy(fill.weights(key, tuple(shape)))
        for key, shape in facts["state"].items()
    }
    save_file(state, folder / "model.safetensors")
    if name.startswith("torchvision"):
        config = {n: tuple(v) if isinstance(v, list) else v for n, v in facts["config"].items()}
        preprocessing = Preprocessing(**config, crop_rounding="even")
        return load_checkpoint(folder / "model.safetensors"), preprocessing
    config = {"architecture": facts["architecture"], "pretrained_cfg": facts["config"]}
    (folder / "config.json").write_text(json.dumps(config))
    contents = read_hub_folder(folder)
    return contents.network(), contents.preprocessing


def softened(logits: NDArray[Any], scale: float) -> NDArray[Any]:
    """Probabilities (N, K) that are not all 0 or 1: filled weights give far larger logits."""
    exponentials = np.exp((logits - logits.max(1, keepdims=True)) / scale)
    probabilities: NDArray[Any] = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_networks_compute_here_what_they_compute_there(name: str, tmp_path: Path) -> None:
    facts = facts_of(name)
    network, preprocessing = opened(name, facts, tmp_path)
    size = preprocessing.size
    numbers = torch.from_numpy(fill.images((1, 3, size, size)))
    expected, pictures = np.array(facts["numbers"]), photos.pictures()
    with torch.inference_mode():
        outputs = network(numbers)[0].numpy()
        exact = deepcopy(network).double()(numbers.double())[0].numpy()
    # attention with such weights multiplies rounding, which is another one on each processor
    rounding = np.linalg.norm(outputs - exact) / np.linalg.norm(exact)
    assert rounding < 0.02
    error = np.linalg.norm(outputs - expected) / np.linalg.norm(expected)
    assert error < max(1e-4, 10 * rounding)
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


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("timm")])
def test_published_pixels_are_within_a_level(name: str, tmp_path: Path) -> None:
    facts = facts_of(name)
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = {"architecture": facts["architecture"], "pretrained_cfg": facts["config"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    preprocessing = read_hub_folder(tmp_path).preprocessing
    for picture, pixels in zip(photos.pictures(), facts["pixels"], strict=True):
        seen = preprocessing.pixels(picture)[:, ::STEP, ::STEP].astype(int)
        assert np.abs(seen - np.array(pixels)).max() <= 1
