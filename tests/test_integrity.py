"""Damage is seen: in a file's bytes by its digest, in its weights, and in what a network gives."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnets import evaluate, explain, load, predict
from resnets.cli import main
from resnets.errors import ContentError
from resnets.images import Preprocessing
from resnets.integrity import DIGEST
from resnets.model_file import Description, Model, read_header, save, update
from resnets.networks import ResNet
from tests.calibration import calibration_at

CLASSES = ("dark", "light")
BROKEN = {  # what is put where, and what must be said of it
    "nan": ("fc.weight", float("nan"), "not finite"),
    "inf": ("layer1.0.bn1.running_var", float("inf"), "not finite"),
    "negative": ("layer2.0.bn2.running_var", -0.5, "negative"),
    "minus inf": ("conv.weight", float("-inf"), "not finite"),
}


def tiny(scale: float = 1.0) -> Model:
    """A network that sees nothing in black; the logits are multiplied by `scale` squared."""
    torch.manual_seed(0)
    network = ResNet("residual", (1, 1), width=4, stem="cifar", num_classes=2).eval()
    with torch.no_grad():
        network.get_parameter("layer2.0.bn2.weight").mul_(scale)
        network.get_parameter("fc.weight").mul_(scale)
    preprocessing = Preprocessing(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    about = Description(network.architecture.to_dict(), CLASSES, preprocessing)
    return Model(network, about)


def written(path: Path, model: Model) -> Path:
    save(path, model.network, model.description)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("sound") / "model.safetensors", tiny()).read_bytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images in class folders: black, and white."""
    for name, value in (("dark", 0), ("light", 255)):
        (tmp_path / "data" / name).mkdir(parents=True)
        picture = Image.fromarray(np.full((8, 8, 3), value, np.uint8))
        picture.save(tmp_path / "data" / name / f"{name}.png")
    return tmp_path / "data"


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_byte_anywhere_in_a_model_file_never_changes_a_network_in_silence(
    data: st.DataObject, sound: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only in the digest's own name may it pass: then the file is one without a digest."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    damaged = bytearray(sound)
    damaged[data.draw(st.integers(0, len(sound) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        model = load(path)
    except ContentError:
        return
    path.write_bytes(sound)
    expected = load(path)
    assert model.description == expected.description
    for name, weight in expected.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], weight)


def test_damaged_weights_are_named_as_such(sound: bytes, tmp_path: Path) -> None:
    damaged = bytearray(sound)
    for place in range(20):
        damaged[-1 - 7 * place] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged)
    with pytest.raises(ContentError, match=r"damaged\.safetensors: .*digest"):
        load(path)


def test_updating_a_description_renews_the_digest(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(sound)
    before = read_header(path)[DIGEST]
    update(path, metrics={"n": 1})
    assert read_header(path)[DIGEST] != before
    assert load(path).description.metrics == {"n": 1}


def broken(path: Path, name: str, value: float) -> Path:
    """A model file with one value of one weight replaced, under a digest that fits."""
    model = tiny()
    model.network.state_dict()[name].view(-1)[1] = value
    return written(path, model)


COMMANDS = (
    ["predict", "MODEL", "DATA"],
    ["evaluate", "MODEL", "DATA"],
    ["explain", "MODEL", "DATA", "--output", "OUT"],
    ["compare", "MODEL", "GOOD", "DATA"],
    ["compare", "GOOD", "MODEL", "DATA"],
    ["report", "MODEL", "DATA", "--output", "OUT/report.html"],
    ["export", "MODEL", "--to", "onnx", "--data", "DATA", "--output", "OUT/a.onnx"],
    ["convert", "MODEL", "--to", "torchvision", "--output", "OUT/a.pth"],
    ["bench", "MODEL", "--engines", "eager"],
    ["train", "DATA", "--from", "MODEL", "--epochs", "1", "--output", "OUT/run"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
@pytest.mark.parametrize("kind", BROKEN)
def test_every_command_that_computes_refuses_weights_that_are_no_numbers(
    kind: str, words: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value, message = BROKEN[kind]
    (tmp_path / "out").mkdir()
    places = {
        "MODEL": broken(tmp_path / "bad.safetensors", name, value),
        "GOOD": written(tmp_path / "good.safetensors", tiny()),
        "DATA": data,
    }
    for word, path in places.items():
        words = [str(path) if each == word else each for each in words]
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in words]) == 1
    error = capsys.readouterr().err
    assert name in error
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", BROKEN)
def test_inspect_says_how_many_values_are_no_numbers_and_where(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value, message = BROKEN[kind]
    path = broken(tmp_path / "bad.safetensors", name, value)
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"{name} (1 of " in shown
    assert message in shown
    assert main(["inspect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert list(facts["unsound"]) == [name]
    assert facts["digest"] == "matches"


def test_inspect_tells_a_damaged_file(
    sound: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert main(["inspect", str(path)]) == 0
    assert "does not match" in capsys.readouterr().out


def test_the_weights_of_others_are_looked_at_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny().network.state_dict()
    weights["layer1.0.conv1.weight"][0, 0, 0, 0] = float("inf")
    torch.save({"state_dict": weights}, tmp_path / "theirs.pth")
    assert main(["convert", str(tmp_path / "theirs.pth"), "--to", "resnets"]) == 1
    assert "layer1.0.conv1.weight (1 of" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "theirs.pth")]) == 0
    assert "layer1.0.conv1.weight (1 of" in capsys.readouterr().out


def test_the_case_file_is_refused_by_all_and_inspected(
    shared: Callable[[str], Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(shared("cases/files/w_nan.safetensors"))
    assert main(["predict", file, str(data)]) == 1
    assert "not finite" in capsys.readouterr().err
    assert main(["inspect", file]) == 0
    assert "fc.weight (640 of 640 values are not finite)" in capsys.readouterr().out


def test_an_image_for_which_the_numbers_overflow_is_named(data: Path) -> None:
    """Every weight is finite, black is answered, and white is more than float32 holds."""
    model = tiny(scale=1e25)
    dark, light = data / "dark/dark.png", data / "light/light.png"
    assert np.isfinite(predict(model, dark)[0].probability)
    calls: dict[str, Callable[[], Any]] = {
        "predict": lambda: predict(model, [dark, light]),
        "evaluate": lambda: evaluate(model, data, split="all"),
        "evaluate given": lambda: evaluate(model, [dark, light], ["dark", "light"]),
        "explain": lambda: explain(model, [dark, light]),
    }
    for name, call in calls.items():
        with pytest.raises(ContentError, match=r"light\.png: .*not finite") as caught:
            call()
        assert "dark.png" not in str(caught.value), name


@pytest.mark.soak
def test_a_network_that_overflows_is_not_measured_for_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights are finite, noise is more than it can hold: no figure, and exit code 1."""
    path = written(tmp_path / "huge.safetensors", tiny(scale=1e25))
    words = ["--engines", "eager", "torch", "--rounds", "1", "--seconds", "0.01", "--threads", "1"]
    assert main(["bench", str(path), *words]) == 1
    shown = capsys.readouterr().out
    assert shown.count("not finite") == 2
    assert "images/s" not in shown


def test_arrays_that_overflow_are_named_by_their_place(data: Path) -> None:
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    pixels[2] = 255
    with pytest.raises(ContentError, match=r"image\[2\]: .*not finite"):
        predict(tiny(scale=1e25), pixels, batch_size=2)


def test_a_command_that_meets_an_overflow_prints_no_answer(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "huge.safetensors", tiny(scale=1e25))
    for words in (["predict"], ["evaluate", "--split", "all"]):
        assert main([words[0], str(path), str(data), *words[1:], "--json"]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "light.png" in shown.err


def test_a_temperature_does_not_hide_an_overflow(data: Path) -> None:
    calibration = calibration_at(0.5, temperature=5.0, promised=False)
    model = tiny(scale=1e25)
    model = Model(model.network, replace(model.description, calibration=calibration))
    with pytest.raises(ContentError, match="not finite"):
        predict(model, data / "light/light.png")
