"""A server that speaks Google's JSON API: ranges, whole files, shards, and what errors mean.

By gcp-storage-emulator; where it or gcsfs is not installed, the tests skip.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resnets.data.remote import RemoteFolder
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import RemoteError, failure_of
from tests.data.remote.conftest import (
    QUICK,
    check_files_and_ranges,
    check_one_at_a_time,
    check_shards,
    check_taken_over,
    place,
)

pytest.importorskip("gcsfs", reason="gcsfs is not installed")
emulator = pytest.importorskip(
    "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RemoteFolder]:
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="photos")
    server.start()
    host, port = server._api._httpd.server_address
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of a user
    patience = replace(QUICK, seconds=30.0)  # the first request imports much
    yield RemoteFolder("gs://photos/some shards", at_first=patience, patience=patience)
    _disconnect()
    server.stop()


def test_files_and_ranges(
    bucket: RemoteFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check_files_and_ranges(bucket, tmp_path)
    assert "bucket type" not in capfd.readouterr().err  # what gcsfs tells of its own
    with pytest.raises(RemoteError, match=r"gs://photos/some shards/b\.tar, bytes 0 to 8: no such"):
        bucket.read(place(0, 9, "b.tar"))


def test_shards_are_written_to_a_bucket_and_read_from_it(bucket: RemoteFolder) -> None:
    check_shards(bucket)


@pytest.mark.usefixtures("quick_locks")
def test_one_process_at_a_time_writes_shards_into_a_bucket(bucket: RemoteFolder) -> None:
    check_one_at_a_time(bucket)


@pytest.mark.usefixtures("quick_locks")
def test_the_lock_of_a_process_that_was_killed_is_taken_over(bucket: RemoteFolder) -> None:
    check_taken_over(bucket)


@pytest.mark.parametrize(
    ("status", "again", "missing"),
    [
        *((401, False, False), (403, False, False), (404, False, True)),
        *((429, True, False), (500, True, False), (503, True, False)),
    ],
)
def test_an_answer_is_understood_by_its_status(status: int, again: bool, missing: bool) -> None:
    """As gcsfs turns it into an exception."""
    from gcsfs.retry import validate_response

    with pytest.raises(Exception) as raised:  # noqa: PT011  (of many types)
        validate_response(status, b'{"error": {"message": "why"}}', "photos/a")
    failure = failure_of(raised.value, 1.0)
    assert (failure.again, failure.missing) == (again, missing)
    assert ("denied" in failure.reason) == (status in (401, 403))
