"""Where what can be had again is kept: one folder, whatever keeps something."""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnets import files
from resnets.data import membership
from resnets.data.digests import FileDigests
from resnets.data.sources import parquet
from resnets.deployment.engines import selection
from resnets.files import cache_folder

VARIABLES = ("RESNETS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA")
PACKAGE = Path(files.__file__).parent

WITHOUT_HOME = """
import pwd

def nobody(user):
    raise KeyError(user)

pwd.getpwuid = nobody  # as for a user id that a container's image does not know
from resnets.files import cache_folder
from resnets.deployment.engines.selection import _store_results
print(_store_results({"a": "b"}), cache_folder())
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, and no word of another place."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


CASES: list[tuple[str, Mapping[str, str], str]] = [
    ("linux", {}, "{home}/.cache/resnets"),
    ("darwin", {}, "{home}/Library/Caches/resnets"),
    ("win32", {}, "{home}/AppData/Local/resnets"),
    ("win32", {"LOCALAPPDATA": "{home}/local"}, "{home}/local/resnets"),
    ("linux", {"LOCALAPPDATA": "{home}/local"}, "{home}/.cache/resnets"),
    *(
        (
            platform,
            {"XDG_CACHE_HOME": "{home}/xdg", "LOCALAPPDATA": "{home}/x"},
            "{home}/xdg/resnets",
        )
        for platform in ("linux", "darwin", "win32")
    ),
    ("linux", {"XDG_CACHE_HOME": "relative"}, "{home}/.cache/resnets"),
    ("linux", {"XDG_CACHE_HOME": ""}, "{home}/.cache/resnets"),
    *(
        (
            platform,
            {"RESNETS_CACHE": "{home}/named", "XDG_CACHE_HOME": "{home}/xdg"},
            "{home}/named",
        )
        for platform in ("linux", "darwin", "win32")
    ),
    ("linux", {"RESNETS_CACHE": "~/named"}, "{home}/named"),
]


@pytest.mark.parametrize(("platform", "environment", "expected"), CASES)
def test_the_folder_is_where_the_user_says_and_else_where_the_system_keeps_caches(
    platform: str,
    environment: Mapping[str, str],
    expected: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(home=home))
    assert cache_folder(platform) == Path(expected.format(home=home))


@pytest.mark.parametrize(
    ("variable", "inside"), [("RESNETS_CACHE", ""), ("XDG_CACHE_HOME", "resnets")]
)
def test_whatever_keeps_something_keeps_it_there(
    variable: str, inside: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(home / "here"))
    monkeypatch.setattr(parquet, "_IN_MEMORY", 0)
    table = pa.table({"image": [b"one", b"two"], "label": [0, 1]})
    pq.write_table(table, home / "train.parquet")
    kept = [
        selection._results_file(),
        membership._cache_file(np.zeros((2, 32), np.uint8)),
        FileDigests(home).file,
        parquet._store([home / "train.parquet"], "image").file,  # type: ignore[attr-defined]
    ]
    assert all(file.is_relative_to(home / "here" / inside) for file in kept)


def test_large_parquet_files_open_where_nothing_can_be_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(home / "file" / "cache"))
    (home / "file").write_bytes(b"")
    monkeypatch.setattr(parquet, "_IN_MEMORY", 0)
    pq.write_table(pa.table({"image": [b"one", b"two"]}), home / "train.parquet")
    storage = parquet._store([home / "train.parquet"], "image")
    assert [storage.read(0), storage.read(1)] == [b"one", b"two"]


@pytest.mark.skipif(os.name != "posix", reason="home folders of users without a name are POSIX's")
def test_without_a_home_nothing_is_kept_and_nothing_is_strewn_about(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in (*VARIABLES, "HOME")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOME],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("False ")
    assert list(tmp_path.iterdir()) == []


def test_homes_and_caches_are_looked_up_in_one_module() -> None:
    names = {"expanduser", "home", "getpwuid"}
    places = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.Constant) and node.value in VARIABLES)
    }
    written = {"serving/deployment_files.py"}  # whose services set the variable
    assert places - written == {"files.py"}
