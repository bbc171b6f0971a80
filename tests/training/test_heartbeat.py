"""A process that is missing is named by those that wait for it."""

from contextlib import ExitStack

import pytest
from torch.distributed import HashStore

from resnets.training.heartbeat import Heartbeat

EVERY = 0.05


@pytest.fixture
def four() -> list[Heartbeat]:
    """Four processes that have begun two exchanges, in one."""
    store = HashStore()
    processes = [Heartbeat(store, rank, 4, EVERY) for rank in range(4)]
    for process in processes:
        process.exchanges = 2
    return processes


def test_who_gives_no_sign_of_life_is_told_from_who_hangs(four: list[Heartbeat]) -> None:
    four[0].exchanges = four[1].exchanges = 3  # these wait for the others
    four[2].give()  # its last sign
    with ExitStack() as stack:
        for process in (four[0], four[1], four[3]):
            stack.enter_context(process)
        message = four[0].missing()
    assert "process 2 on" in message.split(";")[0]
    assert "no sign of life" in message.split(";")[0]
    assert "process 3 on" in message.split(";")[1]
    assert "waited" in message.split(";")[1]
    assert "process 1" not in message


def test_only_failed_exchanges_are_told_so(four: list[Heartbeat]) -> None:
    with pytest.raises(ChildProcessError, match="process 1 never came"), four[0]:
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), four[1]:
        raise RuntimeError("shapes do not fit")
    assert not four[1].thread.is_alive()
