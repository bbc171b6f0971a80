"""Files of torchvision's networks, from its server and in torch.hub's cache.

They lie in hub/checkpoints in $TORCH_HOME. A file's name has the first digits of its SHA-256.
$RESNETS_TORCHVISION_URL names a mirror: a folder of files with the same names.
"""

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from resnets.errors import ContentError
from resnets.files.folders import library_cache
from resnets.pretrained.files import Files, is_offline, sha256
from resnets.pretrained.reference import Reference
from resnets.pretrained.table import Published

_CHUNK = 1 << 16  # bytes
_CONNECTING = 3  # seconds until the server takes the connection
_PATIENCE = 20  # seconds without a byte from then on
_REFUSED = (401, 403, 407)


class _Patient(http.client.HTTPConnection):
    """A connection that waits longer for bytes than for the server."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_PATIENCE)


class _PatientTLS(_Patient, http.client.HTTPSConnection):
    """The same, encrypted."""


class _HTTP(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Patient, req)


class _HTTPS(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PatientTLS, req)


def torchvision_files(reference: Reference, again: bool = False) -> Files:
    """The file of torchvision's weights.

    Args:
        reference: its id.
        again: download it again if the copy is damaged.

    Raises:
        ContentError: there is neither a copy nor a network, or what came is not what was published.
    """
    row = reference.row
    assert row is not None  # as `read_reference` makes sure
    target = cached_file(row)
    digest = sha256(target) if target.is_file() else ""
    if digest and not digest.startswith(row.sha256) and not again:
        raise ContentError(
            f"{target}: damaged: its SHA-256 begins with {digest[:8]}, not {row.sha256} "
            f"(`resnets fetch {reference}` downloads it again)"
        )
    if not digest.startswith(row.sha256):
        digest = _fetched(reference, row, target)
    return Files(target, digest, "", row.url)


def cached_file(row: Published) -> Path:
    """Where torch.hub's cache has the file of a row, if it has it."""
    return library_cache("TORCH_HOME", "torch") / "hub" / "checkpoints" / Path(row.url).name


def _fetched(reference: Reference, row: Published, target: Path) -> str:
    """Download a file into the cache. Returns its SHA-256; raises as `torchvision_files` does."""
    base, _, name = row.url.rpartition("/")
    url = f"{os.environ.get('RESNETS_TORCHVISION_URL', base).rstrip('/')}/{name}"
    partial = target.with_name(f"{name}.part")
    by_hand = (
        f"and there is no copy: put {row.url} into {target.parent}; or run `resnets fetch "
        f"{reference} --to FOLDER` where there is a network, and give that folder in place of the "
        "id"
    )
    if is_offline():
        raise ContentError(f"{reference}: downloads are switched off, {by_hand}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, partial)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _REFUSED:
            raise ContentError(
                f"{reference}: {url} may not be downloaded from here ({error.code}): ask who runs "
                f"that server, or name a mirror in RESNETS_TORCHVISION_URL, or put {row.url} into "
                f"{target.parent} yourself"
            ) from None
        raise ContentError(f"{reference}: {url} answers with an error: {error.code}") from None
    except http.client.IncompleteRead:
        raise ContentError(
            f"{reference}: {url} came incomplete; the next attempt goes on from there"
        ) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException):
        raise ContentError(f"{reference}: {url} is not reached, {by_hand}") from None
    except OSError as error:
        raise ContentError(
            f"{reference}: the cache of torch.hub, {target.parent}, cannot be written to "
            f"({error.strerror or error}); set TORCH_HOME to a folder that can be written to"
        ) from None
    digest = sha256(partial)
    if not digest.startswith(row.sha256):
        partial.unlink()
        raise ContentError(
            f"{reference}: what came from {url} is damaged or was changed: its SHA-256 begins with "
            f"{digest[:8]}, not {row.sha256}; nothing was kept"
        )
    partial.replace(target)
    return digest


def _download(url: str, target: Path) -> None:
    """Download a file, from where an interrupted attempt ended, with a progress bar at a terminal.

    Raises:
        OSError, HTTPException: as urllib does; what has come so far stays in `target`.
        IncompleteRead: the content broke off or came to a halt.
    """
    from rich.console import Console
    from rich.progress import Progress

    start = target.stat().st_size if target.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.build_opener(_HTTP, _HTTPS).open(request, timeout=_CONNECTING)
    except urllib.error.HTTPError as error:
        if start and error.code == 416:  # nothing is left to send, or the file has changed
            error.close()
            return
        raise
    console = Console(stderr=True)
    with response, Progress(console=console, disable=not console.is_terminal) as progress:
        goes_on = response.status == 206
        missing = int(response.headers.get("Content-Length") or 0)
        done = start if goes_on else 0
        task = progress.add_task(target.stem, total=(missing + done) or None, completed=done)
        with target.open("ab" if goes_on else "wb") as file:
            while part := _next_part(response, missing):
                file.write(part)
                progress.advance(task, len(part))
                missing -= len(part)
        if missing > 0 and response.headers.get("Content-Length"):
            raise http.client.IncompleteRead(b"", missing)


def _next_part(response: http.client.HTTPResponse, missing: int) -> bytes:
    """The next bytes of an answer of which so many are missing. Raises IncompleteRead."""
    try:
        return response.read1(_CHUNK)  # what has come, so that it is kept
    except (TimeoutError, ConnectionError):
        raise http.client.IncompleteRead(b"", missing) from None
