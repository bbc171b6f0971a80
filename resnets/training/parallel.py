"""What torchrun changes: several processes, each with its part of every batch.

Alone, every function here is the identity, so that the code that calls them reads the same for one
process and for many.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from resnets.data.batches import Place
from resnets.errors import UsageError

_T = TypeVar("_T")


def choose_device(name: str) -> torch.device:
    """The device that a person asked for: this process's own GPU, or the CPU.

    Args:
        name: `auto` (a GPU where there is one), `cpu`, `cuda`, or one GPU such as `cuda:1`.

    Raises:
        UsageError: if there is no such device here.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name != "auto" and not re.fullmatch(r"cuda(:\d+)?", name):
        raise UsageError(f"--device {name}: auto, cpu, cuda or one GPU such as cuda:1")
    if not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch {torch.__version__} finds no GPU; use cpu")
    index = int(name.split(":")[1]) if ":" in name else int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        raise UsageError(f"GPU {index} was asked for; there are {torch.cuda.device_count()}")
    return torch.device("cuda", index)


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[Place]:
    """Join the other processes that torchrun started, if it started this one.

    Yields:
        this process's place among them; the only one where torchrun is not in play.
    """
    if not dist.is_torchelastic_launched():
        yield Place(0, 1)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Place(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def distribute(network: nn.Module, device: torch.device, sync_batchnorm: bool) -> nn.Module:
    """The network as the training loop calls it: its gradients are the mean over all processes.

    Batch norms keep the statistics of the first process. With `sync_batchnorm` they normalise by
    those of the whole batch over all processes instead.

    Raises:
        UsageError: for `sync_batchnorm` without GPUs, on which alone torch can do it.
    """
    if sync_batchnorm and device.type != "cuda":
        raise UsageError("--sync-batch-norm needs GPUs: torch synchronises batch norms there only")
    if not dist.is_initialized():
        return network
    if sync_batchnorm:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(network, [device] if device.type == "cuda" else None)


_FEW = 16  # images whose statistics are noisy: the error grows below (arXiv:1803.08494, figure 1)


def batch_norm_notice(
    network: nn.Module, batch_size: int, processes: int, accumulate: int, synchronised: bool
) -> str | None:
    """What a person should know where batch norm sees less than the whole batch; None if it does.

    Args:
        network: in the mode in which it trains.
        batch_size: images of a weight update, over all processes.
        processes: how many share it.
        accumulate: pieces in which each computes its part.
        synchronised: whether statistics are taken over all processes.
    """
    norms = (part for part in network.modules() if isinstance(part, _BatchNorm))
    apart = 1 if synchronised else processes
    seen = -(-batch_size // processes // accumulate) * (processes // apart)
    if seen >= batch_size or not any(norm.training for norm in norms):
        return None
    where = ["process"] * (apart > 1) + ["piece (--accumulate)"] * (accumulate > 1)
    ways = ["--sync-batch-norm (needs GPUs)"] * (apart > 1)
    ways += ["a smaller --accumulate"] * (accumulate > 1)
    ways += [f"a --batch-size that gives each at least {_FEW} images"] * (seen < _FEW)
    noisy = f" Statistics of fewer than {_FEW} images are noisy." if seen < _FEW else ""
    return (
        f"Batch norm takes its statistics over the {seen} images of each {' and '.join(where)}, "
        f"not over all {batch_size} images of a weight update, so this is not the same training as "
        f"one process with whole batches.{noisy} To change that: {', or '.join(ways)}."
    )


def gradients_once(network: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Exchange gradients after the last part of a batch only."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return contextlib.nullcontext()


def total(values: Tensor) -> Tensor:
    """The sum over all processes, which each of them gets. In place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def any_process(*wishes: bool) -> tuple[bool, ...]:
    """Of each wish, whether any process has it; all get the same answer."""
    if not dist.is_initialized():
        return wishes
    counts = torch.tensor(wishes, dtype=torch.int)
    dist.all_reduce(counts)
    return tuple(count > 0 for count in counts.tolist())


def from_first(value: _T) -> _T:
    """The first process's value, in every process."""
    if not dist.is_initialized():
        return value
    values: list[_T] = [value]
    dist.broadcast_object_list(values)
    return values[0]


def from_all(value: _T) -> list[_T]:
    """Every process's value, by rank, in every process."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def share_buffers(*networks: nn.Module) -> None:
    """Give every process the batch statistics of the first, which are those that are saved."""
    if dist.is_initialized():
        for network in networks:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)
