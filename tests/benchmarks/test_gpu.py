"""The benchmark of GPUs, on the CPU and with the tiniest networks, so that it is ready for one."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from resnets.cli import main
from resnets.networks import build
from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def measured(folder: Path, *parts: str) -> dict[str, Any]:
    """What the benchmark has written after one more call, by part."""
    words = ["--device", "cpu", "--tiny", "--seeds", "1", "--output", folder]
    done = call_script(SCRIPT, *words, "--parts", *parts)
    assert done.returncode == 0, done.stderr
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


class Trainings:
    """In place of processes that train: they train here, and the first does not end in time."""

    def __init__(self) -> None:
        self.started: list[list[str]] = []
        self.returncode = 0

    def __call__(self, command: list[str], **_: Any) -> "Trainings":
        self.started.append(command[3:])
        self.returncode = main(command[3:])
        return self

    def wait(self, seconds: float | None = None) -> None:
        if seconds is not None and len(self.started) == 1:
            raise subprocess.TimeoutExpired("train", seconds)

    def terminate(self) -> None:
        """It has saved its state already."""


@pytest.mark.soak
def test_correctness_and_speed_are_measured_and_not_again(tmp_path: Path) -> None:
    parts = ("logits", "waits", "training-speed", "inference-speed")
    results = measured(tmp_path, *parts)
    assert set(results) == {*parts, "summary"}
    compared = results["logits"]
    assert compared["resnet14, float32"]["largest_difference_of_largest_logit"] == 0
    assert compared["resnet14, bfloat16"]["largest_difference_of_largest_logit"] > 0
    assert all(compared[f"resnet14, {name}"]["within"] for name in ("tf32", "bfloat16", "float16"))
    assert all(results["training-speed"][f"{name} eager"] > 0 for name in ("float32", "float16"))
    assert results["inference-speed"]["timm"]
    assert "CUDA" in results["waits"]["skipped"]
    assert "cores" in results["logits"]["machine"]
    assert measured(tmp_path, *parts) == results


def test_a_part_that_fails_is_written_down_and_the_others_go_on(tmp_path: Path) -> None:
    flags = ["--device", "cpu", "--tiny", "--seeds", "0", "--output", tmp_path, "--data", "missing"]
    flags += ["--parts", "losses", "waits"]
    first = call_script(SCRIPT, *flags)
    assert first.returncode == 1
    assert "missing" in first.stderr
    assert {file.stem for file in tmp_path.glob("*.json")} == {"summary"}
    second = call_script(SCRIPT, *flags)  # what has not failed yet comes first
    assert second.returncode == 1
    assert len(json.loads((tmp_path / "failed" / "losses.json").read_text())) == 2
    assert (tmp_path / "waits.json").exists()


@pytest.mark.soak
def test_a_part_that_takes_longer_than_a_call_is_written_down(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--tiny", "--output", tmp_path, "--parts", "processes"]
    late = call_script(SCRIPT, *words, "--minutes", "0.1")  # six seconds
    assert late.returncode == 1, late.stdout
    assert "takes longer" in json.loads((tmp_path / "failed" / "processes.json").read_text())[0]


def test_the_network_of_the_published_times_sees_all_pixels() -> None:
    """The anchors' ResNet-18 has a 3x3 stem; ImageNet's would see 8x8 of CIFAR-10's 32x32."""
    network = build("resnet18_cifar")
    sides = []
    for stage in (network.layer1, network.layer4):
        stage.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(torch.zeros(2, 3, 32, 32))
    assert sides == [32, 4]
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962


@pytest.mark.soak
def test_losses_and_resume_are_compared(tmp_path: Path) -> None:
    results = measured(tmp_path, "losses", "resume")
    assert results["losses"]["cpu float32"] == results["losses"]["device float32"]
    assert results["resume"]["equal"] is True


@pytest.mark.soak
def test_a_training_that_is_cut_off_goes_on_with_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings()
    monkeypatch.setattr(subprocess, "Popen", trainings)
    part = "accuracy-quick-resnet20-0"
    assert part not in measured(tmp_path, part)
    results = measured(tmp_path, part)
    assert trainings.started[-1][:2] == ["train", "--resume"]
    assert results["summary"]["accuracy"]["quick resnet20"]["n"] == 1
    assert results[part]["reached"].keys() == {"0.94", "0.95", "0.96"}


@pytest.mark.soak
def test_two_processes_are_compared_with_one(tmp_path: Path) -> None:
    """By processes of their own; batch norms of each see half of a batch on a CPU."""
    results = measured(tmp_path, "processes")["processes"]
    assert results["one"]["images"] == results["two"]["images"] > 0
    assert results["two"]["loss"] == pytest.approx(results["one"]["loss"], rel=0.2)
