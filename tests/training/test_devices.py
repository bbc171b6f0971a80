"""What a run does on devices that this machine does not have: torch's answers are replaced."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import resnets
from resnets import machine
from resnets.cli import main
from resnets.errors import ContentError, UsageError
from resnets.networks import ResNet, evaluation_mode
from resnets.networks.evaluation_mode import evaluating
from resnets.runs.checkpoint import random_state, set_random_state
from resnets.runs.job import Job
from resnets.training import devices, parallel
from resnets.training.devices import (
    choose_device,
    computes_bf16,
    computing,
    is_out_of_memory,
    memory_advice,
    refuse_other_launchers,
    synchronise,
)
from resnets.training.parallel import _backend, _leave_group, distribute
from resnets.training.recipe import Recipe


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many GPUs of each kind torch finds; none at first."""
    counts: dict[str, int] = {}
    monkeypatch.setattr(devices, "_count", lambda kind: counts.get(kind, 0))
    return counts


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the second of two processes that torchrun started here."""
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")


@pytest.mark.parametrize(
    ("counts", "name", "device"),
    [
        ({}, "auto", "cpu"),
        ({"mps": 1}, "auto", "mps"),
        ({"cuda": 2, "mps": 1}, "auto", "cuda:0"),
        ({"cuda": 2}, "cuda:1", "cuda:1"),
        ({"xpu": 1}, "xpu", "xpu:0"),
        ({"xpu": 1}, "auto", "cpu"),  # only by name: it has not been tried
        ({"mps": 1}, "mps", "mps"),
        ({"cuda": 2}, "cpu", "cpu"),
    ],
)
def test_the_device_follows_from_its_name_and_what_there_is(
    gpus: dict[str, int], counts: dict[str, int], name: str, device: str
) -> None:
    gpus.update(counts)
    assert str(choose_device(name)) == device


@pytest.mark.parametrize("name", ["mps", "xpu", "xpu:1", "cuda", "mps:0", "gpu"])
def test_a_gpu_that_is_not_there_is_refused(gpus: dict[str, int], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        choose_device(name)


@pytest.mark.usefixtures("torchrun")
def test_each_process_of_torchrun_takes_its_own_gpu(gpus: dict[str, int]) -> None:
    gpus.update(cuda=2)
    assert str(choose_device("auto")) == str(choose_device("cuda")) == "cuda:1"
    with pytest.raises(UsageError, match=r"would use one GPU.*--device cuda"):
        choose_device("cuda:1")


@pytest.mark.usefixtures("torchrun")
def test_processes_on_a_mac_share_no_gpu(gpus: dict[str, int]) -> None:
    gpus.update(mps=1)
    assert str(choose_device("auto")) == "cpu"
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("mps")


@pytest.mark.parametrize("variable", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_separate_processes_of_another_launcher_are_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with pytest.raises(UsageError, match=r"(srun|mpirun) started 4 .*torchrun"):
        refuse_other_launchers({variable: "4"})
    refuse_other_launchers({variable: "1", "SLURM_NTASKS": "4"})  # in a batch script
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    refuse_other_launchers({variable: "4"})


def test_a_command_that_srun_started_several_times_is_refused_before_it_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert main(["train", "digits", "--output", str(tmp_path / "run")]) == 2
    assert "torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "nccl", "backend"),
    [("cuda", True, "cpu:gloo,cuda:nccl"), ("cuda", False, "gloo"), ("cpu", True, "gloo")],
)
def test_processes_exchange_gradients_by_what_torch_has(
    monkeypatch: pytest.MonkeyPatch, kind: str, nccl: bool, backend: str
) -> None:
    """torch for Windows has no NCCL."""
    monkeypatch.setattr("torch.distributed.is_nccl_available", lambda: nccl)
    assert _backend(torch.device(kind)) == backend


def test_a_gpu_s_network_is_wrapped_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch is asked for: synchronised batch norms, the process's GPU, the size of buckets."""
    asked: list[tuple[object, ...]] = []

    class Wrapped(nn.Module):
        def __init__(self, network: nn.Module, devices: object, **options: object) -> None:
            super().__init__()
            self.module = network
            asked.append((devices, options))

        def forward(self, *values: torch.Tensor) -> object:
            return self.module(*values)

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr(parallel, "DistributedDataParallel", Wrapped)
    gpu = torch.device("cuda", 1)
    network = ResNet("residual", (1, 1))
    recipe = Recipe(sync_batch_norm=True, bucket_mb=7)
    parts = [*distribute(network, gpu, recipe).modules()]
    norms = [part for part in parts if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    distribute(ResNet("residual", (1, 1)), torch.device("cpu"), Recipe())
    assert asked == [([gpu], {"bucket_cap_mb": 7}), (None, {"bucket_cap_mb": None})]


def test_a_network_wrapped_for_several_processes_makes_no_warning() -> None:
    """torch warns of gradients whose strides are not those of their weights, of 1x1 above all."""
    network = ResNet("bottleneck", (1, 1), width=8)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.zeros(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    warns = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wrapped = distribute(network, torch.device("cpu"), Recipe())
            wrapped(images).sum().backward()
    finally:
        _leave_group()
        torch.set_warn_always(warns)


@pytest.mark.soak
def test_a_process_that_leaves_its_group_waits_for_no_thread_that_waits_for_it() -> None:
    """Without an order in which they are freed it hung after some 50 to 200 rounds."""
    rounds = """
import torch
from torch import distributed as dist, nn
from resnets.training.parallel import distribute, _leave_group
from resnets.training.recipe import Recipe

for _ in range(250):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    wrapped = distribute(nn.Linear(4, 4), torch.device("cpu"), Recipe())
    for _ in range(3):
        wrapped(torch.ones(2, 4)).sum().backward()
    _leave_group()
    del wrapped
"""
    subprocess.run([sys.executable, "-c", rounds], check=True, timeout=120)


@pytest.mark.parametrize(("capability", "computes"), [((7, 5), False), ((8, 0), True)])
def test_bf16_that_is_emulated_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], computes: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)  # on every card
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    assert computes_bf16(torch.device("cuda:0")) is computes


@pytest.mark.parametrize("unit", ["_is_avx512_bf16_supported", "_is_amx_tile_supported", None])
def test_a_cpu_computes_in_bf16_if_it_has_a_unit_for_it(
    monkeypatch: pytest.MonkeyPatch, unit: str | None
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda has=name == unit: has, raising=False)
    assert computes_bf16(torch.device("cpu")) is (unit is not None)


def test_a_clock_waits_for_the_device_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr("torch.accelerator.synchronize", waited.append)
    synchronise(torch.device("cpu"))
    synchronise(torch.device("cuda:1"))
    assert waited == [torch.device("cuda:1")]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
    ],
)
def test_full_memory_is_told_with_what_to_try(error: Exception) -> None:
    recipe = Recipe(batch_size=64, accumulate=2, training_size=224)
    with (
        pytest.raises(ContentError, match=r"mps.*64 images.*224.*--accumulate 4.*--batch-size 32"),
        memory_advice(torch.device("mps"), recipe),
    ):
        raise error


def test_other_errors_are_not_taken_for_full_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"), memory_advice(torch.device("cpu"), Recipe()):
        raise RuntimeError("shapes cannot be multiplied")


def test_a_training_that_fills_the_memory_ends_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Iterator[None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("resnets.training.trainer.Trainer.update", full)
    settings = {"network": "resnet14", "steps": 1, "image_size": 8, "batch_size": 32}
    with pytest.raises(ContentError, match=r"32 images.*8 pixels.*accumulate. 2"):
        resnets.train("digits", output=False, device="cpu", **settings)


def test_the_generator_of_the_gpu_that_computes_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    generators = {"cuda:0": torch.zeros(1), "cuda:1": torch.ones(1)}
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: generators[str(device)])
    monkeypatch.setattr(
        "torch.cuda.set_rng_state", lambda state, device: generators.update({str(device): state})
    )
    second = torch.device("cuda:1")
    state = random_state(second)
    generators["cuda:1"] = torch.zeros(1)
    set_random_state(state)  # goes on on the CPU, which has no such generator
    assert generators["cuda:1"] == 0
    set_random_state(state, second)
    assert generators["cuda:1"] == 1
    assert random_state()["cuda"] is None


def test_a_run_on_the_cpu_asks_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("CUDA was started")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_rng_state", started)
    monkeypatch.setattr("torch.cuda.get_rng_state_all", started)
    set_random_state(random_state())


def test_a_run_records_its_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    card = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30, major=9, minor=0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91002)
    monkeypatch.setattr("torch.version.cuda", "12.8")
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
        "GCC version:  gcc version 12.2.0\n"
    )
    monkeypatch.setattr(machine, "_DRIVER", driver)
    record = machine.machine(torch.device("cuda", 0))
    assert record["gpu"] == "NVIDIA H100"
    assert record["gpu_memory_gib"] == 80
    assert (record["driver"], record["cuda"], record["cudnn"]) == ("535.104.05", "12.8", 91002)
    assert machine.machine().keys() == record.keys() - {
        *("gpu", "gpu_memory_gib", "gpu_count", "compute_capability", "driver", "cuda", "cudnn")
    }


def test_a_recipe_chooses_the_kernels_of_a_gpu_while_it_trains() -> None:
    conv, gpu = torch.backends.cudnn.conv, torch.device("cuda", 0)
    before = torch.backends.cudnn.benchmark, conv.fp32_precision
    with computing(gpu, Recipe(tf32=False, deterministic=True)):
        assert (torch.backends.cudnn.benchmark, conv.fp32_precision) == (False, "ieee")
        assert torch.are_deterministic_algorithms_enabled()
    with computing(gpu, Recipe()):
        assert (torch.backends.cudnn.benchmark, conv.fp32_precision) == (True, "tf32")
        assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.benchmark, conv.fp32_precision) == before


def test_evaluation_on_a_gpu_is_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, first, second = torch.backends.cudnn.conv, torch.nn.Flatten(), torch.nn.Flatten()
    with evaluating(first):
        assert conv.fp32_precision == "tf32"  # on a CPU nothing is switched
    monkeypatch.setattr(evaluation_mode, "_is_on_gpu", lambda _: True)
    with evaluating(first):
        with evaluating(second):  # as of another thread
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "ieee"
    assert conv.fp32_precision == "tf32"


def test_auto_halves_the_batch_until_a_step_fits_and_the_run_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forward = ResNet.forward

    def with_little_memory(network: ResNet, images: torch.Tensor) -> torch.Tensor:
        if network.training and len(images) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(network, images)

    monkeypatch.setattr(ResNet, "forward", with_little_memory)
    monkeypatch.setattr("resnets.runs.batch_size._has_own_memory", lambda _: True)
    settings = {"network": "resnet14", "steps": 1, "image_size": 8, "report": False}
    output = tmp_path / "run"
    resnets.train("digits", output=output, device="cpu", batch_size="auto", **settings)
    recipe = Job.of_run(output).recipe
    assert recipe.batch_size == 32
    assert recipe.learning_rate == Recipe(batch_size=32).rate < Recipe().rate


def test_on_a_cpu_auto_is_the_usual_batch() -> None:
    asked = Recipe(batch_size="auto")
    assert asked.resolved(28, count=60_000) == Recipe().resolved(28, count=60_000)
    assert asked.resolved(28, count=300).batch == Recipe().resolved(28, count=300).batch == 16
