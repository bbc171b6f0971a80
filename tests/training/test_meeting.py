"""Processes meet by a name of this attempt, whatever earlier ones have left in the store."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from resnets.training.meeting import _agree

PATIENCE = timedelta(seconds=20)


def names(store: HashStore, size: int) -> list[str]:
    """What each of some processes, here threads, takes."""
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: _agree(store, rank, size, PATIENCE), range(size)))


def test_every_attempt_has_a_name_of_its_own_that_all_take() -> None:
    store = HashStore()
    attempts = [set(names(store, size)) for size in (4, 4, 3, 1)]
    assert [len(attempt) for attempt in attempts] == [1, 1, 1, 1]
    assert len(set.union(*attempts)) == len(attempts)


def test_a_process_that_does_not_come_is_named() -> None:
    store = HashStore()
    names(store, 3)  # its word is still there, and so is that of its neighbour
    with pytest.raises(ChildProcessError, match="missing: 1, 2"):
        _agree(store, 0, 3, timedelta(seconds=0.1))
