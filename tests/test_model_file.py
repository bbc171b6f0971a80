import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from resnets.errors import ContentError, UsageError
from resnets.images import Preprocessing
from resnets.model_file import (
    _FORMAT,
    Description,
    architecture_of,
    custom_class,
    load,
    read_description,
    save,
    update,
)
from resnets.networks import ResNet, build

PREPROCESSING = Preprocessing(size=32, resize=36, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))


def described(network: ResNet, **facts: Any) -> Description:
    names = tuple(f"class {number}" for number in range(network.architecture.num_classes))
    return Description(network.architecture.to_dict(), names, PREPROCESSING, **facts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A model file of a small network."""
    network = build("resnet14", width=4)
    save(tmp_path / "model.safetensors", network, described(network, metrics={"n": 10}))
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    "name", ["resnet14", "resnet20", "preact_resnet110", "resnet18", "seresnet50", "resnetrs50"]
)
def test_a_network_comes_back_with_its_logits(name: str, tmp_path: Path) -> None:
    network = build(name, width=8).eval()
    save(tmp_path / "file", network, described(network))
    images = torch.randn(2, 3, 64, 64)
    model = load(tmp_path / "file")
    assert not model.network.training
    assert torch.equal(model.network(images), network(images))
    assert str(model.network) == str(network)


text = st.text(max_size=20)
value = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
table = st.dictionaries(text, value | st.lists(value, max_size=3), max_size=3)


@given(names=st.lists(text, min_size=1, max_size=5), recipe=table, metrics=table, data=table)
@settings(max_examples=50)
def test_a_description_survives_its_header(
    names: list[str], recipe: dict[str, Any], metrics: dict[str, Any], data: dict[str, Any]
) -> None:
    description = Description(
        {"block": "residual", "depths": [1]}, tuple(names), PREPROCESSING, recipe, metrics, data
    )
    assert Description.from_header(description.to_header(), "x") == description


def test_the_description_is_read_without_torch(path: Path) -> None:
    code = (
        "import sys; from resnets.model_file import read_description; "
        "print(len(read_description(sys.argv[1]).class_names)); 'torch' in sys.modules and 1/0"
    )
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "10\n"


def test_other_programs_read_the_weights(path: Path) -> None:
    assert set(load_file(path)) == set(build("resnet14", width=4).state_dict())


def test_updating_leaves_the_weights_alone(path: Path) -> None:
    before = load(path)
    update(path, calibration={"temperature": 1.5})
    after = load(path)
    assert after.description == replace(before.description, calibration={"temperature": 1.5})
    for name, weight in before.network.state_dict().items():
        assert torch.equal(after.network.state_dict()[name], weight)


def header_changed(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header["__metadata__"])
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=f"resnets/{_FORMAT + 1}"), "reads up to 1 .*--upgrade"),
        (lambda h: h.update(format="pt"), "not a model file of resnets .*resnets inspect"),
        (lambda h: h.pop("class_names"), "no 'class_names'"),
        (lambda h: h.update(recipe="{"), "the header is damaged"),
        (lambda h: h.update(recipe="[]"), "recipe is .*must be a table"),
        (lambda h: h.update(preprocessing='{"size": 0}'), "preprocessing"),
        (lambda h: h.update(architecture='{"block": "vgg", "depths": [1]}'), "architecture"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused_with_the_reason(
    path: Path, change: Callable[[dict[str, str]], None], message: str
) -> None:
    header_changed(path, change)
    with pytest.raises(ContentError, match=message):
        load(path)


def test_a_network_without_a_classifier_is_refused_before_anything_is_written(
    path: Path, tmp_path: Path
) -> None:
    model = load(path)
    model.network.reset_classifier(0)
    with pytest.raises(UsageError, match=r"no classifier.*reset_classifier"):
        save(tmp_path / "headless", model.network, model.description)
    assert not (tmp_path / "headless").exists()


def test_weights_of_another_network_are_refused(path: Path, tmp_path: Path) -> None:
    header = described(build("resnet14", width=4)).to_header()
    other = tmp_path / "other"
    save_file(build("resnet14", width=8).state_dict(), other, metadata=header)
    with pytest.raises(ContentError, match="other: the weights do not fit the architecture"):
        load(other)


@given(length=st.integers(0, 20_000))
@settings(max_examples=50)
def test_a_file_that_is_cut_off_is_refused(
    length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    network = build("resnet14", width=1)
    save(folder / "file", network, described(network))
    content = (folder / "file").read_bytes()
    (folder / "file").write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(ContentError, match="file: "):
        load(folder / "file")


@given(content=st.binary(max_size=100))
def test_bytes_that_are_no_model_file_are_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(content)
    with pytest.raises(ContentError, match="file: "):
        read_description(path)


class Net(torch.nn.Module):
    """Of somebody's own."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4, classes)
        self.register_buffer("mask", torch.full((2,), float("-inf")))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean((2, 3)))


def test_a_network_of_ones_own_is_its_weights_and_its_description(path: Path) -> None:
    network, file = Net().eval(), path.with_name("own.safetensors")
    about = Description(architecture_of(network), ("a", "b", "c"), PREPROCESSING)
    save(file, network, about)
    assert load_file(file).keys() == network.state_dict().keys()
    assert custom_class(read_description(file).architecture) == "Net"
    again = load(file, network=Net())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.network(images), network(images))
    assert again.description == about
    with pytest.raises(ContentError, match=r"own\.safetensors.*Net.*network="):
        load(file)
    with pytest.raises(ContentError, match="do not fit"):
        load(file, network=Net(classes=5))
    with pytest.raises(UsageError, match="without network="):
        load(path, network=Net())
