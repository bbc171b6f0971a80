"""An S3-compatible server: ranges, whole files, and credentials from the environment only."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from resnets.data.remote import RemoteFolder
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import RemoteError
from resnets.data.sharding import Settings, write_shards
from resnets.data.sources.opening import read_source
from resnets.data.sources.shards import read_shards
from resnets.data.splits import SourceContent
from resnets.errors import MissingExtra
from tests.data.remote.conftest import CONTENT, QUICK, bytes_at, place

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
    (tmp_path / "large").write_bytes(CONTENT)
    bucket.write_file("a.tar", tmp_path / "large")
    bucket.write_bytes("index.parquet", b"index")
    assert bucket.names() == ["a.tar", "index.parquet"]
    assert bucket.read_file("index.parquet", 10) == b"index"
    assert bucket.size("a.tar") == len(CONTENT)
    assert bucket.size("b.tar") is None
    places = [place(start, 500) for start in (9, 200_000, 700)]
    bucket.expect(places)
    assert [bucket.read(each) for each in places] == [bytes_at(each) for each in places]
    bucket.remove("index.parquet")
    bucket.remove("index.parquet")
    assert bucket.size("index.parquet") is None
    with pytest.raises(RemoteError, match=r"s3://photos/some shards/b\.tar, bytes 0 to 8: no such"):
        bucket.read(place(0, 9, "b.tar"))
    with pytest.raises(RemoteError, match="no such bucket"):
        RemoteFolder("s3://other-photos", at_first=QUICK).write_bytes("a", b"")


def test_shards_are_written_to_a_bucket_and_read_from_it(bucket: RemoteFolder) -> None:
    bucket = replace(bucket, address="s3://photos/digits")  # where no other test has files
    few = read_source("digits").images["all"].subset(range(5))

    def write(quality: int) -> int:
        content, settings = SourceContent("python", {"train": few}), Settings(8, quality, 1)
        return write_shards(content, bucket, settings, workers=0).kept

    assert [write(90), write(90), write(80)] == [0, 1, 0]
    assert bucket.names() == ["index.parquet", "train-000000.tar"]
    read = read_shards(bucket.address).images["train"]
    assert sorted(read.names) == sorted(few.names)
    assert np.array_equal(read.image(0), few.image([*few.names].index(read.names[0])))
    bucket.remove("index.parquet")  # so they are anybody's tar files
    others = read_source(bucket.address).images["train"]
    assert [others.encoded(index) for index in range(5)] == [read.encoded(row) for row in range(5)]


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
