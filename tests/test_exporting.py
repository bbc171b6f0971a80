"""`resnets.export`: the command of this name, from Python."""

from pathlib import Path

import numpy as np
import pytest

import resnets
from resnets.deployment.inspection import InspectedExport
from resnets.errors import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)


@pytest.mark.soak
def test_an_exported_file_predicts_as_the_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    data = (np.tile(IMAGES, (8, 1, 1, 1)), np.arange(24) % 3)
    run = resnets.train(
        data, network="resnet14", output=tmp_path / "run", steps=2, image_size=8, progress=False
    )
    file = resnets.export(run, to="onnx", data="digits", images=8)
    assert file == tmp_path / "run" / "model.onnx"
    exported, ours = (resnets.predict(model, IMAGES) for model in (file, run))
    for one, other in zip(exported, ours, strict=True):
        assert one.prediction == other.prediction
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
    facts = resnets.inspect(file)
    assert isinstance(facts, InspectedExport)
    assert facts.agreement
    with pytest.raises(UsageError, match="overwrite"):
        resnets.export(run, to="onnx")


def test_wrong_words_are_answered_by_keywords(tmp_path: Path) -> None:
    for keywords, keyword in (
        ({"int8": True, "fp16": True}, "`fp16=True`"),
        ({"max_loss": 0.1}, "`max_loss`"),
        ({"tolerance": 2.0}, "`tolerance`"),
        ({"output": tmp_path / "a.xml"}, "`output`"),
    ):
        with pytest.raises(UsageError) as caught:
            resnets.export(
                "resnet14_cifar10", to="onnx", **{"output": tmp_path / "a.onnx"} | keywords
            )  # type: ignore[arg-type]
        assert keyword in str(caught.value)
    assert not any(tmp_path.iterdir())
