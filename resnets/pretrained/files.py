"""The files of a published network, on this machine."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from resnets.files.folders import cache_folder, in_home, library_cache
from resnets.files.reading import open_input

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_LARGEST = 1 << 36  # bytes


@dataclass(frozen=True)
class Files:
    """The files of a published network on this machine.

    Attributes:
        weights: a .safetensors, .bin or .pth.
        sha256: of the weights.
        commit: of the hub's repository; empty elsewhere.
        url: where the weights are from.
        config: config.json; None if there is none.
        preprocessor: preprocessor_config.json; None if there is none.
        card: README.md; None if there is none.
    """

    weights: Path
    sha256: str
    commit: str
    url: str
    config: Path | None = None
    preprocessor: Path | None = None
    card: Path | None = None


def is_offline() -> bool:
    """Whether the environment forbids downloads."""
    values = [os.environ.get(name, "").lower() for name in _OFFLINE]
    return any(value in ("1", "true", "yes", "on") for value in values)


def model_folder() -> Path:
    """Where the model files are kept that are made of published networks."""
    return cache_folder() / "pretrained"


def hub_folder() -> Path:
    """Where huggingface_hub keeps its files."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return in_home(folder)
    return library_cache("HF_HOME", "huggingface") / "hub"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open_input(path, _LARGEST) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
