"""Small ranges without the event loop, of servers that answer as they should and others."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resnets.data.remote import Place, RemoteFolder, direct, read_ahead
from resnets.data.remote.direct import DirectReader
from resnets.data.remote.failures import RemoteError
from tests.data.remote.certificates import certificate_for
from tests.data.remote.conftest import CONTENT, QUICK, bytes_at, place
from tests.range_server import RangeServer, serving

FILES = [f"{letter}.tar" for letter in "abcdefgh"]


@pytest.fixture
def files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Several files; only places that touch each other are fetched together."""
    monkeypatch.setattr(read_ahead, "_GAP", 0)
    for name in FILES:
        (folder / name).write_bytes(CONTENT)
    return folder


def places(count: int, length: int = 900) -> list[Place]:
    """Places far from each other, in random order."""
    every = [
        place(start, length, name) for name in FILES for start in range(0, 290_000, 1000 + length)
    ]
    return random.Random(0).sample(every, count)


def started(server: RangeServer) -> tuple[RemoteFolder, DirectReader]:
    """A folder of which one range was read, so that others are read directly."""
    there = RemoteFolder(server.address, patience=QUICK, at_first=QUICK)
    there.read(place(299_000, 10))
    reader = there._reader.direct
    assert reader is not None
    reader._open_more(8)
    until(lambda: not reader.opening)
    return there, reader


def read_in_order(there: RemoteFolder, order: list[Place], ahead: int = 40) -> int:
    """Read places as a worker does, and compare their bytes; returns how many came directly."""
    reader, directly = there._reader.direct, 0
    assert reader is not None
    there.expect(order[:ahead])
    for number, each in enumerate(order):
        if number % 8 == 0:
            there.expect(order[number + ahead : number + ahead + 8])
        directly += each in reader.asked
        assert there.read(each) == bytes_at(each)
    return directly


def directly(server: RangeServer) -> int:
    """The requests that a server had without the event loop."""
    return sum("user-agent: resnets" in head.lower() for head in server.heads)


def test_most_images_are_read_directly_each_by_one_request(files: Path) -> None:
    order = places(300)
    with serving(files) as server:
        there, reader = started(server)
        assert read_in_order(there, order) > 200
        until(lambda: not reader.asked and not there._reader.expected)
        wanted = sorted((f"/{each.file}", each.offset, each.stop) for each in order)
        assert sorted(server.asked[1:]) == wanted
        assert directly(server) > 200
        assert reader.connections <= direct._MOST


def test_the_first_range_large_ones_and_neighbours_are_left_to_the_event_loop(files: Path) -> None:
    with serving(files) as server:
        there, _ = started(server)
        for few in (
            [place(0, 200_000)],
            [place(start, 900) for start in range(0, 45_000, 900)],
        ):
            there.expect(few)
            assert [there.read(each) for each in few] == [bytes_at(each) for each in few]
        assert directly(server) == 0


@pytest.mark.parametrize("fault", ["503", "cut", "short", "wrong"])
def test_what_a_server_does_wrong_is_mended_by_another_request(files: Path, fault: str) -> None:
    with serving(files) as server:
        there, _ = started(server)
        order = places(120)
        server.faults = ["", "", "", fault, fault]
        read_in_order(there, order)
        assert not server.faults


def test_a_busy_server_has_no_such_requests_for_some_time(files: Path) -> None:
    with serving(files) as server:
        there, reader = started(server)
        server.faults = ["503"]
        read_in_order(there, places(20))
        assert 0 < reader.resting_until - time.monotonic() <= direct._REST
        time.sleep(0.2)  # for what was sent before
        before = directly(server)
        read_in_order(there, places(30, 800))
        assert directly(server) == before
        reader.resting_until = time.monotonic()  # as if it had passed
        assert read_in_order(there, places(300, 700)) > 100


def test_a_server_that_ceases_to_answer_ranges_has_no_more_such_requests(files: Path) -> None:
    order = places(40)
    with serving(files) as server:
        there, reader = started(server)
        server.ranges = False
        there.expect(order)
        for each in order:
            with pytest.raises(RemoteError, match="does not answer requests for a range"):
                there.read(each)
        server.ranges = True
        time.sleep(0.2)  # for what was sent before
        asked = directly(server)
        assert read_in_order(there, places(40, 800)) == 0
        assert directly(server) == asked > 0
        assert reader.ended


def test_connections_that_a_server_closes_are_replaced(files: Path) -> None:
    with serving(files) as server:
        server.most = 3
        there, _ = started(server)
        read_in_order(there, places(300))
        assert directly(server) > 100


def test_several_threads_read(files: Path) -> None:
    order = places(300)
    with serving(files) as server, ThreadPoolExecutor(4) as threads:
        there, reader = started(server)
        there.expect(order[:200])
        there.expect(order[200:])
        assert list(threads.map(there.read, order)) == [bytes_at(each) for each in order]
        until(lambda: not reader.asked)
        assert len({*server.asked[1:]}) == 300


def test_answers_that_nobody_reads_do_not_keep_their_connections(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_UNREAD", 0.3)
    with serving(files) as server:
        there, reader = started(server)
        for number in range(0, 300, 50):
            there.expect(places(300)[number : number + 50])
            until(lambda: not reader.opening)
        assert len(reader.asked) == direct._MOST
        time.sleep(0.4)
        assert read_in_order(there, places(300, 800)) > 100


def read_by_https(address: str) -> None:
    """For a process of its own, since libraries read its certificates when it begins."""
    there = RemoteFolder(address, patience=QUICK, at_first=QUICK)
    there.read(place(299_000, 10))
    order = [place(70_000 * number, 900, name) for name in FILES for number in range(4)]
    for few in (order[:8], order[8:]):
        there.expect(few)
        assert [there.read(each) for each in few] == [bytes_at(each) for each in few]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_certificate_of_ones_own_is_trusted_if_the_environment_says_so(
    files: Path, tmp_path: Path, trusted: bool
) -> None:
    certificate = certificate_for(tmp_path / "server.pem")
    code = "import sys; from tests.data.remote.test_direct import *; read_by_https(sys.argv[1])"
    trust = {"SSL_CERT_FILE": str(certificate)} if trusted else {}
    with serving(files, certificate=certificate) as server:
        ended = subprocess.run(
            [sys.executable, "-c", code, server.address],
            env=os.environ | trust,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode == 0) == trusted, ended.stderr
        assert (directly(server) > 0) == trusted
        if not trusted:
            assert "its certificate is not trusted (self-signed certificate)" in ended.stderr
            assert "SSL_CERT_FILE" in ended.stderr
            assert not server.asked


def until(reached: Callable[[], bool]) -> None:
    """Wait for what a background thread does."""
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)
