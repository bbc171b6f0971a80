"""Small ranges without the event loop, of servers that answer as they should and others."""

import math
import os
import random
import socket
import subprocess
import sys
import threading
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


def right(content: str = "123456789", **others: str) -> bytes:
    """An answer for the place of these bytes; headers in capitals, as they may be."""
    headers = {"CONTENT_LENGTH": "9", "CONTENT_RANGE": "bytes 5-13/20"} | others
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
    return "\r\n".join(["HTTP/1.1 206 OK", *lines, "", content]).encode()


def failing(status: str, version: str = "HTTP/1.1") -> bytes:
    """An answer that says nothing but its status."""
    return f"{version} {status}\r\nContent-Length: 9\r\n\r\n123456789".encode()


@pytest.mark.parametrize(
    ("answer", "follows"),
    [
        (right(), "next"),
        (right(Content_Encoding="identity"), "next"),
        (right(Connection="keep-alive"), "next"),
        (right(Connection="Close"), "last"),
        (right(CONTENT_LENGTH=""), "never"),
        (right(CONTENT_LENGTH="8"), "never"),
        (right(CONTENT_LENGTH="9" * 5000), "never"),
        (right(CONTENT_RANGE=""), "never"),
        (right(CONTENT_RANGE="bytes 6-13/20"), "never"),
        (right(CONTENT_RANGE="bytes 5-14/20"), "never"),
        (right(CONTENT_RANGE=f"bytes 5-{'9' * 5000}/20"), "never"),
        (right(Content_Encoding="gzip"), "never"),
        (right(Transfer_Encoding="chunked"), "never"),
        (right("123456789 and more"), "never"),
        (right(X=" " * 20_000), "never"),
        (right().replace(b"1.1", b"1.0"), "never"),
        (failing("200 OK"), "never"),
        (failing("403 Forbidden"), "never"),
        (failing("what?"), "never"),
        (failing("404 Not Found"), "others"),
        (failing("410 Gone"), "others"),
        (failing("416 Range Not Satisfiable"), "others"),
        (failing("100 Continue"), "rest"),
        (failing("408 Request Timeout"), "rest"),
        (failing("429 Too Many Requests"), "rest"),
        (failing("500 Internal Server Error"), "rest"),
    ],
)
def test_an_answer_must_be_of_the_range_that_was_asked_for(
    pairs: Pairs, answer: bytes, follows: str
) -> None:
    """Others end it for ever or for now, but where just that file is not there."""
    (ours, servers), (spare, _), _ = pairs
    reader, where = DirectReader("http://a", 5.0, 0.0), Place("a.tar", 5, 9)
    reader.free.append(direct._Connection(ours))
    assert reader.expect([where]) == []
    reader.free.append(direct._Connection(spare))
    servers.sendall(answer)
    assert reader.take(where) == (b"123456789" if follows in ("next", "last") else None)
    assert (ours.fileno() == -1) == (follows != "next")
    assert (spare.fileno() == -1) == (follows in ("never", "rest"))
    assert reader.ended == (follows == "never")
    assert (reader.resting_until > time.monotonic()) == (follows in ("never", "rest"))
    reader.allow()
    assert (reader.resting_until > time.monotonic()) == (follows in ("never", "rest"))


@pytest.mark.parametrize("used", [True, False])
def test_a_connection_that_is_cut_is_not_waited_for(pairs: Pairs, used: bool) -> None:
    """A server may close one after an answer; one that does so at first does not serve this."""
    (ours, servers), *_ = pairs
    reader, where = DirectReader("http://a", 5.0, 0.0, most=1), Place("a.tar", 5, 9)
    reader.full_until = math.inf
    reader.free.append(direct._Connection(ours))
    for number in range(1 + used):
        assert reader.expect([where]) == []
        if number < used:
            servers.sendall(right())
            assert reader.take(where) == b"123456789"
    servers.sendall(right()[:20])
    servers.shutdown(socket.SHUT_WR)
    began = time.monotonic()
    assert reader.take(where) is None
    assert time.monotonic() - began < 2
    assert (reader.resting_until > began) == (not used)
    assert not reader.ended


def test_an_answer_that_comes_in_drops_is_not_waited_for(pairs: Pairs) -> None:
    (ours, servers), *_ = pairs
    reader, where = DirectReader("http://a", 0.3, 0.0), Place("a.tar", 5, 9)
    ours.settimeout(0.3)
    reader.free.append(direct._Connection(ours))
    assert reader.expect([where]) == []

    def send() -> None:
        for byte in right():
            servers.sendall(bytes([byte]))
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send)
        began = time.monotonic()
        assert reader.take(where) is None
        assert time.monotonic() - began < 2
        assert isinstance(sent.exception(), OSError)  # nobody listens any more
    assert reader.resting_until > time.monotonic()


def test_a_place_that_is_expected_again_is_asked_for_once(pairs: Pairs) -> None:
    """And it counts as expected when it was last."""
    reader, where = DirectReader("http://a", 5.0, 0.0, most=2), Place("a.tar", 5, 9)
    reader.full_until = math.inf
    reader.free.extend(direct._Connection(ours) for ours, _ in pairs[:2])
    assert reader.expect([where]) == []
    assert reader.expect([where]) == []
    assert len(reader.free) == 1
    others = [Place("b.tar", number, 1) for number in range(200)]
    left = reader.expect(others)
    assert reader.expect([where]) == []
    pairs[0][1].sendall(right())
    pairs[1][1].sendall(right())
    assert reader.take(left[-1]) is None
    assert reader.take(where) == b"123456789"


def test_as_many_places_wait_as_connections_can_soon_take(pairs: Pairs) -> None:
    """One that is expected again while it waits takes its new turn."""
    few = [Place("a.tar", number, 9) for number in range(10)]
    reader = DirectReader("http://a", 5.0, 0.0, most=1)
    reader.full_until = math.inf
    assert reader.expect(few) == few
    reader.free.append(direct._Connection(pairs[0][0]))
    reader.others.clear()
    assert reader.expect(few) == few[direct._WAITING :]
    assert [*reader.others] == few[direct._WAITING :]
    assert [*reader.asked, *reader.waiting] == few[: direct._WAITING]
    reader.expect([few[1]])
    assert [*reader.waiting] == [few[2], few[3], few[1]]


@pytest.mark.parametrize("kind", ["asked", "waiting", "others"])
def test_what_should_have_been_read_long_ago_is_forgotten(pairs: Pairs, kind: str) -> None:
    """However the place that is read now comes; what is nearly in order is kept."""
    old, near, now = (
        [Place(name, number, 9) for name in ("a.tar", "w.tar", "o.tar")] for number in range(3)
    )
    last, number = now[["asked", "waiting", "others"].index(kind)], 3 * direct._MARGIN
    reader = DirectReader("http://a", 5.0, 0.0)
    for few, when in ((old, 1), (near, number - direct._MARGIN), (now, number)):
        ours = direct._Connection(pairs[few[0].offset][0])
        reader.asked[few[0]] = ours, when
        reader.waiting[few[1]] = reader.others[few[2]] = when
    reader.drop(last)
    left = {*reader.asked, *reader.waiting, *reader.others}
    assert left == {*near, *now} - {last}
    assert pairs[0][0].fileno() == -1
    assert pairs[1][0].fileno() != -1
    assert (pairs[2][0].fileno() == -1) == (kind == "asked")


def test_at_the_end_all_connections_are_closed(pairs: Pairs) -> None:
    """That of an answer which another thread reads just then, too."""
    reader = DirectReader("http://a", 5.0, 0.0, most=3)
    reader.full_until = math.inf
    reader.free.extend(direct._Connection(ours) for ours, _ in pairs[:2])
    few = [Place("a.tar", number, 9) for number in range(40)]
    reader.expect(few)
    reader.free.append(direct._Connection(pairs[2][0]))
    assert (len(reader.asked), len(reader.free)) == (2, 1)
    first, connection = next(iter(reader.asked)), pairs[1][0]
    with ThreadPoolExecutor(1) as thread:
        data = thread.submit(reader.take, first)
        until(lambda: first not in reader.asked)
        reader.close()
        pairs[1][1].sendall(right().replace(b"5-13", b"0-8"))
        assert data.result(5) == b"123456789"
    assert connection.fileno() == -1
    assert all(ours.fileno() == -1 for ours, _ in pairs)
    reader._stop(for_now=True)  # by a thread that had to wait meanwhile
    assert reader.ended
    assert reader.expect(few) == few
    assert [*reader.asked, *reader.free, *reader.waiting, *reader.others] == []


def test_a_connection_opened_while_a_server_rests_is_closed(files: Path) -> None:
    with serving(files) as server:
        reader = DirectReader(server.address, 5.0, 0.0, opening=1)
        reader._stop(for_now=True)
        reader._open()
        assert (reader.connections, reader.opening) == (0, 0)


@pytest.mark.parametrize("one", [True, False])
def test_a_server_that_takes_no_more_connections_has_those_it_took(pairs: Pairs, one: bool) -> None:
    """For some time; and nothing is asked of it where it took none."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    reader = DirectReader(f"http://127.0.0.1:{port}", 5.0, 0.0)
    if one:
        reader.free.append(direct._Connection(pairs[0][0]))
    reader.expect([Place("a.tar", number, 9) for number in range(100)])
    until(lambda: not reader.opening)
    assert (reader.resting_until > time.monotonic()) == (not one)
    if one:
        assert reader.most == 1 == reader.connections
        reader.expect([Place("b.tar", number, 9) for number in range(100)])
        assert not reader.opening


def test_where_there_are_too_many_threads_images_come_otherwise(files: Path) -> None:
    with serving(files) as server:
        there, reader = started(server)
        before = threading.stack_size(1 << 47)  # more than there is: no thread begins
        try:
            reader._open_more(60)
        finally:
            threading.stack_size(before)
        assert not reader.opening
        read_in_order(there, places(40))


def test_few_threads_open_connections_and_as_many_as_are_needed(files: Path) -> None:
    with serving(files) as server:
        _, reader = started(server)
        before = reader.connections
        assert before <= 2 * direct._OPENERS
        assert reader.expect(places(2 * before)) == []
        until(lambda: not reader.opening)
        assert before < reader.connections <= 3 * before
        with reader.lock:  # as `expect` holds it: no thread gets any further
            reader._open_more(60)
            reader._open_more(60)
            assert reader.opening == direct._OPENERS


def test_a_connection_keeps_to_the_patience_of_its_reader(files: Path) -> None:
    with serving(files) as server:
        reader = DirectReader(server.address, 0.3, 0.0)
        reader._open_more(1)
        until(lambda: bool(reader.free))
        server.faults = ["slow"]
        where = place(0, 900)
        assert reader.expect([where]) == []
        began = time.monotonic()
        assert reader.take(where) is None
        assert time.monotonic() - began < 3


def test_a_host_that_accepts_no_connection_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its queue is full; here only of connections that the test makes."""
    monkeypatch.setattr(direct, "_TO_CONNECT", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        host, port = full.getsockname()
        connections = [socket.socket() for _ in range(4)]
        for each in connections:
            each.setblocking(False)
            each.connect_ex((host, port))
        time.sleep(0.1)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            direct._open_socket(host, port)
        assert time.monotonic() - began < 5  # the system's own patience is minutes
        for each in connections:
            each.close()


def test_a_host_is_reached_by_any_of_its_addresses(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(files) as server, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = server.server_address[1]
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        two = [(*kind, unused.getsockname()), (*kind, ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: two)
        with direct._open_socket("a", port) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)
        two.pop()
        with pytest.raises(ConnectionRefusedError):
            direct._open_socket("a", port)


def test_a_request_names_what_the_event_loop_would(folder: Path) -> None:
    """aiohttp is the witness of path, host and encoding, for a name that needs quoting."""
    name = "a b%ü+#?&.tar"
    (folder / name).write_bytes(CONTENT)
    with serving(folder) as server:
        there = RemoteFolder(server.address, patience=QUICK, at_first=QUICK)
        there.read(place(0, 900, name))
        reader = there._reader.direct
        assert reader is not None
        reader._open_more(1)
        until(lambda: bool(reader.free))
        where = place(100_000, 900, name)
        there.expect([where])
        assert there.read(where) == bytes_at(where)
        heads = [[line for line in head.splitlines() if line] for head in server.heads]
    assert directly(server) == 1
    wanted = ("get ", "host:", "accept-encoding:")
    loops, ours = ([line for line in head if line.lower().startswith(wanted)] for head in heads)
    assert sorted(ours) == sorted(loops)


def test_where_an_address_is_not_enough_the_event_loop_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DirectReader.of("http://a/b", 1.0) is not None
    assert DirectReader.of("https://a/b", 1.0) is not None
    assert DirectReader.of("s3://a/b", 1.0) is None
    assert DirectReader.of("http://user:password@a/b", 1.0) is None
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert DirectReader.of("http://a/b", 1.0) is None


def test_what_a_server_says_on_a_free_connection_answers_nothing(pairs: Pairs) -> None:
    """As the 408 of many servers before they close it; the one used before it is taken."""
    reader, where = DirectReader("http://a", 5.0, 0.0, most=3), Place("a.tar", 5, 9)
    reader.full_until = math.inf
    reader.free.extend(direct._Connection(ours, used=True) for ours, _ in pairs)
    pairs[2][1].sendall(failing("408 Request Timeout"))
    assert reader.expect([where]) == []
    assert pairs[1][1].recv(10_000).endswith(b"Range: bytes=5-13\r\n\r\n")
    assert pairs[2][0].fileno() == -1
    assert len(reader.free) == 1


def test_an_answer_that_nobody_has_read_for_long_is_given_up(pairs: Pairs) -> None:
    reader, wheres = DirectReader("http://a", 5.0, 0.0, most=2), [place(5, 9), place(50, 9)]
    reader.full_until = math.inf
    reader.free.extend(direct._Connection(ours) for ours, _ in pairs[:2])
    assert reader.expect(wheres) == []
    (old, _), (other, _) = reader.asked.values()
    old.since -= direct._UNREAD + 1
    reader.expect([])
    assert [*reader.asked] == wheres[1:]
    assert old.socket.fileno() == -1
    assert other.socket.fileno() != -1


def test_a_connection_counts_as_idle_only_since_its_answer_was_read(pairs: Pairs) -> None:
    (ours, servers), *_ = pairs
    reader, where = DirectReader("http://a", 5.0, 0.0, most=1), Place("a.tar", 5, 9)
    reader.full_until = math.inf
    reader.free.append(direct._Connection(ours))
    reader.expect([where])
    reader.asked[where][0].since -= direct._IDLE + 1
    servers.sendall(right())
    assert reader.take(where) == b"123456789"
    assert reader.expect([where]) == []


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
    with serving(files) as server:
        there, reader = started(server)
        for number in range(0, 300, 50):
            there.expect(places(300)[number : number + 50])
            until(lambda: not reader.opening)
        assert len(reader.asked) == direct._MOST
        if seconds is not None:
            monkeypatch.setattr(direct, "_UNREAD", seconds)
            time.sleep(seconds + 0.1)
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
