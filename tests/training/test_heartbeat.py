"""A process that is missing is named by those that wait for it."""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.distributed import HashStore

from resnets.data.batches import ProcessRank
from resnets.runs import prepare
from resnets.runs.job import Job
from resnets.training import heartbeat, parallel
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


def test_who_notices_a_loss_and_is_ended_for_it_is_not_the_one_that_is_lost(
    four: list[Heartbeat],
) -> None:
    """torchrun ends all processes of the machine within the seconds that a look takes."""
    for process in four:
        process.give()  # the last sign of processes 1, 2 and 3
    with pytest.raises(ChildProcessError), four[1]:
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with four[0], four[3]:
        message = four[0].missing()
    assert "process 2 on" in message
    assert "process 1" not in message


def test_only_failed_exchanges_are_told_so(four: list[Heartbeat]) -> None:
    with pytest.raises(ChildProcessError, match="process 1 never came"), four[0]:
        raise RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), four[1]:
        raise RuntimeError("shapes do not fit")
    assert not four[1].thread.is_alive()


@pytest.fixture
def worked() -> list[float]:
    """The seconds for which a process that gives a sign has computed."""
    return [0.0]


@pytest.fixture
def on_sleep(monkeypatch: pytest.MonkeyPatch, worked: list[float]) -> list[Callable[[], object]]:
    """What happens in each pause of who waits: each takes a second, by a clock that only it moves.

    What the list holds last happens in every further pause.
    """
    events: list[Callable[[], object]] = []
    clock = [0.0]

    def sleep(_: float) -> None:
        clock[0] += 1
        (events.pop(0) if len(events) > 1 else events[0])()

    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    monkeypatch.setattr(heartbeat, "_worked", lambda _: worked[0])
    return events


@pytest.fixture
def two_machines(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this process one of four, on two machines."""
    store = HashStore()
    processes = [Heartbeat(store, rank, 4, patience=1800) for rank in range(4)]
    for process in processes:
        process.give()

    def be(rank: int) -> None:
        monkeypatch.setattr(parallel, "_heartbeats", [processes[rank]])
        monkeypatch.setenv("LOCAL_RANK", str(rank % 2))

    return be


def opened(by: Callable[[int], None], *ranks: int) -> Callable[[], None]:
    def tell() -> None:
        for rank in ranks:
            by(rank)
            parallel._heartbeats[0].tell(parallel._OPENED)

    return tell


def test_the_second_process_of_a_machine_opens_the_data_after_the_first(
    two_machines: Callable[[int], None],
    on_sleep: list[Callable[[], object]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    events: list[str] = []
    on_sleep += [lambda: None] * 6
    on_sleep += [lambda: events.append("waits"), opened(two_machines, 2)]
    on_sleep += [lambda: events.append("opens"), opened(two_machines, 0, 1), lambda: None]
    two_machines(3)
    with parallel.first_of_machine_first(events.append):
        events.append("opens too")
    assert events[:2] == ["waits", "opens too"]
    assert "process 2 on" in capsys.readouterr().err


def test_the_first_process_waits_for_other_machines_and_says_so(
    two_machines: Callable[[int], None], on_sleep: list[Callable[[], object]]
) -> None:
    lines: list[str] = []

    def live_and_end() -> None:
        two_machines(3)
        parallel._heartbeats[0].give()
        if len(lines) > 9:
            parallel._heartbeats[0].tell(parallel._OPENED)

    on_sleep += [opened(two_machines, 1, 2), live_and_end]
    two_machines(0)
    with parallel.first_of_machine_first(lines.append):
        assert not lines
    assert all("process 3 on" in line for line in lines)
    assert "min" in lines[-1]


def test_who_dies_while_the_others_wait_for_it_is_named(
    two_machines: Callable[[int], None], on_sleep: list[Callable[[], object]]
) -> None:
    on_sleep.append(lambda: None)
    two_machines(1)
    with (
        pytest.raises(ChildProcessError, match="process 0 on"),
        parallel.first_of_machine_first(print),
    ):
        pytest.fail("the first has not opened the data")


def test_a_run_opens_its_data_after_the_first_process_of_its_machine(
    two_machines: Callable[[int], None],
    on_sleep: list[Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened_too_early(*_: object, **__: object) -> None:
        pytest.fail("the first has not opened the data")

    on_sleep.append(lambda: None)
    monkeypatch.setattr(prepare, "_open_data", opened_too_early)
    two_machines(1)
    job, process = Job(data="digits"), ProcessRank(1, 4)
    with pytest.raises(ChildProcessError, match="process 0 on"):
        prepare.prepare(job, None, torch.device("cpu"), process, print)


@pytest.mark.parametrize(("share", "hangs"), [(0.0, True), (0.000004, True), (0.0001, False)])
def test_who_lives_and_does_nothing_is_named(
    two_machines: Callable[[int], None],
    on_sleep: list[Callable[[], object]],
    worked: list[float],
    share: float,
    hangs: bool,
) -> None:
    """Process 2 opens the data and uses a share of a processor; process 3 waits for it."""
    lines: list[str] = []

    def live() -> None:
        worked[0] += share
        for rank in (2, 3):
            two_machines(rank)
            own = parallel._heartbeats[0]
            own.waited += rank == 3
            own.give()
        if len(lines) > 40:
            opened(two_machines, 2, 3)()

    on_sleep += [opened(two_machines, 1), live]
    two_machines(0)
    error = pytest.raises(ChildProcessError, match=r"process 2 on [^ ]+ lives, but .*30 min")
    with error if hangs else nullcontext(), parallel.first_of_machine_first(lines.append):
        pass
    assert hangs or len(lines) > 40


def test_who_is_killed_is_not_said_to_live_however_short_the_patience(
    on_sleep: list[Callable[[], object]],
) -> None:
    store = HashStore()
    one, two = (Heartbeat(store, rank, 2, patience=10) for rank in range(2))
    two.give()
    on_sleep.append(lambda: None)
    with pytest.raises(ChildProcessError, match="no sign of life"):
        one.wait_for("ready", [1], lambda *_: None)


def test_an_error_of_the_first_process_lets_the_others_go_on(
    two_machines: Callable[[int], None], on_sleep: list[Callable[[], object]]
) -> None:
    two_machines(0)
    with pytest.raises(ValueError, match="no images"), parallel.first_of_machine_first(print):
        raise ValueError("no images")
    two_machines(1)
    on_sleep.append(opened(two_machines, 2, 3))
    with parallel.first_of_machine_first(print):
        pass
