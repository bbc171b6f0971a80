"""Ranges of files of a real web server, with every fault that servers have."""

import base64
import multiprocessing
import os
import pickle
import ssl
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from resnets.data.digests import content_digest
from resnets.data.remote import Place, RemoteFolder
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import Patience, RemoteError, failure_of
from resnets.data.remote.read_ahead import ReadAhead
from resnets.errors import ContentError, UsageError
from tests.data.remote.conftest import CONTENT, QUICK, bytes_at, place
from tests.range_server import FAULTS, serving


def remote(address: str, cache_bytes: int = 0) -> RemoteFolder:
    return RemoteFolder(address, cache_bytes, patience=QUICK, at_first=QUICK)


def test_a_range_is_fetched_by_one_request_of_its_bytes(folder: Path) -> None:
    with serving(folder) as server:
        assert remote(server.address).read(place(1000, 50)) == CONTENT[1000:1050]
        assert server.asked == [("/a.tar", 1000, 1050)]


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("refused", "slow")])
def test_an_answer_with_a_fault_is_asked_for_again(folder: Path, fault: str) -> None:
    with serving(folder, faults=[fault, fault]) as server:
        assert remote(server.address).read(place(7, 5000)) == CONTENT[7:5007]
        assert len(server.asked) == 3


def test_an_answer_that_does_not_come_is_asked_for_again(folder: Path) -> None:
    patience = Patience(attempts=2, seconds=0.2, first_pause=0.001)
    with serving(folder, faults=["slow"]) as server:
        assert RemoteFolder(server.address, patience=patience).read(place(0, 9)) == CONTENT[:9]


def test_attempts_are_further_and_further_apart(folder: Path) -> None:
    """Between half and all of 0.2, 0.4 and 0.8 seconds."""
    patience = Patience(attempts=4, seconds=5.0, first_pause=0.2)
    with serving(folder, faults=["503"] * 3) as server:
        RemoteFolder(server.address, patience=patience).read(place(0, 9))
    pauses = [after - before for before, after in pairwise(server.times)]
    for pause, longest in zip(pauses, (0.2, 0.4, 0.8), strict=True):
        assert pause > longest / 2


@pytest.mark.parametrize(
    ("fault", "reason"), [("503", "503"), ("cut", "cut"), ("short", "4,999 bytes"), ("slow", "0.2")]
)
def test_after_all_attempts_the_error_names_address_range_and_reason(
    folder: Path, fault: str, reason: str
) -> None:
    patience = Patience(attempts=2, seconds=0.2 if fault == "slow" else 5, first_pause=0.001)
    with (
        serving(folder, faults=[fault, fault]) as server,
        pytest.raises(RemoteError, match=reason) as caught,
    ):
        RemoteFolder(server.address, patience=patience).read(place(7, 5000))
    for part in (f"{server.address}/a.tar", "bytes 7 to 5,006", "2 attempts"):
        assert part in str(caught.value)
    assert not isinstance(caught.value, ValueError)  # which --skip-unreadable would leave out
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_an_outage_is_told_once_and_has_an_end_for_all_requests(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patience = Patience(seconds=0.2, first_pause=0.001, total=1.0)
    places = [place(start, 500) for start in range(0, 90_000, 30_000)]
    with serving(folder, faults=["slow"] * 60) as server:
        away = RemoteFolder(server.address, patience=patience)
        began = time.monotonic()
        for number, each in enumerate(places):
            attempts = "" if number else "[4-6] attempts in "
            with pytest.raises(RemoteError, match=rf"after {attempts}\d(\.\d)? s") as caught:
                away.read(each)
        seconds = time.monotonic() - began
    assert seconds < 2.5  # instead of 3 times 8 times 0.2
    assert float(str(caught.value).split("after ")[-1].split(" s")[0]) == pytest.approx(
        seconds, 0.2
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if server.address in line] == lines
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("500", "status 500"), ("502", "status 502"), ("429", "status 429"), ("short", "499 bytes")],
)
def test_the_line_about_an_outage_says_why_and_when_it_is_given_up(
    folder: Path, capsys: pytest.CaptureFixture[str], fault: str, reason: str
) -> None:
    patience = Patience(attempts=5, first_pause=0.001)
    with serving(folder, faults=[fault] * 3) as server:
        RemoteFolder(server.address, patience=patience).read(place(0, 500))
    (line,) = capsys.readouterr().err.splitlines()
    for part in (server.address, reason, "5 attempts"):
        assert part in line


def test_access_that_is_denied_midway_ends_the_attempts(folder: Path) -> None:
    patience = Patience(first_pause=0.001)
    with serving(folder, faults=["500", "500", "refused"]) as server:
        with pytest.raises(RemoteError, match=r"status 403.*3 attempts"):
            RemoteFolder(server.address, patience=patience).read(place(0, 500))
        assert len(server.asked) == 3


def _read_from(away: RemoteFolder) -> None:
    for start in range(0, 90_000, 30_000):
        away.read(place(start, 500))


def test_one_of_several_processes_tells_of_an_outage(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("spawn")
    with serving(folder, faults=["503"] * 12) as server:
        patience = Patience(attempts=20, first_pause=0.1, longest_pause=0.1)
        away = RemoteFolder(server.address, patience=patience)
        others = [context.Process(target=_read_from, args=(away,)) for _ in range(2)]
        for each in others:
            each.start()
        for each in others:
            each.join()
    assert [each.exitcode for each in others] == [0, 0]
    assert capfd.readouterr().err.count(server.address) == 1


def test_wrong_bytes_are_fetched_again_and_then_named(folder: Path) -> None:
    with serving(folder, faults=["wrong"] * 4) as server:
        with pytest.raises(ContentError, match=r"a\.tar, bytes 7 to 16.*index"):
            remote(server.address, 1 << 20).read(place(7, 10))
        assert remote(server.address, 1 << 20).read(place(7, 10)) == CONTENT[7:17]


def test_what_another_attempt_cannot_mend_is_not_tried_again(folder: Path) -> None:
    with serving(folder, faults=["refused"]) as server:
        with pytest.raises(RemoteError, match=r"access denied.*\.netrc"):
            remote(server.address).read(place(0, 10))
        with pytest.raises(RemoteError, match="no such file"):
            remote(server.address).read(place(0, 10, "b.tar"))
        assert len(server.asked) == 1
    _disconnect()
    with pytest.raises(RemoteError, match=r"no such host \(check its name\)"):
        remote("http://no.such.host.invalid/shards").read(place(0, 10))
    with pytest.raises(RemoteError, match=r": connection refused \(after 3 attempts"):
        remote(server.address).read(place(0, 10))


def test_a_file_that_was_cut_off_is_told_at_once(folder: Path) -> None:
    end = len(CONTENT)
    with serving(folder) as server:
        with pytest.raises(RemoteError, match=rf"bytes .* ends at byte {end:,}") as caught:
            remote(server.address).read(place(end - 10, 20))
        assert len(server.asked) == 1
    assert "attempts" not in str(caught.value)


def test_a_server_without_ranges_is_refused_after_one_answer(folder: Path) -> None:
    with serving(folder, ranges=False) as server:
        with pytest.raises(RemoteError, match="requests for a range"):
            remote(server.address).read(place(0, 10))
        assert len(server.asked) == 1


def test_whole_files_and_their_sizes(folder: Path) -> None:
    (folder / "with space#.txt").write_bytes(b"text")
    with serving(folder) as server:
        there = remote(server.address)
        assert there.read_file("a.tar", 1 << 20) == CONTENT
        assert there.read_file("with space#.txt", 10) == b"text"
        assert there.size("a.tar") == len(CONTENT)
        assert there.size("b.tar") is None
        with pytest.raises(ContentError, match="at most 100"):
            there.read_file("a.tar", 100)
        for refused in (there.names, lambda: there.write_bytes("b", b"")):
            with pytest.raises(UsageError, match=server.address):
                refused()


def test_a_file_is_read_from_front_to_back_in_pieces_that_come_before_they_are_needed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnets.data.remote.streams._PIECE", 30_000)
    with serving(folder) as server:
        server.faults = ["cut", "503"]
        with remote(server.address).stream("a.tar") as stream:
            assert stream.read(70_000) == CONTENT[:70_000]
            assert stream.seek(-10, os.SEEK_END) == len(CONTENT) - 10
            assert stream.read() == CONTENT[-10:]
            stream.seek(5)
            assert stream.read() == CONTENT[5:]


def test_expected_neighbours_are_fetched_together_and_once(folder: Path) -> None:
    places = [place(start, 900) for start in range(0, 100_000, 1000)]
    with serving(folder) as server:
        there = remote(server.address)
        there.expect(places)
        there.expect(places[:50])
        assert [there.read(each) for each in places] == [bytes_at(each) for each in places]
        assert server.asked == [("/a.tar", 0, 99_900)]
        until(lambda: not there._reader.expected)
        assert there.read(places[0]) == bytes_at(places[0])  # again, by a request of its own
        assert server.asked[1:] == [("/a.tar", 0, 900)]


def test_what_is_expected_is_fetched_before_it_is_needed(folder: Path) -> None:
    with serving(folder) as server:
        there = remote(server.address)
        there.expect([place(500, 900)])
        deadline = time.monotonic() + 20
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.asked == [("/a.tar", 500, 1400)]


def test_far_places_are_fetched_at_once(folder: Path) -> None:
    places = [place(start, 10) for start in (290_000, 0, 100_000)]
    with serving(folder) as server:
        there = remote(server.address)
        there.expect(places)
        assert there.read(places[2]) == bytes_at(places[2])
        assert there.read(place(200_000, 10)) == CONTENT[200_000:200_010]  # not expected
        assert [there.read(each) for each in places[:2]] == [bytes_at(p) for p in places[:2]]
        assert len(server.asked) == 4


def test_what_is_read_ahead_is_bounded_and_needed_first_comes_first(folder: Path) -> None:
    places = [place(start, 20_000) for start in range(0, 280_000, 100_000)]
    with serving(folder) as server:
        there = remote(server.address)
        there._reader.most = 30_000
        there.expect(places)
        assert there.read(places[2]) == bytes_at(places[2])  # though its turn has not come
        assert there.read(places[1]) == bytes_at(places[1])
        assert there.read(places[0]) == bytes_at(places[0])
        until(lambda: there._reader.held == 0)
        assert sorted(server.asked) == [("/a.tar", p.offset, p.stop) for p in places]


def test_a_failed_request_fails_each_of_its_places(folder: Path) -> None:
    places = [place(0, 10), place(20, 10)]
    with serving(folder, faults=["503"] * 20) as server:
        there = remote(server.address)
        there.expect(places)
        for each in places:
            with pytest.raises(RemoteError, match="503"):
                there.read(each)
        server.faults.clear()
        assert there.read(places[0]) == CONTENT[:10]


def _read_in_process(there: RemoteFolder, results: "multiprocessing.Queue[bytes]") -> None:
    there.expect([place(50, 10)])
    results.put(there.read(place(50, 10)))
    results.put(there.read(place(150, 10)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_worker_processes_make_connections_of_their_own(folder: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    context = multiprocessing.get_context(method)
    with serving(folder) as server:
        there = remote(server.address)
        there.expect([place(0, 10)])
        assert there.read(place(100, 10)) == CONTENT[100:110]
        results = context.Queue()
        worker = context.Process(target=_read_in_process, args=(there, results))
        worker.start()
        assert [results.get(timeout=60) for _ in range(2)] == [CONTENT[50:60], CONTENT[150:160]]
        worker.join()
        assert worker.exitcode == 0
        assert there.read(place(0, 10)) == CONTENT[:10]


def _fill(there: RemoteFolder, turn: int) -> None:
    for start in range(0, 200_000, 5_000):
        where = place((start + turn * 100_000) % 200_000, 4_000)
        assert there.read(where) == bytes_at(where)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_two_processes_share_a_cache(folder: Path) -> None:
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with serving(folder) as server:
        there = remote(server.address, 1 << 20)
        workers = [context.Process(target=_fill, args=(there, turn)) for turn in (0, 1)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        asked = len(server.asked)
        assert 40 <= asked <= 80
        _fill(there, 0)
        there.expect([place(0, 4_000)])
        assert len(server.asked) == asked  # all of it is in the cache


def test_another_process_has_a_cache_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = remote("http://127.0.0.1:9", 1 << 20)
    there.expect([])
    sent = pickle.dumps(there)
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "other"))
    received = pickle.loads(sent)  # noqa: S301
    assert received == there
    assert received._cache.folder == tmp_path / "other" / "remote"


@pytest.mark.parametrize(("code", "unknown"), [(10, False), (18, True), (20, True), (62, False)])
def test_only_for_an_unknown_signer_its_file_is_asked_for(code: int, unknown: bool) -> None:
    """Not for a certificate that has expired or is of another host."""
    error = OSError("no secure connection")
    error.certificate_error = ssl.SSLCertVerificationError("no")  # type: ignore[attr-defined]
    error.certificate_error.verify_code = code  # type: ignore[attr-defined]
    error.certificate_error.verify_message = "why"  # type: ignore[attr-defined]
    failure = failure_of(error, 1.0)
    assert "not trusted (why)" in failure.reason
    assert ("SSL_CERT_FILE" in failure.reason) == unknown


def test_a_damaged_entry_is_fetched_again(folder: Path, tmp_path: Path) -> None:
    with serving(folder) as server:
        there = remote(server.address, 1 << 20)
        for damaged in (None, b"", b"other by", b"longer than that"):
            for file in (tmp_path / "cache").rglob("*/??/*"):
                if damaged is not None:
                    file.write_bytes(damaged)
            assert there.read(place(0, 8)) == CONTENT[:8]
        assert len(server.asked) == 4
        assert there.read(place(0, 8)) == CONTENT[:8]
        assert len(server.asked) == 4


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_without_a_digest_nothing_is_cached_and_a_cache_that_cannot_be_written_is_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", os.devnull + "/cache")
    with serving(folder) as server:
        there = remote(server.address, 1 << 20)
        assert there.read(place(0, 8)) == there.read(Place("a.tar", 0, 8)) == CONTENT[:8]
        monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
        assert there.read(Place("a.tar", 0, 8)) == there.read(Place("a.tar", 0, 8))
        assert len(server.asked) == 4
        assert content_digest(CONTENT[:8]) == place(0, 8).digest


def test_a_proxy_of_the_environment_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(folder) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        data = remote("http://shards.example.org").read(place(1000, 50))
    assert data == CONTENT[1000:1050]
    assert proxy.heads[0].startswith("GET http://shards.example.org/a.tar ")


@pytest.mark.parametrize("where", ["NETRC", "home"])
def test_the_password_of_a_netrc_file_is_sent(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    lines = "machine 127.0.0.1 login ann password secret\n"
    file = tmp_path / ("my logins" if where == "NETRC" else ".netrc")
    file.write_text(lines, encoding="utf-8")
    file.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    if where == "NETRC":
        monkeypatch.setenv("NETRC", str(file))
    with serving(folder) as server:
        remote(server.address).read(place(1000, 50))
    login = base64.b64encode(b"ann:secret").decode()
    assert f"Authorization: Basic {login}" in server.heads[0]


def test_images_that_are_here_already_are_taken_without_waiting(folder: Path) -> None:
    places = [place(start, 500) for start in range(0, 200_000, 70_000)]
    with serving(folder) as server:
        source = remote(server.address)
        source.expect(places)
        reader = source._reader
        until(lambda: all(_is_here(reader, each) for each in places))
        assert reader.taken(place(5, 5)) is None  # nobody expected it
        assert [reader.taken(each) for each in places] == [*map(bytes_at, places)]
        until(lambda: not reader.expected and reader.held == 0)
        assert len(server.asked) == 3
        assert [source.read(each) for each in places] == [*map(bytes_at, places)]


def test_a_failed_request_is_not_taken_but_read_again(folder: Path) -> None:
    with serving(folder, faults=["refused"]) as server:
        source = remote(server.address)
        source.expect([place(9, 500)])
        until(lambda: _is_here(source._reader, place(9, 500)))
        assert source._reader.taken(place(9, 500)) is None
        assert source.read(place(9, 500)) == CONTENT[9:509]


def _is_here(reader: ReadAhead, where: Place) -> bool:
    order = reader.expected.get(where)
    return order is not None and order.task is not None and order.task.done()


def until(reached: Callable[[], bool]) -> None:
    """Wait for what a background thread does."""
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)
