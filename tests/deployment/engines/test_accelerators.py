"""Exported files on GPUs, where there is none: runtimes that lack them, and ones that pretend."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from resnets.deployment.bench.runtimes import RUNTIMES
from resnets.deployment.engines import EngineName, accelerators, open_engine, selection
from resnets.deployment.engines.accelerators import (
    ACCELERATORS,
    Accelerator,
    refuse_fallback,
    worth_measuring,
)
from resnets.deployment.engines.onnx import OnnxRuntime
from resnets.errors import UsageError

EXPORTED = Path(accelerators.__file__).parents[2] / "shipped/resnet14_cifar10.onnx"
ON_CPU = {  # an accelerator that is the CPU by another name
    "onnxruntime-cuda": Accelerator("onnxruntime", "CPUExecutionProvider", "", in_float32=True),
    "openvino-gpu": Accelerator("openvino", "CPU", "", {"INFERENCE_PRECISION_HINT": "f32"}),
}


def test_every_accelerator_is_a_choice_of_engines_and_of_bench() -> None:
    assert set(get_args(EngineName)) == {"auto", "torch", "onnxruntime", "openvino", *ACCELERATORS}
    assert set(ACCELERATORS) <= set(RUNTIMES)


@pytest.mark.parametrize("name", ACCELERATORS)
def test_a_device_that_the_runtime_does_not_have_is_refused_with_what_brings_it(
    name: EngineName,
) -> None:
    accelerator = ACCELERATORS[name]
    pytest.importorskip(accelerator.runtime)
    with pytest.raises(UsageError, match=f"{name}.* no {accelerator.name} .*CPU.* comes with"):
        open_engine(EXPORTED, name)


@pytest.mark.parametrize(("device", "engine"), [("cuda", "onnxruntime-cuda"), ("xpu", "openvino")])
def test_the_device_of_an_exported_file_is_the_runtime_for_it(device: str, engine: str) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match=engine):
        open_engine(EXPORTED, device=device)
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        open_engine(EXPORTED, device="cuda:1")


@pytest.mark.parametrize("name", ON_CPU)
def test_an_accelerator_gives_what_the_cpu_gives(
    name: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(ON_CPU[name].runtime)
    monkeypatch.setitem(ACCELERATORS, name, ON_CPU[name])
    monkeypatch.setattr(OnnxRuntime, "providers", lambda _: ["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    engine, cpu = open_engine(EXPORTED, name), open_engine(EXPORTED, "onnxruntime")
    assert engine.name == name
    for some in (images, images[:1]):
        np.testing.assert_allclose(
            engine.probabilities(some), cpu.probabilities(some), rtol=0, atol=1e-5
        )


def test_a_session_that_went_on_with_the_cpu_is_refused() -> None:
    """As ONNX Runtime does where CUDA's libraries are missing."""
    refuse_fallback("onnxruntime-cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(UsageError, match=r"could not start.*CPUExecutionProvider.*cuDNN"):
        refuse_fallback("onnxruntime-cuda", ["CPUExecutionProvider"])


def test_auto_measures_what_computes_in_float32_and_takes_the_fastest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(selection, "installed", lambda _: True)
    monkeypatch.setattr(accelerators, "_may_be_here", lambda _: True)
    rates = {"onnxruntime": 100.0, "openvino": 120.0, "onnxruntime-cuda": 900.0}
    measured: list[str] = []

    def rate_of(name: str, path: Path, threads: int) -> float:
        measured.append(name)
        return rates.get(name, 0.0)  # the others could not start

    monkeypatch.setattr(selection, "_rate_of", rate_of)
    candidates = ["onnxruntime", "openvino", *worth_measuring(["onnxruntime", "openvino"])]
    assert selection.fastest(EXPORTED, candidates) == "onnxruntime-cuda"
    assert measured == candidates
    assert not {"openvino-npu", "onnxruntime-coreml"} & set(candidates)


def test_without_its_package_or_a_gpu_nothing_more_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(accelerators, "_GPUS_OF_LINUX", tmp_path / "none")
    monkeypatch.setattr(accelerators, "distribution", _missing)
    assert worth_measuring(["onnxruntime", "openvino"]) == []
    monkeypatch.setattr(accelerators, "_GPUS_OF_LINUX", tmp_path)
    assert worth_measuring(["onnxruntime", "openvino"]) == ["openvino-gpu"]
    assert worth_measuring(["onnxruntime"]) == []


def _missing(name: str) -> None:
    raise accelerators.PackageNotFoundError(name)
