"""Small ranges without the event loop, of servers that answer as they should and others."""

import math
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resnets.data.remote import Place, RemoteFolder, direct, read_ahead
from resnets.data.remote.direct import DirectReader
from resnets.data.remote.failures import RemoteError
from tests.data.remote.certificates import certificate_for
from tests.data.remote.conftest import CONTENT, QUICK, bytes_at, place
from tests.range_server import RangeServer, serving

Pairs = list[tuple[socket.socket, socket.socket]]
FILES = [f"{letter}.tar" for letter in "abcdefgh"]


@pytest.fixture
def files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Several files; only places that touch each other are fetched together."""
    monkeypatch.setattr(read_ahead, "_GAP", 0)
    for name in FILES:
        (folder / name).write_bytes(CONTENT)
    return folder


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    """The two ends of some connections."""
    ends = [socket.socketpair() for _ in range(3)]
    for pair in ends:
        for end in pair:
            end.settimeout(5)
    yield ends
    for pair in ends:
        for end in pair:
            end.close()


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


@pytest.mark.parametrize(
    ("head", "works"),
    [
        ("HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 5-13/20", True),
        ("HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 6-14/20", False),
        ("HTTP/1.1 206 OK\r\nContent-Length: 9", False),
        (f"HTTP/1.1 206 OK\r\nContent-Length: {'9' * 5000}", False),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 9", False),
    ],
)
def test_an_answer_must_be_of_the_range_that_was_asked_for(
    pairs: Pairs, head: str, works: bool
) -> None:
    """One without the file says nothing of others."""
    (ours, servers), *_ = pairs
    reader, where = DirectReader("http://a", 5.0, 0.0), Place("a.tar", 5, 9)
    reader.free.append(direct._Connection(ours))
    assert reader.expect([where]) == []
    servers.sendall(f"{head}\r\n\r\n123456789".encode())
    assert reader.take(where) == (b"123456789" if works else None)
    assert reader.ended == (not works and "404" not in head)


def test_connections_that_were_closed_while_idle_are_not_used(pairs: Pairs) -> None:
    reader, where = DirectReader("http://a", 5.0, 0.0, most=2), Place("a.tar", 5, 9)
    reader.full_until = math.inf
    reader.free.extend(direct._Connection(ours, used=True) for ours, _ in pairs)
    reader.free[0].since -= direct._IDLE + 1
    pairs[2][1].shutdown(socket.SHUT_WR)  # so that sending to it fails only the second time
    assert reader.expect([where]) == []
    assert pairs[1][1].recv(10_000).endswith(b"Range: bytes=5-13\r\n\r\n")
    assert not pairs[0][1].recv(1)
    assert not reader.free


def test_a_silent_server_is_waited_for_once(files: Path, pairs: Pairs) -> None:
    with serving(files) as server:
        _, reader = started(server)
        order = places(3)
        for each, (ours, _) in zip(order, pairs, strict=True):
            ours.settimeout(0.1)
            reader.asked[each] = direct._Connection(ours, used=True), 1
        assert [reader.take(each) for each in order] == [None, None, None]
        assert not reader.asked
        assert reader.resting_until > time.monotonic()
        assert all(not theirs.recv(1) for _, theirs in pairs)


def test_a_place_that_is_in_the_cache_meanwhile_keeps_no_connection(files: Path) -> None:
    with serving(files) as server:
        there = RemoteFolder(server.address, cache_bytes=1 << 20, patience=QUICK)
        there.read(place(299_000, 10))
        reader = there._reader.direct
        assert reader is not None
        reader._open_more(4)
        until(lambda: not reader.opening)
        here, neighbours = place(1000, 900), [place(50_000, 900), place(50_900, 900)]
        there.expect([here, *neighbours])
        until(lambda: len(there._reader.expected) == 2)
        assert [*reader.asked] == [here]
        for each in (here, *neighbours):
            there._cache.put(each, bytes_at(each))  # as another process does
            assert there.read(each) == bytes_at(each)
        until(lambda: not there._reader.expected)
        assert not reader.asked


def test_connections_that_could_not_be_made_are_tried_again_later(files: Path) -> None:
    with serving(files) as server:
        _, reader = started(server)
        reader.most, reader.full_until = reader.connections, time.monotonic() + 60
        reader._open_more(60)
        assert not reader.opening
        reader.full_until = time.monotonic()
        reader._open_more(60)
        until(lambda: not reader.opening)
        assert reader.connections > 8


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


@pytest.mark.parametrize("seconds", [0.3, None])
def test_answers_that_nobody_reads_do_not_keep_their_connections(
    files: Path, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """At the latest when places that were expected long after them are read."""
    if seconds is not None:
        monkeypatch.setattr(direct, "_UNREAD", seconds)
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
