"""How the processes of a run meet: in a store of keys, by a name that no earlier attempt has used.

torchrun (of torch 2.13) keeps the store of its first machine when it starts the processes again,
with the addresses of the dead ones, by which the new ones would try to reach each other.
"""

import datetime
import os
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from resnets.format import duration

_NO_ID = "none"  # torchrun's default, which is no name for one run
_PATIENCE = datetime.timedelta(minutes=5)  # for the imports of the slowest machine
_ALONE = (
    "the processes of this run have not met within {time}{missing}. Where the first "
    "of several machines was lost, torchrun cannot start the others again, unless it was started "
    "with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, as `resnets launch` does. A "
    "new torchrun goes on with `resnets train --resume RUN`"
)


@dataclass(frozen=True)
class _Meeting:
    """What the processes of an attempt share.

    Attributes:
        store: with keys of this attempt only.
        rank: of this process.
        size: how many processes there are.
        launch: the id of the torchrun that started them, the same for every attempt; None if it has
            none of its own.
    """

    store: Store
    rank: int
    size: int
    launch: str | None


def meet(patience: datetime.timedelta = _PATIENCE) -> _Meeting:
    """Meet the other processes of this attempt.

    Raises:
        ChildProcessError: they have not met.
    """
    try:
        store, rank, size = next(rendezvous("env://", timeout=patience))
        name = _agree(store, rank, size, patience)
        return _Meeting(PrefixStore(name, store), rank, size, _launch_id(store, rank))
    except dist.DistError as error:
        raise ChildProcessError(_not_met(patience)) from error


def _launch_id(store: Store, rank: int) -> str | None:
    """The id given to torchrun; else one that is kept in its store, if that outlives attempts."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", _NO_ID)
    if run_id != _NO_ID:
        return run_id
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    key = "resnets/launch"
    if rank == 0 and not store.check([key]):
        store.set(key, uuid.uuid4().hex)
    kept: str = store.get(key).decode()
    return kept


def _agree(store: Store, rank: int, size: int, patience: datetime.timedelta) -> str:
    """A name that the first process has chosen, and that every other one has taken.

    Each process leaves a word of its own, and the first one answers it: so an answer is never one
    of an earlier attempt.

    Raises:
        ChildProcessError: processes have not come; it names them.
        DistError: the first process has not answered.
    """
    if rank:
        mine = uuid.uuid4().hex
        store.set(f"resnets/process {rank}", mine)
        answer: str = store.get(f"resnets/answer to {mine}").decode()
        store.set(f"{answer}/{rank}", "taken")
        return answer
    name, missing = f"resnets/{uuid.uuid4().hex}", set(range(1, size))
    answered: set[str] = set()
    deadline = time.monotonic() + patience.total_seconds()
    while missing:
        for other in missing:
            key = f"resnets/process {other}"
            word = store.get(key).decode() if store.check([key]) else ""
            if word and word not in answered:
                store.set(f"resnets/answer to {word}", name)
                answered.add(word)
        missing = {other for other in missing if not store.check([f"{name}/{other}"])}
        if missing and time.monotonic() > deadline:
            raise ChildProcessError(_not_met(patience, missing))
        time.sleep(0.02)
    return name


def _not_met(patience: datetime.timedelta, missing: Iterable[int] = ()) -> str:
    """What to say where they have not met."""
    ranks = ", ".join(map(str, sorted(missing)))
    names = f" (missing: {ranks})" if ranks else ""
    return _ALONE.format(time=duration(patience.total_seconds()), missing=names)
