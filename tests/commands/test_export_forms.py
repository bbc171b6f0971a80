"""`resnets export` in 8 and 16 bits and for Triton, as people call it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pyarrow.parquet as pq
import pytest

from resnets.data.sources.opening import open_data
from resnets.deployment.engines import accelerators
from resnets.deployment.engines.accelerators import ACCELERATORS, Accelerator
from resnets.deployment.engines.onnx import OnnxRuntime
from resnets.deployment.engines.opening import open_engine
from resnets.deployment.export.release import ExportOptions, release
from resnets.deployment.exported.reading import read_onnx, report_of
from resnets.errors import ContentError
from resnets.evaluation.engine import Floats
from resnets.images import Pixels
from tests.in_process import call

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def export(*words: str | Path) -> CompletedProcess[str]:
    return call("export", *words)


@pytest.fixture(scope="module")
def model(untrained: Callable[..., Path]) -> Path:
    """An untrained network for digits: its accuracy is that of guessing."""
    return untrained(tuple("0123456789"), 8, 8)


@pytest.mark.slow
def test_a_repository_for_triton_is_written_in_8_bits_or_not_at_all(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "repository" / "digits"
    words = (model, "--to", "triton", "--output", folder, "--data", "digits", "--int8")
    refused = export(*words, "--max-loss", "0", "--tolerance", "1e-12")
    assert refused.returncode == 1
    assert "is not written" in refused.stderr
    assert not folder.parent.exists()
    done = export(*words, "--max-loss", "100")
    assert done.returncode == 0, done.stderr
    assert "accuracy in int8" in done.stdout
    assert "the graph was run by ONNX Runtime, not by a server" in done.stdout
    assert "dims: [ -1, -1, 3 ]" in (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert len((folder / "labels.txt").read_text(encoding="utf-8").splitlines()) == 10
    report = report_of(read_onnx(folder / "1" / "model.onnx")[1])
    assert report["int8"]["accuracy_before"]["total"] == 179
    assert report["int8"]["calibration_images"] == 256
    assert report["int8"]["calibration_classes"] == 10
    assert report["int8"]["images"].startswith("179 images, the test split of digits")


@pytest.mark.slow
def test_sixteen_bits_say_what_pytorch_says(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    target = tmp_path / "half.onnx"
    done = export(model, "--to", "onnx", "--fp16", "--output", target, "--images", "9")
    assert done.returncode == 0, done.stderr
    assert "fp16: the same class as PyTorch on" in done.stdout
    test = open_data("digits").test
    assert test is not None
    pixels = test.stacked()
    half = open_engine(target, "onnxruntime").probabilities(pixels)
    assert np.abs(half - open_engine(model, "torch").probabilities(pixels)).max() < 0.01


@pytest.mark.slow
def test_sixteen_bits_are_checked_on_each_gpu_that_there_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is the CPU by another name, then one that computes something else."""
    pytest.importorskip("onnxruntime")
    target, cuda = tmp_path / "half.onnx", "onnxruntime-cuda"
    cpu = Accelerator("onnxruntime", "CPUExecutionProvider", "", in_float32=True)
    monkeypatch.setattr(accelerators, "_may_be_here", lambda _: True)
    monkeypatch.setitem(ACCELERATORS, cuda, cpu)
    monkeypatch.setattr(OnnxRuntime, "providers", lambda _: ["CPUExecutionProvider"])
    options = ExportOptions("onnx", "float16", images=5)
    assert str(release(model, target, options)).endswith(f"by onnxruntime and {cuda}")
    assert report_of(read_onnx(target)[1])["fp16"]["engines"] == ["onnxruntime", cuda]
    target.unlink()
    right = OnnxRuntime.probabilities

    def probabilities(engine: OnnxRuntime, images: Pixels) -> Floats:
        return right(engine, 255 - images if engine.name == cuda else images)

    monkeypatch.setattr(OnnxRuntime, "probabilities", probabilities)
    with pytest.raises(ContentError, match=f"not written in float16: by {cuda}"):
        release(model, target, options)
    assert not target.exists()
    monkeypatch.setitem(ACCELERATORS, cuda, replace(cpu, name="CUDAExecutionProvider"))
    assert str(release(model, target, options)).endswith("by onnxruntime")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--to", "onnx", "--int8", "--fp16"], 2, "--int8 and --fp16: choose one"),
        (["--to", "torch", "--int8"], 2, "int8 is for onnx, openvino and triton"),
        (["--to", "torch", "--fp16"], 2, "float16 is for onnx, openvino and triton"),
        (["--to", "onnx", "--int8"], 2, "labelled images"),
        (["--to", "onnx", "--int8", "--data", "nowhere"], 2, "nowhere: no such file"),
        (["--to", "triton", "--output", "a b"], 2, "the name 'a b'"),
        (["--to", "onnx", "--int8", "--data", "digits", "--max-loss", "-1"], 2, "max loss -1"),
    ],
)
def test_wrong_use_is_told(words: list[str], code: int, message: str, model: Path) -> None:
    done = export(model, *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not model.with_suffix(".onnx").exists()


@pytest.mark.soak
def test_int8_keeps_the_published_network_within_half_a_point(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """ResNet-20 of akamaster on 1,000 of CIFAR-10's test images; on all, 91.73 % is published."""
    pytest.importorskip("onnxruntime")
    names, converted = tmp_path / "names.txt", tmp_path / "resnet20.safetensors"
    names.write_text("\n".join(CIFAR10), encoding="utf-8")
    weights = shared("weights/akamaster_resnet20.th")
    words = ("--to", "resnets", "--output", converted, "--class-names", names)
    assert call("convert", weights, *words).returncode == 0
    data = tmp_path / "cifar10"
    data.mkdir()
    for split, count in (("train", 500), ("test", 1000)):
        file = min(shared("data/cifar10").glob(f"{split}*.parquet"))
        pq.write_table(pq.read_table(file).slice(0, count), data / f"{split}.parquet")
    done = export(converted, "--to", "onnx", "--int8", "--data", data)
    assert done.returncode == 0, done.stderr
    figures = report_of(read_onnx(converted.with_suffix(".onnx"))[1])["int8"]
    assert figures["accuracy_before"]["count"] > 900
    assert figures["accuracy_after"]["total"] == 1000
    assert figures["accuracy_after"]["count"] >= figures["accuracy_before"]["count"] - 5
    assert figures["bytes_after"] < 0.5 * figures["bytes_before"]
