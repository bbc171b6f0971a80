"""An S3-compatible server: ranges, whole files, and credentials from the environment only."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from resnets.data.remote import RemoteFolder
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import RemoteError
from resnets.errors import MissingExtra
from tests.data.remote.conftest import CONTENT, QUICK, check_files_and_ranges, check_shards, place

SECRET = "neverToBePrinted"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[RemoteFolder]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="photos")
    yield RemoteFolder("s3://photos/some shards", at_first=QUICK, patience=QUICK)
    _disconnect()


def test_files_and_ranges(bucket: RemoteFolder, tmp_path: Path) -> None:
    check_files_and_ranges(bucket, tmp_path)
    with pytest.raises(RemoteError, match=r"s3://photos/some shards/b\.tar, bytes 0 to 8: no such"):
        bucket.read(place(0, 9, "b.tar"))
    with pytest.raises(RemoteError, match="no such bucket"):
        RemoteFolder("s3://other-photos", at_first=QUICK).write_bytes("a", b"")


def test_shards_are_written_to_a_bucket_and_read_from_it(bucket: RemoteFolder) -> None:
    bucket = replace(bucket, address="s3://photos/digits")  # where no other test has files
    check_shards(bucket)


def test_a_public_bucket_needs_no_credentials(
    bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    key = "some shards/a.tar"
    own.put_object(Bucket="photos", Key=key, Body=CONTENT, ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert bucket.read(place(5, 10)) == CONTENT[5:15]


def test_google_storage_says_what_to_install() -> None:
    pytest.importorskip("fsspec")
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match="pip install gcsfs"):
            RemoteFolder("gs://bucket").size("a")
