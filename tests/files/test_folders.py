"""Where what can be had again is kept: one folder, whatever keeps something."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import resnets
from resnets.data import membership
from resnets.data.digests import FileDigests, content_digest, digests_of_bytes
from resnets.data.places import Place
from resnets.data.remote.cache import Cache
from resnets.data.sources import parquet
from resnets.deployment.engines import selection
from resnets.errors import CacheWarning
from resnets.files import folders
from resnets.files.folders import cache_folder
from resnets.runs import frozen_features

VARIABLES = ("RESNETS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA")
PACKAGE = Path(resnets.__file__).parent

WITHOUT_HOME = """
import pwd

def nobody(user):
    raise KeyError(user)

pwd.getpwuid = nobody  # as for a user id that a container's image does not know
from resnets.files.folders import cache_folder
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
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    table = pa.table({"image": [b"one", b"two"], "label": [0, 1]})
    pq.write_table(table, home / "train.parquet")
    kept = [
        selection._results_file(),
        membership._cache_file(np.zeros((2, 32), np.uint8)),
        FileDigests(home).file,
        parquet._store([home / "train.parquet"], "image").file,  # type: ignore[attr-defined]
    ]
    assert all(file.is_relative_to(home / "here" / inside) for file in kept)


@pytest.fixture
def closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that cannot be made, for any user."""
    (home / "file").write_bytes(b"")
    monkeypatch.setenv("RESNETS_CACHE", str(home / "file" / "cache"))
    monkeypatch.setattr(folders, "_WARNED_OF", set())
    return home / "file" / "cache"


def test_large_parquet_files_open_where_nothing_can_be_kept(
    home: Path, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "IN_MEMORY", 0)
    pq.write_table(pa.table({"image": [b"one", b"two"]}), home / "train.parquet")
    with pytest.warns(CacheWarning, match=re.escape(str(closed))):
        storage = parquet._store([home / "train.parquet"], "image")
    assert [storage.read(0), storage.read(1)] == [b"one", b"two"]


def _keep_digests(home: Path) -> None:
    (home / "image").write_bytes(b"GIF89a")
    os.utime(home / "image", (0, 0))
    digests = FileDigests(home)
    own = digests_of_bytes(b"GIF89a")
    digests.put(["image"], [(home / "image").stat()], [own])
    digests.save()


def _keep_members(_: Path) -> None:
    membership._cache_members(np.zeros((2, 32), np.uint8), np.ones(2, np.uint64))


def _keep_features(_: Path) -> None:
    target = cache_folder() / "features" / "a.npz"
    frozen_features._write_cache(target, np.zeros((1, 32), np.uint8), np.ones((1, 3), np.float32))


def _keep_bytes(_: Path) -> None:
    place = Place("shard", 0, 3, content_digest(b"abc"))
    Cache(cache_folder() / "remote", 1 << 30).put(place, b"abc")


def _keep_results(_: Path) -> None:
    selection._store_results({"a": "b"})


@pytest.mark.parametrize(
    "keep", [_keep_digests, _keep_members, _keep_features, _keep_bytes, _keep_results]
)
def test_a_cache_that_cannot_be_written_is_named_once_with_the_variable_that_moves_it(
    keep: Callable[[Path], None], home: Path, closed: Path
) -> None:
    with pytest.warns(CacheWarning, match="RESNETS_CACHE") as warned:
        keep(home)
    keep(home)  # another warning would be an error
    assert len(warned) == 1
    assert str(closed) in str(warned[0].message)


def test_whoever_writes_to_the_cache_says_where_it_cannot() -> None:
    elsewhere = {"data/remote/folder.py": "data/remote/cache.py"}
    elsewhere["pretrained/files.py"] = "pretrained/opening.py"
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "files/folders.py" and "cache_folder()" in path.read_text(encoding="utf-8"):
            text = (PACKAGE / elsewhere.get(name, name)).read_text(encoding="utf-8")
            assert "warn_of_cache(" in text or "writing_to_cache()" in text, name


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
    assert places - written == {"files/folders.py"}
