import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import resnets
from resnets.deployment.engines.opening import Engine, EngineName, open_engine
from resnets.deployment.engines.torch import open_program
from resnets.deployment.export.files import Format, _reference_probabilities, export, images_for
from resnets.deployment.exported.interface import read_interface
from resnets.deployment.exported.reading import describe, read_onnx, report_of
from resnets.errors import ContentError, UsageError
from resnets.golden import difference
from resnets.model_file import Description, Model, read_description

pytestmark = pytest.mark.slow  # exporting takes ten seconds, once


def agrees(engine: Engine, model: Model, atol: float = 1e-6) -> None:
    """In batches of any number and images of any size, by both ways into the engine."""
    random = np.random.default_rng(0)
    for shape in ((1, 20, 20, 3), (3, 20, 33, 3), (2, 57, 31, 3), (1, 9, 9, 3)):
        images = random.integers(0, 256, shape, np.uint8)
        expected = _reference_probabilities(model, list(images))
        np.testing.assert_allclose(engine.probabilities(images), expected, atol=atol)
        own, features = engine.graph(images)
        np.testing.assert_allclose(own, expected, atol=0.02)  # a level of 255 in some pixels
        assert features.shape == engine.features(images).shape == (len(images), 16)
    seen = model.description.preprocessing
    numbers = torch.from_numpy(seen.normalise(np.stack([seen.pixels(image) for image in images])))
    with torch.no_grad():
        pooled = model.network.embed(numbers).numpy()
    np.testing.assert_allclose(engine.features(images), pooled, rtol=1e-4, atol=1e-5)


def tells_no_place(file: Path) -> None:
    """Where on the machine the exporter's own modules lie is nobody's business."""
    parts = zipfile.ZipFile(file) if file.suffix == ".pt2" else None
    whole = b"".join(map(parts.read, parts.namelist())) if parts else file.read_bytes()
    for module in (resnets, torch):
        assert str(Path(module.__file__).parent).encode() not in whole


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_onnx_file_says_what_pytorch_says(
    name: EngineName, exported: Path, model: Model
) -> None:
    engine = open_engine(exported, name, threads=1)
    assert engine.name == name
    tells_no_place(exported)
    assert engine.description == model.description
    agrees(engine, model)


@pytest.mark.parametrize(("to", "ending"), [("openvino", ".xml"), ("torch", ".pt2")])
def test_so_do_files_for_openvino_and_torch(
    to: Format, ending: str, model: Model, tmp_path: Path
) -> None:
    pixels, source = images_for(model, None, 4)
    path = tmp_path / f"net{ending}"
    assert export(model, path, to, pixels, source).same_answer == 4
    engine = open_program(path) if to == "torch" else open_engine(path, threads=1)
    assert engine.description == model.description
    tells_no_place(path)
    agrees(engine, model)
    assert read_interface(path).outputs == ("probabilities", "features")
    if to == "torch":  # whoever has torch and nothing else reads the same names
        signature = torch.export.load(path).graph_signature
        assert (signature.user_inputs, signature.user_outputs) == (
            ("images",),
            ("probabilities", "features"),
        )
    path.with_suffix(".bin" if to == "openvino" else ending).write_bytes(b"cut")
    with pytest.raises(ContentError):
        open_program(path) if to == "torch" else open_engine(path)


def test_the_file_holds_its_description_and_the_report_of_its_check(
    exported: Path, model: Model
) -> None:
    _, header = read_onnx(exported)
    assert Description.from_header(header, "file") == model.description
    report = report_of(header)["agreement"]
    assert (report["source"], report["images"], report["same_answer"]) == ("all of digits", 8, 8)
    assert report["difference"] <= report["tolerance"]
    assert json.loads(header["class_names"]) == ["ant", "bee", "cat", "dog", "eel"]


def test_what_is_past_the_tolerance_is_not_written_over_what_is_there(
    model: Model, tmp_path: Path
) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"old")
    pixels, source = images_for(model, None, 2)
    with pytest.raises(ContentError, match=r"is not written: .* on 2 of 2 images"):
        export(model, path, "torch", pixels, source, tolerance=1e-12)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_images_to_check_on_are_of_the_data_or_else_digits(model: Model) -> None:
    pixels, source = images_for(model, None, 3)
    assert (len(pixels), source) == (3, "all of digits")
    with pytest.raises(UsageError, match="nowhere"):
        images_for(model, "nowhere", 3)
    with pytest.raises(UsageError, match="at least 1"):
        images_for(model, None, 0)


def test_data_of_which_images_were_skipped_are_good_to_check_on(
    model: Model, draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    for name in model.description.class_names:
        draw_noise(tmp_path / "own" / name / "1.png")
    (tmp_path / "own" / "ant" / "broken.png").write_bytes(b"broken")
    trained = {"source": str(tmp_path / "own"), "skipped": 1}
    own = replace(model, description=replace(model.description, data=trained))
    assert images_for(own, None, 3)[1] == f"all of {tmp_path / 'own'}"
    with pytest.raises(ContentError, match="broken"):  # which the user has just named
        images_for(own, str(tmp_path / "own"), 3)


def test_an_onnx_file_tells_somebody_who_has_nothing_else_how_to_use_it(exported: Path) -> None:
    text = pytest.importorskip("onnx").load(exported).doc_string
    for word in ("uint8", "(batch, height, width, channels)", "red, green, blue", "upright"):
        assert word in text
    for word in ("probabilities", "features", "class_names", "unsure", "unfamiliar"):
        assert word in text


def test_the_file_tells_the_golden_image_of_its_network(exported: Path, model_path: Path) -> None:
    expected = np.array(read_description(model_path).golden["probabilities"])
    assert difference(describe(exported).golden, expected) < 1e-5
