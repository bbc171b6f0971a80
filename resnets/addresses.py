"""Addresses such as https://... and s3://...: of shards where data are meant, else refused by name.

The address of a folder of shards is read by ranges: see `resnets.data.remote`.
"""

import os
import re
import socket
from pathlib import Path

from resnets.errors import UsageError

# a path keeps one of the two slashes, or backslashes; a single letter is a drive of Windows
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\]+(.*)", re.DOTALL)
_HUB = re.compile(r"(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+(?:/[\w.-]+)?)", re.ASCII)

_HUB_FILE = re.compile(r"/resolve/.+\.(?:tar|parquet)", re.IGNORECASE)  # one file of a data set

_REMOTE = ("http", "https", "s3", "gs")  # schemes that are read by ranges
_ONE_FILE = re.compile(r"\.(zip|gz|tgz|jpe?g|png|csv|tsv)", re.IGNORECASE)

_PATIENCE = 10.0  # seconds for a connection

AS_DATA = (
    "download it and give the path of its folder or file (a data set of the Hugging Face hub is "
    "hub:NAME), or give the address, http(s)://, s3:// or gs://, of a folder that `resnets shard` "
    "has written, or of a .tar or .parquet file"
)
AS_FILE = "download the file and give its path"
AS_IMAGE = "download it and give its path"
AS_SHARDS = "give a folder here, or that of a bucket: s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
AS_OUTPUT = "write a file or folder here, and copy it from there"


def _match(text: str | bytes) -> re.Match[str] | None:
    """The parts of an address; None for a path."""
    match = _ADDRESS.match(text) if isinstance(text, str) else None
    return None if match is None or Path(match[0]).exists() else match


def is_remote(word: str | os.PathLike[str]) -> bool:
    """Whether a word is the address of a folder that can be read by ranges.

    >>> is_remote("s3://bucket/shards"), is_remote("photos"), is_remote("ftp://example.org/photos")
    (True, False, False)

    Raises:
        UsageError: it is an address of the kind, but has a password or a query in it, which would
            get into logs and files; or no host; or it is that of a single file or of a page of the
            hub.
    """
    match = _match(os.fspath(word))
    if match is None or match[1].lower() not in _REMOTE:
        return False
    shown, _, rest = match[0].partition("://")
    host, _, path = rest.partition("/")
    if "@" in host or "?" in rest or "#" in rest:
        bare = f"{shown}://{host.rpartition('@')[2]}/{re.split('[?#]', path)[0]}"
        raise UsageError(
            f"{bare}: an address with a user, a query or a fragment in it; give it without, as it "
            "gets into logs and model files (credentials are taken from the environment)"
        )
    if not host:
        form = "HOST" if shown.lower().startswith("http") else "BUCKET"
        raise UsageError(f"{match[1]}:/...: no whole address; write {match[1]}://{form}/FOLDER")
    page = _HUB.match(rest)
    is_page = page is not None and not _HUB_FILE.fullmatch(rest, page.end())
    if is_page or _ONE_FILE.fullmatch(Path(path).suffix):
        refuse_address(word, AS_DATA)
    return True


def refuse_address(word: str | os.PathLike[str], what_to_do: str) -> None:
    """Refuse an address where a path is meant; a path that exists is none.

    Args:
        word: what was given.
        what_to_do: instead; see above.

    Raises:
        UsageError: it is an address.

    >>> refuse_address("C:/photos", AS_DATA)
    >>> refuse_address("s3://bucket/photos", AS_DATA)
    Traceback (most recent call last):
    resnets.errors.UsageError: s3://bucket/photos: an address, and none is opened: download it ...
    """
    text = os.fspath(word)
    match = _match(text)
    if match is None:
        return
    scheme, rest = match[1].lower(), match[2].replace("\\", "/")
    on_hub = _HUB.match(rest)
    if scheme == "file":
        what_to_do = "give the path alone, without file://"
    elif what_to_do == AS_DATA and (on_hub or scheme == "hf"):
        name = on_hub[1] if on_hub else rest.removeprefix("datasets/")
        what_to_do = f"a data set of the Hugging Face hub is hub:{name}"
    elif what_to_do == AS_IMAGE and scheme in ("http", "https"):
        what_to_do += f", or pass it on: `curl -L {match[1]}://{rest} | resnets predict -`"
    raise UsageError(f"{match[1]}://{rest}: an address, and none is opened: {what_to_do}")


def why_unreachable(host: str, port: int) -> str:
    """Why a port cannot be connected to; empty if it can.

    Libraries of others may try for minutes, in silence.
    """
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} seconds"
    except (OSError, OverflowError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""
