"""A server on this machine that speaks the Hugging Face hub's protocol, for tests of transfers.

It answers what huggingface_hub and datasets ask of HF_ENDPOINT, as huggingface.co does: facts and
trees of repositories, `resolve` with ETag and commit, a redirect for large kinds of files, parts of
files by Range, and the hub's error codes. With the token hf_test it takes what is uploaded: new
repositories, branches, large files by the batch protocol of Git LFS, commits and pull requests;
the token hf_read may only read. Tests set faults by switch, and read what was asked.
Files outside any repository (`hub.files`) stand for other servers, such as PyTorch's.

    with HubServer() as hub:
        commit = hub.add("owner/name", folder)              # or kind="dataset"
        hub.faults["*/model.safetensors"] = Fault(cut=100)  # the connection ends after 100 bytes
        run(env={**os.environ, **hub.environment(tmp_path)})
        assert ("GET", "/owner/name/resolve/main/config.json") in hub.asked
"""

import base64
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Files = Mapping[str, bytes]

LARGE = (".bin", ".msgpack", ".onnx", ".parquet", ".pt", ".pth", ".safetensors", ".zip")
"""Endings that the hub keeps in its store for large files, to which `resolve` redirects."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the paths of requests that a pattern matches."""

    status: int = 200
    """An HTTP status to answer with instead; 401 and 403 are those of a gated repository."""

    cut: int | None = None
    """Bytes of the content after which the connection ends, though the header promised all."""

    content: bytes | None = None
    """Other bytes of the same number as the file's, so that only a checksum notices."""

    times: int = -1
    """How many GET requests have the fault, after which all is well; -1: every one."""


@dataclass
class Repository:
    """The commits of a repository, and the names that point to them."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    """Only requests with the token hf_test see it; to others it does not exist (401)."""

    def commit(self, files: Files, branch: str = "main") -> str:
        """Add a commit with these files to a branch; its name."""
        name = hashlib.sha1(self.refs.get(branch, "").encode())
        for path, data in sorted(files.items()):
            name.update(path.encode() + b"\0" + hashlib.sha1(data).digest())
        self.commits[name.hexdigest()] = dict(files)
        self.refs[branch] = name.hexdigest()
        return name.hexdigest()

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch, a tag, or the first letters of a commit; None: there is none."""
        if revision in self.refs:
            return self.refs[revision]
        whole = [commit for commit in self.commits if commit.startswith(revision)]
        return whole[0] if len(whole) == 1 and len(revision) >= 7 else None


class HubServer:
    """A hub at `address`, while its `with` block runs."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{port}"
        self.store = f"http://localhost:{port}/store"  # another host, as the hub's store has

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """Variables by which the hub's libraries use this server, and caches below a folder."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "no_proxy": "*",
        }

    def add(self, name: str, content: Path | Files, kind: str = "model") -> str:
        """Commit a folder, or contents by path, to a repository's main branch; its commit."""
        files = content if isinstance(content, Mapping) else _read_folder(content)
        return self.repositories.setdefault(f"{kind}s/{name}", Repository()).commit(files)

    def fault(self, path: str, method: str) -> Fault:
        """The fault of a request, if any is set for it; counts its times down."""
        for pattern, fault in self.faults.items():
            if fault.times and fnmatchcase(path, pattern):
                if fault.times > 0 and method == "GET":
                    self.faults[pattern] = Fault(
                        fault.status, fault.cut, fault.content, fault.times - 1
                    )
                return fault
        return Fault()


@pytest.fixture
def hub() -> Any:
    """A hub on this machine, empty; pass `hub.environment(folder)` to the process that uses it."""
    with HubServer() as server:
        yield server


def _read_folder(folder: Path) -> Files:
    """The contents of the files below a folder, by relative path."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _blob_id(data: bytes) -> str:
    """The name that git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _etag(path: str, data: bytes) -> str:
    """The hub's ETag: SHA-256 of files in its store for large ones, git's name of others."""
    return hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else _blob_id(data)


def _described(path: str, data: bytes) -> dict[str, Any]:
    """A file as a tree of the hub lists it."""
    entry = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        return entry | {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}}
    return entry


def _tree(files: Files, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The files and folders below a folder, all or only its own."""
    prefix = f"{folder}/" if folder else ""
    below = {path: data for path, data in files.items() if path.startswith(prefix)}
    folders = {
        prefix + "/".join(parts[: depth + 1])
        for path in below
        for parts in [path.removeprefix(prefix).split("/")[:-1]]
        for depth in range(len(parts))
    }
    listed = [
        {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
        for name in sorted(folders)
    ] + [_described(path, data) for path, data in sorted(below.items())]
    return [entry for entry in listed if recursive or "/" not in entry["path"].removeprefix(prefix)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    headers: Message

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *_: object) -> None:
        """Keep the tests' output free of a line per request."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self._read_body()
        self.form = parse_qs(self.body.decode("utf-8", "replace"))
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.query = parse_qs(address.query)
        self.hub.asked.append((self.command, path))
        self.hub.ranges += self.headers.get_all("Range", [])
        fault = self.hub.fault(path, self.command)
        if fault.status in (401, 403):
            self._fail(fault.status, "GatedRepo", "Access to this repository is restricted")
        elif fault.status != 200:
            self._fail(fault.status, "EntryNotFound" if fault.status == 404 else "", "a fault")
        elif path == "/":
            self._send(b"a hub")
        elif path.startswith("/files/"):
            self._send_file(path.removeprefix("/files/"), self.hub.files, fault)
        elif path.startswith("/store/"):
            self._send_stored(path.removeprefix("/store/"), fault)
        elif self.command in ("POST", "PUT") and "/paths-info/" not in path:
            self._take(path)
        elif path.startswith("/api/"):
            self._api(path.removeprefix("/api/"))
        else:
            self._resolve(path.strip("/"), fault)

    def _read_body(self) -> bytes:
        """The content of a request, of a length that was told or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _take(self, path: str) -> None:
        """What changes the hub, for the token that may."""
        if path.startswith("/lfs/"):  # the address itself is the permission, as in the hub's store
            oid = path.removeprefix("/lfs/")
            if hashlib.sha256(self.body).hexdigest() != oid:
                return self._fail(400, "", "Checksum mismatch")
            self.hub.uploads[oid] = self.body
            return self._send(b"")
        token = self._token()
        if token != "hf_test":
            status = 403 if token == "hf_read" else 401
            return self._fail(status, "", "You don't have the rights required to do this")
        if path == "/api/validate-yaml":
            return self._validate_card(json.loads(self.body)["content"])
        if path == "/api/repos/create":
            return self._create(json.loads(self.body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(self.body)["objects"])
        repository, (action, revision, *_) = self._repository(path.split("/")[2:])
        if repository is None:
            return self._fail(404, "RepoNotFound", "Repository not found")
        branch = unquote(revision)
        if action == "branch":
            if branch in repository.refs:
                return self._fail(409, "", "Reference already exists")
            repository.refs[branch] = repository.refs["main"]
            return self._send_json({}, repository.refs[branch])
        if branch not in repository.refs:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        if action == "preupload":
            return self._choose_ways(repository.refs[branch])
        return self._commit(repository, path.split("/commit/")[0], branch)

    def _token(self) -> str:
        """The token of a request; empty: none."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _validate_card(self, text: str) -> None:
        """Whether a card's metadata is YAML with values that the hub knows."""
        import yaml

        about = yaml.safe_load(text.split("---\n")[1])
        wrong = [] if about["pipeline_tag"] == "image-classification" else ["pipeline_tag"]
        wrong += ["license"] if about.get("license") == "wrong" else []
        errors = [{"message": f'"{name}" is not valid'} for name in wrong]
        self._send(
            json.dumps({"errors": errors, "warnings": []}).encode(),
            400 if errors else 200,
            {"Content-Type": "application/json"},
        )

    def _create(self, asked: Mapping[str, Any]) -> None:
        """A new repository; one that exists is not touched."""
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.address}/{name}"}
        if f"models/{name}" in self.hub.repositories:
            return self._fail(409, "", "You already created this model repo", more=url)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        repository = self.hub.repositories[f"models/{name}"] = Repository(private=private)
        return self._send_json(url, repository.commit({".gitattributes": b""}))

    def _choose_ways(self, commit: str) -> None:
        """Which files are for the store for large ones."""
        asked = json.loads(self.body)["files"]
        ways = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked
        ]
        self._send_json({"files": ways}, commit)

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        """Where to put large files; those that are here already need not come again."""
        wanted = [
            {"oid": each["oid"], "size": each["size"]}
            | (
                {}
                if each["oid"] in self.hub.uploads
                else {"actions": {"upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"}}}
            )
            for each in objects
        ]
        answer = json.dumps({"transfer": "basic", "objects": wanted}).encode()
        self._send(answer, 200, {"Content-Type": "application/vnd.git-lfs+json"})

    def _commit(self, repository: Repository, base: str, branch: str) -> None:
        """The operations of a commit, one a line, on a branch or for a new pull request."""
        files = dict(repository.commits[repository.refs[branch]])
        for line in self.body.decode().splitlines():
            key, value = (operation := json.loads(line))["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
            elif key != "header":
                return self._fail(400, "", f"no operation of tests: {key}")
        url, page = f"{self.hub.address}/{base.removeprefix('/api/models/')}", {}
        if self.query.get("create_pr") == ["1"]:
            repository.refs["refs/pr/1"] = repository.refs[branch]
            branch, page = "refs/pr/1", {"pullRequestUrl": f"{url}/discussions/1"}
        commit = repository.commit(files, branch)
        answer = {"success": True, "commitOid": commit, "commitUrl": f"{url}/commit/{commit}"}
        return self._send_json(answer | page, commit)

    def _repository(self, words: list[str]) -> tuple[Repository | None, list[str]]:
        """The repository that the first words of a path name, and the words after its name."""
        kind = words.pop(0) if words[0] in ("datasets", "models", "spaces") else "models"
        for length in (2, 1):
            name = "/".join([kind, *words[:length]])
            repository = self.hub.repositories.get(name)
            if repository and (not repository.private or self._token() == "hf_test"):
                return repository, words[length:]
        return None, words

    def _api(self, path: str) -> None:
        """Facts of a repository (``[/revision/REV]``), its tree, or facts of some paths."""
        words = path.split("/")
        kind, may_write = words[0], self._token() == "hf_test"
        if path == "whoami-v2":
            is_known = may_write or self._token() == "hf_read"
            return self._send(b'{"name": "ann"}') if is_known else self._fail(401, "", "Invalid")
        repository, rest = self._repository(words)
        if repository is None:
            return self._fail(401, "RepoNotFound", "Repository not found")
        if rest == ["auth-check", "write"]:
            status = 403 if self._token() == "hf_read" else 401
            return self._send(b"{}") if may_write else self._fail(status, "", "No right to write")
        action, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        commit = repository.commit_of(revision)
        if commit is None:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if action == "tree":
            folder = "/".join(rest[2:])
            recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
            return self._send_json(_tree(files, folder, recursive), commit)
        if action == "paths-info":
            entries = _tree(files, "", recursive=True)
            return self._send_json(
                [entry for entry in entries if entry["path"] in self.form.get("paths", ())], commit
            )
        name = path.removeprefix(f"{kind}/").split("/revision/")[0]
        siblings = [{"rfilename": file} for file in sorted(files)]
        facts = {"id": name, "sha": commit, "private": repository.private, "siblings": siblings}
        return self._send_json({"_id": commit[:24], "gated": False, "tags": [], **facts}, commit)

    def _resolve(self, path: str, fault: Fault) -> None:
        """The content of a file at a revision, or a redirect to the store for large ones."""
        repository, rest = self._repository(path.split("/"))
        if repository is None:
            return self._fail(401, "RepoNotFound", "Repository not found")
        if len(rest) < 3 or rest[0] != "resolve":
            return self._fail(404, "", "Not found")
        commit = repository.commit_of(rest[1])
        if commit is None:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        name = "/".join(rest[2:])
        files = repository.commits[commit]
        if name not in files:
            return self._fail(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        about = {"X-Repo-Commit": commit}
        if not name.endswith(LARGE):
            return self._send_file(name, files, fault, about)
        etag = _etag(name, files[name])
        linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(files[name]))}
        to = {"Location": f"{self.hub.store}/{etag}/{name}"}
        return self._send(b"", 302, about | linked | to)

    def _send_stored(self, path: str, fault: Fault) -> None:
        """A large file by its SHA-256, as the redirect of `resolve` names it."""
        etag, _, name = path.partition("/")
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                if name in files and _etag(name, files[name]) == etag:
                    return self._send_file(name, files, fault)
        return self._fail(404, "EntryNotFound", "Entry not found")

    def _send_file(
        self, name: str, files: Files, fault: Fault, about: Mapping[str, str] | None = None
    ) -> None:
        """A file, or the part of it that was asked for, with its faults."""
        if name not in files:
            return self._fail(404, "EntryNotFound", "Entry not found")
        whole = files[name]
        data = whole if fault.content is None else _of_size(fault.content, len(whole))
        headers = {**(about or {}), "ETag": f'"{_etag(name, whole)}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if not asked:
            return self._send(data, 200, headers, fault.cut)
        first, _, last = asked.partition("-")
        start = int(first) if first else len(data) - int(last)
        end = min(int(last), len(data) - 1) if first and last else len(data) - 1
        if start >= len(data):
            return self._send(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._send(data[start : end + 1], 206, headers, fault.cut)

    def _send_json(self, value: object, commit: str) -> None:
        about = {"Content-Type": "application/json", "X-Repo-Commit": commit}
        self._send(json.dumps(value).encode(), 200, about)

    def _fail(
        self,
        status: int,
        code: str,
        message: str,
        about: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        errors = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        body = json.dumps({"error": message, **(more or {})}).encode()
        self._send(body, status, {"Content-Type": "application/json", **errors, **(about or {})})

    def _send(
        self,
        data: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        if cut is not None:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


def _of_size(data: bytes, size: int) -> bytes:
    """Data repeated or cut to a number of bytes."""
    return (data * (size // max(len(data), 1) + 1))[:size].ljust(size, b"\0")
