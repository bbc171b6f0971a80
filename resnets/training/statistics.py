"""The running statistics of batch norms, estimated afresh from training images.

In training a batch norm (arXiv:1502.03167) normalises by the statistics of its batch, and keeps a
running average of them for evaluation. While the weights change fast, that average describes
networks of many steps ago. SWA (arXiv:1803.05407, section 3.2) estimates the statistics of averaged
weights by a pass over training images; the same pass is right wherever the average lags behind.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnets.training.parallel import mean_over_processes

_CONVERGED = 100.0  # steps times momentum from which on the running average is used as it is


def lags(network: nn.Module, steps: int) -> bool:
    """Whether running averages may describe earlier weights: after so few steps of training.

    An average with momentum m remembers about 1 / m steps. A run of a hundred times that length
    changes its weights little within such a span, least of all at its end.
    """
    return any(
        norm.momentum is None or steps * norm.momentum < _CONVERGED
        for norm in _adapting_norms(network)
    )


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, images: Iterable[Tensor], *, compiled: bool = False
) -> None:
    """Set the running statistics to the mean over batches; all else is as in evaluation.

    The result is a function of the weights and the images: earlier statistics do not matter. Norms
    of frozen parts keep theirs. The network is in evaluation mode afterwards. Where an exception,
    such as KeyboardInterrupt, ends it, all norms keep their earlier statistics.

    Args:
        network: its weights stay as they are.
        images: batches (B, C, S, S) of at least two images. Of several processes each may have
            another number of them; the mean over all batches is the same in all processes.
        compiled: whether the forward is compiled; the plain one is used then, since evaluation
            would compile it again.
    """
    norms = _adapting_norms(network)
    network.eval()
    if not norms:
        return
    forward = network.forward if compiled else network
    number = 0
    with _cumulative(norms):
        for batch in images:
            forward(batch)
            number += 1
    statistics = [norm.get_buffer(f"running_{name}") for norm in norms for name in ("mean", "var")]
    mean_over_processes(*statistics, weight=number)


def _adapting_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms whose running statistics training changes; leaves the network's mode alone.

    What a network keeps in evaluation mode in spite of `train()`, such as its frozen parts, has
    none.
    """
    mode = network.training
    network.train()
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
    ]
    network.train(mode)
    return norms


@contextlib.contextmanager
def _cumulative(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """A context in which norms begin anew and keep the plain mean over what they see.

    An exception takes them back to their earlier statistics: those of half a pass are of no use.
    """
    before = [(norm.momentum, norm.get_buffer("num_batches_tracked").clone()) for norm in norms]
    statistics = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
        if isinstance(norm, nn.SyncBatchNorm):  # its own waits for a batch of every process
            norm.forward = partial(_BatchNorm.forward, norm)  # type: ignore[method-assign]
    try:
        yield
    except BaseException:
        for norm, earlier in zip(norms, statistics, strict=True):
            for name, value in earlier.items():
                norm.get_buffer(name).copy_(value)
        raise
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            vars(norm).pop("forward", None)
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(tracked)
            norm.eval()
