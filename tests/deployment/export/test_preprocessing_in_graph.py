"""Exported graphs prepare images as their publishers do, in every runtime."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.deployment.engines.opening import EngineName, open_engine
from resnets.deployment.export.files import export
from resnets.evaluation.eager import Eager
from resnets.images import Preprocessing
from resnets.images.preprocessing import CropMode
from resnets.model_file import Model
from tests.spread import spread

pytestmark = pytest.mark.slow  # each export takes seconds

SIZES = (12, 16)  # 12 pixels are cut from 16
CASES: tuple[tuple[str, CropMode], ...] = (  # an .onnx takes long to make
    (".xml", "center"),
    (".onnx", "center"),
    (".onnx", "squash"),
    (".xml", "squash"),
    (".xml", "border"),
)


@pytest.mark.parametrize(("ending", "crop_mode"), spread(CASES, every=3))
def test_every_runtime_prepares_images_as_pytorch_does(
    ending: str,
    crop_mode: CropMode,
    model: Model,
    tmp_path: Path,
    images: Callable[[int], Any],
) -> None:
    """In the graph, of any size, and by the engine before it."""
    half = Preprocessing(
        *SIZES,
        (0.5,) * 3,
        (0.5,) * 3,
        interpolation="bicubic",
        crop_mode=crop_mode,
        crop_rounding="even",
    )
    model = Model(model.network, replace(model.description, preprocessing=half))
    path = tmp_path / f"model{ending}"
    kind: Any = "onnx" if ending == ".onnx" else "openvino"
    export(model, path, kind, [np.full((20, 24, 3), 200, np.uint8)], "grey images")
    names: list[EngineName] = ["openvino"] if kind == "openvino" else ["onnxruntime", "openvino"]
    for name in names:
        engine = open_engine(path, name, threads=1)
        assert engine.description.preprocessing == half
        for batch in (images(3), images(2)[:, :, :9], images(2)[:, :16, 4:20]):
            expected = Eager(model).probabilities(batch)
            np.testing.assert_allclose(engine.probabilities(batch), expected, atol=1e-5)
            np.testing.assert_allclose(engine.graph(batch)[0], expected, atol=2e-3)
