"""Addresses such as https://... and s3://..., which no command opens: each is refused by name."""

import os
import re
from pathlib import Path

from resnets.errors import UsageError

# a path keeps one of the two slashes, or backslashes; a single letter is a drive of Windows
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):[/\\]+(.*)", re.DOTALL)
_HUB = re.compile(r"(?:www\.)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+(?:/[\w.-]+)?)", re.ASCII)

AS_DATA = (
    "download it and give the path of its folder or file (a data set of the Hugging Face hub is "
    "hub:NAME)"
)
AS_FILE = "download the file and give its path"
AS_IMAGE = "download it and give its path"
AS_OUTPUT = "write a file or folder here, and copy it from there"


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
    match = _ADDRESS.match(text) if isinstance(text, str) else None
    if match is None or Path(text).exists():
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
