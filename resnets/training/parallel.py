"""Data-parallel training in several processes, started by torchrun.

With a single process, every function here is the identity, so that the code that calls them is the
same for one process and for many.
"""

import contextlib
import datetime
import os
import pickle
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from resnets.data.batches import ProcessRank
from resnets.errors import UsageError
from resnets.escaping import escaped
from resnets.format import plural
from resnets.networks.norms import FrozenBatchNorm2d
from resnets.training.heartbeat import Heartbeat
from resnets.training.meeting import meet
from resnets.training.recipe import Recipe

_T = TypeVar("_T")
_PATIENCE = 1800.0  # seconds: reading images takes processes unequally long
_OPENED = "data opened"  # the word of a process that has opened the data
_recent: deque[Any] = deque(maxlen=16)  # collectives, see `_wait`
_heartbeats: list[Heartbeat] = []  # of this process, while it is one of several
_wrapped: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()  # see `_leave_group`


@contextlib.contextmanager
def processes(device: torch.device, timeout: float = _PATIENCE) -> Iterator[ProcessRank]:
    """Join the process group of torchrun, if torchrun started this process.

    Args:
        device: where this process computes.
        timeout: seconds for which processes wait for each other.

    Yields:
        this process's rank and the number of processes; (0, 1) without torchrun.

    Raises:
        ChildProcessError: another process ended, or did not come in time; it says which.
    """
    if not dist.is_torchelastic_launched():
        yield ProcessRank(0, 1)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group = meet()
    dist.init_process_group(
        *(_backend(device), None, datetime.timedelta(seconds=timeout), group.size, group.rank),
        store=group.store,
    )
    try:
        on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
        beats = Heartbeat(group.store, group.rank, group.size, patience=timeout)
        with beats as heartbeat:
            _heartbeats.append(heartbeat)
            yield ProcessRank(group.rank, group.size, on_machine, group.launch)
    finally:
        _heartbeats.clear()
        _leave_group()


def _leave_group() -> None:
    """End this process's part in the process group, whose wrapped networks compute no more.

    Who frees a group last waits for its threads, and those may wait for Python's lock, to free the
    gradients that they sent. What exchanges gradients for `DistributedDataParallel` holds that lock
    while it is freed, so both would wait for ever: here it is freed before the group.
    """
    for wrapped in list(_wrapped):
        for name in ("logger", "reducer"):  # both hold the group, by way of C++
            wrapped.__dict__.pop(name, None)
    dist.destroy_process_group()


@contextlib.contextmanager
def first_of_machine_first(notify: Callable[[str], None]) -> Iterator[None]:
    """Let the first process of each machine go through the block before the machine's others.

    So these find in the machine's caches what it put there, such as the index of a folder and the
    digests of its images, instead of each listing and reading all of it at the same time. In the
    end all processes wait for the slowest machine: as long as it is at work, since reading millions
    of images may take longer than any other step. A process that does nothing for as long as
    processes wait for each other is taken to hang.

    Args:
        notify: takes a line for the user, in the first process of all.

    Raises:
        ChildProcessError: a process that is waited for gives no sign of life or does nothing; it
            names that one.
    """
    if not _heartbeats:
        yield
        return
    (heartbeat,) = _heartbeats
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place:
        heartbeat.wait_for(_OPENED, [heartbeat.rank - place], _say_on_machine(place))
    try:
        yield
    finally:  # also after an error, which the others then meet themselves
        heartbeat.tell(_OPENED)

    def say(who: str, time: str) -> None:
        notify(f"Waiting for {who} to open the data ({time})")

    heartbeat.wait_for(_OPENED, range(heartbeat.size), say)


def _say_on_machine(place: int) -> Callable[[str, str], None]:
    """What takes the lines of a process that waits for the first of its machine: one speaks."""

    def say(who: str, time: str) -> None:
        line = f"Waiting for {who}, the first of its machine to list and read the data ({time})"
        sys.stderr.write(f"{escaped(line)}\n")

    return say if place == 1 else lambda *_: None


def _backend(device: torch.device) -> str:
    """The libraries by which processes exchange tensors: NCCL or XCCL on GPUs where it exists.

    torch for Windows has no NCCL; gloo takes tensors of GPUs too, by way of the host.
    """
    if device.type == "cuda" and dist.is_nccl_available():
        return "cpu:gloo,cuda:nccl"
    return "cpu:gloo,xpu:xccl" if device.type == "xpu" else "gloo"


def distribute(network: nn.Module, device: torch.device, recipe: Recipe) -> nn.Module:
    """The network wrapped for training: its gradients are the mean over all processes.

    Batch norms normalise by the statistics of their process, and keep running statistics of their
    own: only where the network is scored or saved are those of the first process copied
    (`share_buffers`). With `sync_batch_norm` they normalise by the statistics of the whole batch.

    Args:
        network: on its device.
        device: where this process computes.
        recipe: says how gradients are exchanged: `gradient_exchange`, `bucket_mb`.

    Raises:
        UsageError: `sync_batch_norm` without GPUs, which torch does not support.
    """
    if recipe.sync_batch_norm and device.type not in ("cuda", "xpu"):
        raise UsageError("--sync-batch-norm needs GPUs: torch synchronises batch norms only there")
    if not dist.is_initialized():
        return network
    if recipe.sync_batch_norm:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    wrapped = DistributedDataParallel(
        network, None if device.type == "cpu" else [device], bucket_cap_mb=recipe.bucket_mb
    )
    # the argument of this name warns since torch 2.13, and what replaces it is not there before
    wrapped.broadcast_buffers = _must_share_buffers(network)
    if recipe.gradient_exchange == "bf16" and dist.get_world_size() > 1:
        _exchange_in_bf16(wrapped)
    _settle_buckets(wrapped, network)
    _wrapped.add(wrapped)
    return wrapped


class _ZeroTimes(torch.autograd.Function):
    """Zero times a weight, whose gradient has the weight's strides, as a layer's has.

    That of `0 * weight` differs from them in a 1x1 convolution in channels_last memory, of which
    DistributedDataParallel warns.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.zeros((), device=weight.device)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return torch.zeros_like(weight)


class _ZeroTimesWeights(nn.Module):
    """Makes a gradient of zeros for each weight of a network, for its last one first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]

    def forward(self) -> Tensor:
        zeros = [_ZeroTimes.apply(weight) for weight in self.weights]  # type: ignore[no-untyped-call]
        return torch.stack(zeros).sum()


def _settle_buckets(wrapped: DistributedDataParallel, network: nn.Module) -> None:
    """Have gradients exchanged in the same pieces from the first step on.

    torch sends those of the first step in one piece, and then in pieces that follow the order in
    which gradients came. Three and more processes add in an order that depends on the place in the
    piece, so the first step after a resume would be rounded otherwise than in the unbroken run.
    """
    wrapped.module = _ZeroTimesWeights(network)
    wrapped().backward()
    wrapped.module = network
    wrapped.zero_grad(set_to_none=True)


def _exchange_in_bf16(network: DistributedDataParallel) -> None:
    """Have the mean gradient computed in bf16, which halves the bytes that are sent."""
    # not there where torch was built without torch.distributed
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

    def in_bf16(group, bucket):  # type: ignore[no-untyped-def]
        return bf16_compress_hook(group, bucket)  # which is refused by its name without CUDA

    network.register_comm_hook(dist.group.WORLD, in_bf16)


def _must_share_buffers(network: nn.Module) -> bool:
    """Whether a training step may depend on buffers: on others than statistics of batch norms."""
    statistics = (_BatchNorm, FrozenBatchNorm2d)
    others = (part for part in network.modules() if not isinstance(part, statistics))
    return any(True for part in others for _ in part.buffers(recurse=False))


def exchange_of(recipe: Recipe, processes: int) -> dict[str, Any]:
    """How processes exchange gradients, for the log; empty for one process.

    >>> exchange_of(Recipe(gradient_exchange="bf16"), processes=2)
    {'gradient_exchange': 'bf16', 'bucket_mb': None}
    """
    names = ("gradient_exchange", "bucket_mb") if processes > 1 else ()
    return {name: getattr(recipe, name) for name in names}


_FEW = 16  # images whose statistics are noisy: the error grows below (arXiv:1803.08494, figure 1)


def batch_norm_notice(
    network: nn.Module, batch_size: int, processes: int, accumulate: int, synchronised: bool
) -> str | None:
    """A notice if batch norm sees less than the whole batch; None if it sees all of it.

    Args:
        network: in training mode, with frozen parts in evaluation mode.
        batch_size: images of a step, over all processes, of which one may have one more; of the
            smallest step.
        processes: number of processes that share a batch.
        accumulate: pieces in which each process computes its part.
        synchronised: whether statistics are computed over all processes.
    """
    norms = (part for part in network.modules() if isinstance(part, _BatchNorm))
    apart = 1 if synchronised else processes
    seen = -(-(batch_size // processes) // accumulate) * (processes // apart)
    if seen >= batch_size or not any(norm.training for norm in norms):
        return None
    several = plural(seen, "image")
    if apart > 1 and batch_size % processes:
        several = f"{seen} or {seen + 1} images"
    where = ["process"] * (apart > 1) + ["piece (--accumulate)"] * (accumulate > 1)
    ways = ["--sync-batch-norm (needs GPUs)"] * (apart > 1)
    ways += ["a smaller --accumulate"] * (accumulate > 1)
    ways += [f"a --batch-size that gives each at least {_FEW} images"] * (seen < _FEW)
    noisy = f" Statistics of fewer than {_FEW} images are noisy." if seen < _FEW else ""
    return (
        f"Batch norm computes its statistics over the {several} of each "
        f"{' and '.join(where)}, not over all {plural(batch_size, 'image')} of a step, so training "
        f"differs from that of one process with whole batches.{noisy} To change that: "
        f"{', or '.join(ways)}."
    )


def gradient_exchange(network: nn.Module, last: bool) -> contextlib.AbstractContextManager[Any]:
    """A context in which processes exchange gradients only if it holds a batch's last piece."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    _count_exchange()
    return contextlib.nullcontext()


def total(values: Tensor) -> Tensor:
    """The sum over all processes, in every process. In place."""
    if dist.is_initialized():
        _wait(dist.all_reduce(values, async_op=True))
    return values


def mean_over_processes(*values: Tensor, weight: int) -> None:
    """Set each to its mean over all processes, by weights that are not all 0. In place."""
    if dist.is_initialized():
        (whole,) = total(torch.tensor([weight])).tolist()
        for value in values:
            value *= weight / whole
            _wait(dist.all_reduce(value, async_op=True))


def any_process(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set in any process: the same result in all processes."""
    if not dist.is_initialized():
        return flags
    counts = total(torch.tensor(flags, dtype=torch.int))
    return tuple(count > 0 for count in counts.tolist())


def from_first(value: _T) -> _T:
    """The first process's value, in every process."""
    if not dist.is_initialized():
        return value
    content = _pickled(value) if dist.get_rank() == 0 else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(content)])
    _wait(dist.broadcast(size, src=0, async_op=True))
    content = content if dist.get_rank() == 0 else content.new_empty(int(size))
    _wait(dist.broadcast(content, src=0, async_op=True))
    return cast("_T", _unpickled(content))


@contextlib.contextmanager
def refused_by_all() -> Iterator[None]:
    """Refuse in every process what the first one refuses in the block.

    All processes enter it together. Else the others would wait for the first one in vain, and take
    it for lost.

    Raises:
        UsageError: as the first process raised it.
    """
    refusal = None
    try:
        yield
    except UsageError as error:
        refusal = error
    refusal = from_first(refusal)
    if refusal is not None:
        raise refusal


def from_all(value: _T) -> list[_T]:
    """Every process's value, by rank, in every process."""
    if not dist.is_initialized():
        return [value]
    content = _pickled(value)
    size = torch.tensor([len(content)])
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    _wait(dist.all_gather(sizes, size, async_op=True))
    padded = nn.functional.pad(content, (0, int(max(sizes)) - len(content)))
    contents = [torch.empty_like(padded) for _ in sizes]
    _wait(dist.all_gather(contents, padded, async_op=True))
    return [_unpickled(content[: int(size)]) for content, size in zip(contents, sizes, strict=True)]


def share_buffers(*networks: nn.Module) -> None:
    """Copy the first process's buffers, such as batch statistics, to every process."""
    if dist.is_initialized():
        for network in networks:
            for buffer in network.buffers():
                _wait(dist.broadcast(buffer, src=0, async_op=True))


def _wait(work: Any) -> None:
    """Wait for a collective, and keep it for a while.

    Otherwise a thread of gloo may be the last to hold it. To free its tensors that thread needs
    Python's lock; if Python (before 3.14) ends at that moment, it ends the thread, and C++ then the
    process ("terminate called without an active exception", SIGABRT), after all work was done.
    """
    _count_exchange()
    work.wait()
    _recent.append(work)


def _count_exchange() -> None:
    """Let the others know how far this process has come."""
    for heartbeat in _heartbeats:
        heartbeat.exchanges += 1


def _pickled(value: Any) -> Tensor:
    """A pickle as bytes: uint8 (N,)."""
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def _unpickled(content: Tensor) -> Any:
    """What a process of this run has pickled, from uint8 (N,)."""
    return pickle.loads(content.numpy().tobytes())  # noqa: S301
