"""A folder with a file of known bytes, and connections that end with each test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from resnets.data.digests import content_digest
from resnets.data.remote import Place
from resnets.data.remote.connections import _disconnect
from resnets.data.remote.failures import Patience

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
QUICK = Patience(attempts=3, seconds=5.0, first_pause=0.001)


def place(offset: int, length: int, file: str = "a.tar") -> Place:
    """A place of the file, with its digest."""
    return Place(file, offset, length, content_digest(CONTENT[offset : offset + length]))


def bytes_at(where: Place) -> bytes:
    return CONTENT[where.offset : where.stop]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "shards"
    path.mkdir()
    (path / "a.tar").write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def _new_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    _disconnect()
