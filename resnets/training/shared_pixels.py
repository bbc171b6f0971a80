"""An array of pixels that the processes of one machine fill together, each a part of it.

Each of them would else decode all images, with its share of the cores, and hold a copy.
"""

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from resnets.data.storage import Fill, filled
from resnets.errors import ContentError
from resnets.training.parallel import from_all

_T = TypeVar("_T")


def filled_together(
    shape: tuple[int, ...], fill: Fill, begin: Callable[[range], object] = lambda _: None
) -> NDArray[np.uint8]:
    """An array (N, ...) of uint8: every process calls this, and gets all that any has filled.

    Where the processes of a machine cannot share memory, as without Linux, each fills all of it.

    Args:
        shape: of the array, the same in every process.
        fill: fills some rows of an array of this shape.
        begin: called before with rows that will be filled soon.

    Raises:
        ContentError: what is to be read is damaged, for this process or another one.
    """
    if not dist.is_initialized():
        return filled(shape, fill, begin)
    place, count = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    first = dist.get_rank() - place  # of this machine
    with _offered(prod(shape)) if place == 0 and count > 1 else contextlib.nullcontext() as offer:
        memory = _mapped(from_all(offer)[first], prod(shape))
        together = all(from_all(memory is not None)[first : first + count])
    if memory is None or not together:
        return _each_alike(filled, shape, fill, begin)
    pixels: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(shape)
    rows = range(*(shape[0] * end // count for end in (place, place + 1)))
    return _each_alike(filled, shape, fill, begin, pixels, rows)


def _each_alike(function: Callable[..., _T], *arguments: Any) -> _T:
    """The result of a function that every process calls; where one fails, all of them fail.

    Raises:
        ContentError: what this process's call raised, or else another one's.
    """
    result, failure = None, None
    try:
        result = function(*arguments)
    except ContentError as error:
        failure = error
    reasons = from_all(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for reason in filter(None, reasons):
        raise ContentError(reason)
    return result  # type: ignore[return-value]


@contextlib.contextmanager
def _offered(size: int) -> Iterator[str | None]:
    """A name by which other processes open new memory of this one, while the block runs.

    It has no name in a file system, so that none is left where a process is killed. None where the
    system has no such memory.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        yield None
        return
    handle = os.memfd_create("resnets-pixels")
    try:
        os.truncate(handle, size)  # memory is taken as it is filled
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _mapped(name: str | None, size: int) -> mmap.mmap | None:
    """Memory that a process of this machine offers; None if there is none to be had."""
    if name is None:
        return None
    try:
        handle = os.open(name, os.O_RDWR)
    except OSError:  # of another user, or in another container
        return None
    try:
        return mmap.mmap(handle, size)
    except (OSError, ValueError):
        return None
    finally:
        os.close(handle)
