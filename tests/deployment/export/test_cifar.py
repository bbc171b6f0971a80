from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from resnets.deployment.engines.opening import EngineName, open_engine
from resnets.deployment.export.files import export
from resnets.images import Preprocessing, decode
from resnets.model_file import Description, Model
from resnets.networks.checkpoints.foreign import load_checkpoint

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.soak
def test_the_published_network_predicts_images_of_cifar_alike_in_every_engine(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """The weights of Yerlan Idelbayev's ResNet-20; `test_evaluate` has their published accuracy."""
    network = load_checkpoint(shared("weights/akamaster_resnet20.th")).eval()
    table = pq.read_table(shared("data/cifar10/test-00000-of-00001.parquet")).slice(0, 1000)
    pixels = np.stack([decode(image["bytes"]) for image in table["img"].to_pylist()])
    preprocessing = Preprocessing(32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    description = Description(network.architecture.to_dict(), tuple(CLASSES), preprocessing)
    model = Model(network, description)
    path = tmp_path / "resnet20.onnx"
    assert export(model, path, "onnx", list(pixels[:64]), "CIFAR-10").same_answer == 64
    expected = in_pytorch(model, pixels)
    assert (expected == table["label"].to_numpy()).mean() > 0.9
    for name in ("onnxruntime", "openvino"):
        predictions = answers(path, name, pixels)
        differing = np.flatnonzero(predictions != expected)
        assert len(differing) <= 1, f"{name} differs on the images {differing.tolist()}"


def in_pytorch(model: Model, pixels: np.ndarray) -> np.ndarray:
    import torch

    normalise = model.description.preprocessing.normalise
    with torch.inference_mode():
        parts = [
            model.network(torch.from_numpy(normalise(part.transpose(0, 3, 1, 2)))).argmax(1).numpy()
            for part in np.array_split(pixels, 4)
        ]
    return np.concatenate(parts)


def answers(path: Path, name: EngineName, pixels: np.ndarray) -> np.ndarray:
    engine = open_engine(path, name)
    parts = [engine.probabilities(part).argmax(1) for part in np.array_split(pixels, 4)]
    return np.concatenate(parts)
