"""What convert writes answers in its new home as it does here, by the other libraries' own code.

RESNETS_OTHER_PYTHON names the Python of another environment, one that has torch, timm and
transformers. This package does not depend on them.
"""

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from resnets import load, predict
from resnets.cli import main
from resnets.evaluation.eager import Eager
from resnets.images import Preprocessing
from resnets.model_file import Description, Model, save
from resnets.networks import build
from tests.fixtures.published import photos

OTHER = os.environ.get("RESNETS_OTHER_PYTHON", "")
CLASSES = ("ant", "bee", "cat", "dog", "eel")
HALF, IMAGENET = ((0.5,) * 3,) * 2, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LANDSCAPE, PORTRAIT = photos.pictures()
PICTURES = (LANDSCAPE, 255 - PORTRAIT, LANDSCAPE // 4)
OF_BICUBIC = Preprocessing(224, 235, *HALF, interpolation="bicubic", crop_rounding="even")
SEEN = {  # transformers has no deep stems, and begins a crop elsewhere where half a pixel is over
    "huggingface": {
        "resnet18": Preprocessing(224, 256, *IMAGENET),
        "resnet50": Preprocessing(288, 304, *HALF, interpolation="bicubic"),
        "resnet26": Preprocessing(96, 96, *HALF, interpolation="bicubic", crop_mode="squash"),
    },
    "timm": {
        "resnet18": Preprocessing(224, 256, *IMAGENET, crop_rounding="even"),
        "resnet50": OF_BICUBIC,
        "resnet50d": Preprocessing(
            288, 303, *IMAGENET, interpolation="bicubic", crop_rounding="even"
        ),
        "resnet26": Preprocessing(
            96, 96, *HALF, interpolation="bicubic", crop_mode="squash", crop_rounding="even"
        ),
    },
}
ANSWERS = {
    "huggingface": """
import json, sys
from transformers import pipeline
folders, images = (words.split("|") for words in sys.argv[1:])
print(json.dumps([
    [{each["label"]: each["score"] for each in answer} for answer in
     pipeline("image-classification", folder, device="cpu")(images, top_k=5)]
    for folder in folders
]))
""",
    "timm": """
import json, sys, timm, torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
def answers(folder, images):
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    data = resolve_data_config(model=network, use_test_size=True)
    prepare, names = create_transform(**data), network.pretrained_cfg["label_names"]
    for image in images:
        with torch.inference_mode():
            logits = network(prepare(Image.open(image).convert("RGB"))[None])
        yield dict(zip(names, logits.softmax(1)[0].tolist()))
folders, images = (words.split("|") for words in sys.argv[1:])
print(json.dumps([list(answers(folder, images)) for folder in folders]))
""",
}


def write_model(name: str, preprocessing: Preprocessing, path: Path) -> None:
    """A network with statistics as after training, whose answers depend on the pictures."""
    torch.manual_seed(0)
    network = build(name, num_classes=len(CLASSES)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.data.fill_(1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    model = Model(network, Description(network.architecture.to_dict(), CLASSES, preprocessing))
    classifier, engine = network.get_submodule("fc"), Eager(model)
    classifier.get_parameter("bias").data.zero_()
    logits = torch.cat([torch.from_numpy(engine.logits(each[None])) for each in PICTURES])
    scale = 1 / (logits - logits.mean(0)).std()
    classifier.get_parameter("weight").data.mul_(scale)
    classifier.get_parameter("bias").data.copy_(-logits.mean(0) * scale)
    save(path, network, model.description)


def answers_there(project: str, folders: Iterable[Path], images: Iterable[Path]) -> Any:
    """Probabilities by class name, of each image by each network."""
    words = ["|".join(map(str, paths)) for paths in (folders, images)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [OTHER, "-c", ANSWERS[project], *words],
        env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not OTHER, reason="RESNETS_OTHER_PYTHON names no Python with their libraries")
@pytest.mark.parametrize("project", SEEN)
def test_a_converted_network_answers_there_as_here(project: str, tmp_path: Path) -> None:
    images, models = [], []
    for number, picture in enumerate(PICTURES):
        images.append(tmp_path / f"{number}.png")
        Image.fromarray(picture).save(images[-1])
    for name, preprocessing in SEEN[project].items():
        models.append(tmp_path / f"{name}.safetensors")
        write_model(name, preprocessing, models[-1])
        assert main(["convert", str(models[-1]), "--to", project]) == 0
    folders = [model.with_name(f"{model.stem}-{project}") for model in models]
    for path, theirs in zip(models, answers_there(project, folders, images), strict=True):
        model, ours = load(path), []
        for image, other in zip(images, theirs, strict=True):
            answer = predict(model, image, top=len(CLASSES))[0]
            ours.append(dict(answer.top))
            assert answer.prediction == max(other, key=other.__getitem__)
            for name in CLASSES:
                assert ours[-1][name] == pytest.approx(other[name], abs=0.01)
        assert len({max(each, key=each.__getitem__) for each in ours}) > 1, "all are alike"
