"""The hub's own libraries as witnesses that the server of the tests speaks their protocol."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Fault, HubServer

hub_library = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")

FILES = {"config.json": b'{"width": 4}', "weights/model.safetensors": bytes(range(256)) * 40}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with HubServer() as server:
        yield server


def download(hub: HubServer, cache: Path, file: str, **options: object) -> Path:
    where = {"endpoint": hub.address, "cache_dir": cache, "token": False, **options}
    return Path(hub_library.hf_hub_download("owner/name", file, **where))


def test_files_are_downloaded_at_their_commit(hub: HubServer, tmp_path: Path) -> None:
    first = hub.add("owner/name", FILES)
    second = hub.add("owner/name", FILES | {"config.json": b"{}"})
    hub.repositories["models/owner/name"].refs["v1"] = first
    for revision, commit in (("main", second), ("v1", first), (first, first), (first[:8], first)):
        for name, data in hub.repositories["models/owner/name"].commits[commit].items():
            path = download(hub, tmp_path, name, revision=revision)
            assert path.read_bytes() == data
            assert commit in path.parts
            checksum = hashlib.sha256(data).hexdigest()
            assert name.endswith("json") or path.resolve().name == checksum


def test_a_repository_is_listed_and_copied_whole(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.add("owner/name", FILES, kind="dataset")
    api = hub_library.HfApi(endpoint=hub.address, token=False)
    facts = api.dataset_info("owner/name", revision="main")
    assert (facts.sha, {file.rfilename for file in facts.siblings}) == (commit, set(FILES))
    listed = {entry.path: entry for entry in api.list_repo_tree("owner/name", repo_type="dataset")}
    assert set(listed) == {"config.json", "weights"}
    folder = api.snapshot_download("owner/name", repo_type="dataset", cache_dir=tmp_path)
    assert {name: (Path(folder) / name).read_bytes() for name in FILES} == FILES


def test_missing_private_and_gated_are_told_apart(hub: HubServer, tmp_path: Path) -> None:
    hub.add("owner/name", FILES)
    with pytest.raises(errors.EntryNotFoundError):
        download(hub, tmp_path, "other.json")
    with pytest.raises(errors.RevisionNotFoundError):
        download(hub, tmp_path, "config.json", revision="v9")
    hub.faults["*/config.json"] = Fault(403)
    with pytest.raises(errors.GatedRepoError):
        download(hub, tmp_path, "config.json")
    hub.faults.clear()
    hub.repositories["models/owner/name"].private = True
    with pytest.raises(errors.RepositoryNotFoundError):
        download(hub, tmp_path, "config.json")
    assert download(hub, tmp_path, "config.json", token="hf_test").is_file()


@pytest.mark.parametrize("name", FILES)
def test_a_cut_connection_is_resumed(hub: HubServer, tmp_path: Path, name: str) -> None:
    hub.add("owner/name", FILES)
    hub.faults[f"/store/*/{name}" if name.endswith("s") else f"*/{name}"] = Fault(cut=5, times=1)
    assert download(hub, tmp_path, name).read_bytes() == FILES[name]


def test_wrong_content_has_the_right_size(hub: HubServer, tmp_path: Path) -> None:
    name = "weights/model.safetensors"
    hub.add("owner/name", FILES)
    hub.faults["/store/*"] = Fault(content=b"wrong")
    data = download(hub, tmp_path, name).read_bytes()
    assert (len(data), data[:5]) == (len(FILES[name]), b"wrong")
