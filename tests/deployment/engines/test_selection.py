import json
import os
from pathlib import Path

import pytest

from resnets.deployment.engines import selection
from resnets.deployment.engines.opening import open_engine
from resnets.deployment.engines.selection import (
    _read_results,
    _result_key,
    _results_file,
    _store_results,
    digest,
    fastest,
)

pytestmark = pytest.mark.slow  # exporting takes ten seconds, once

BOTH = ("onnxruntime", "openvino")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of what is remembered, in a folder that does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return _results_file()


def test_the_faster_runtime_is_measured_once_and_remembered_for_this_file(
    exported: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {name: selection._rate_of(name, exported, 1) for name in BOTH}
    assert min(measured.values()) > 0
    asked: list[str] = []

    def rate(name: str, path: Path, threads: int) -> float:
        asked.append(name)
        return {"onnxruntime": 1.0, "openvino": 2.0}[name]

    monkeypatch.setattr(selection, "_rate_of", rate)
    assert fastest(exported, BOTH, measure=False) == "onnxruntime"
    assert fastest(exported, BOTH, measure=False, usual="openvino") == "openvino"
    assert fastest(exported, BOTH, measure=False, usual="torch") == "onnxruntime"
    assert asked == []
    assert [fastest(exported, BOTH) for _ in range(3)] == ["openvino"] * 3
    assert asked == [*BOTH]
    assert open_engine(exported).name == "openvino"
    ((key, value),) = json.loads(cache.read_text(encoding="utf-8")).items()
    assert value == "openvino"
    assert key.startswith(digest(exported))
    assert fastest(exported, BOTH, threads=1) == "openvino"  # another key, measured anew
    assert len(asked) == 4


def test_a_runtime_that_fails_does_not_win(exported: Path, cache: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"")
    assert selection._rate_of("onnxruntime", broken, 0) == 0


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', "\x00", "[" * 100_000])
def test_a_damaged_memory_is_an_empty_one(content: str, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content, encoding="utf-8")
    assert _read_results() == {}
    assert _store_results({"a": "b"})
    assert _read_results() == {"a": "b"}


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_where_nothing_can_be_kept_nothing_is_measured(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(selection, "_rate_of", None)
    assert fastest(exported, BOTH) == "onnxruntime"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.devnull)
    assert fastest(exported, BOTH) == "onnxruntime"


def test_the_memory_does_not_grow_for_ever(cache: Path) -> None:
    assert _store_results({str(number): "torch" for number in range(selection._MAX_STORED + 5)})
    assert next(iter(_read_results())) == "5"
    assert len(_read_results()) == selection._MAX_STORED


def test_an_openvino_file_is_known_by_its_weights_too(tmp_path: Path) -> None:
    path = tmp_path / "net.xml"
    path.write_text("<net/>", encoding="utf-8")
    path.with_suffix(".bin").write_bytes(b"one")
    first = _result_key(path, BOTH, 0)
    path.with_suffix(".bin").write_bytes(b"two")
    assert _result_key(path, BOTH, 0) != first
