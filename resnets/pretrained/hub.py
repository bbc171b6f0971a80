"""Files of networks on the hub of Hugging Face, by its own library.

They lie where that keeps them: in $HF_HUB_CACHE, or hub in $HF_HOME. So a network that timm or
transformers has downloaded is not downloaded again. A copy in the cache is used without a request.
"""

import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnets.errors import ContentError, MissingExtra, UsageError, require
from resnets.escaping import say
from resnets.model_file import is_model_file
from resnets.networks.catalog import nearest
from resnets.networks.checkpoints.hub_folder import CONFIG, PREPROCESSOR, WEIGHTS, read_table
from resnets.pretrained.files import Files, hub_folder, is_offline, sha256
from resnets.pretrained.hub_part import download_part
from resnets.pretrained.reference import Reference
from resnets.pretrained.table import published

_CARD = "README.md"
_BROKEN_OFF = ("RemoteProtocolError", "ReadError", "ReadTimeout")  # of several HTTP libraries
_PATIENCE = 3  # seconds until the hub tells what it has


@dataclass(frozen=True)
class _Repository:
    """A network on the hub.

    Attributes:
        reference: its id.
        endpoint: address of the hub, or of a mirror.
        revision: commit, branch or tag.
    """

    reference: Reference
    endpoint: str
    revision: str

    @property
    def page(self) -> str:
        """Where people read about it."""
        return f"{self.endpoint}/{self.reference.name}"

    def url(self, name: str) -> str:
        """Where a file is."""
        return f"{self.page}/resolve/{self.revision}/{name}"


def hub_endpoint() -> str:
    """The address of the hub, or of the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of huggingface_hub comes from; None if it has none."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    status: int | None = getattr(response, "status_code", None)
    return status


def hub_files(reference: Reference, again: bool = False) -> Files:
    """The files of a network on the hub.

    Args:
        reference: its id.
        again: ask for the newest version, and download the weights again if the copy is damaged;
            if the hub is not reached, the copy will do, which a line says.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        UsageError: there is no such network, or this user may not have it.
        ContentError: there is neither a copy nor a network, or what came is not what was published.
    """
    require("huggingface_hub", "pretrained")
    source = _Repository(reference, hub_endpoint(), reference.revision or "main")
    paths = _cached(source)
    if (again and not is_offline()) or not _is_enough(paths):
        paths = _downloaded(source, paths, again)
    weights = next(paths[name] for name in WEIGHTS if paths.get(name))
    assert weights is not None  # as `_is_enough` and `_downloaded` make sure
    at_commit = replace(source, revision=commit_of(weights))
    return Files(
        weights,
        _checked(at_commit, weights, again),
        at_commit.revision,
        at_commit.url(weights.name),
        *(paths.get(name) for name in (CONFIG, PREPROCESSOR, _CARD)),
    )


def commit_of(file: Path) -> str:
    """The commit of a file in the cache.

    >>> commit_of(Path("hub/models--owner--name/snapshots/c0ffee/model.safetensors"))
    'c0ffee'
    """
    return file.parent.name


def is_hub_cached(reference: Reference) -> bool:
    """Whether the cache has all files of a network. False without huggingface_hub."""
    try:
        return _is_enough(_cached(_Repository(reference, "", reference.revision or "main")))
    except MissingExtra:
        return False


def _cached(source: _Repository) -> dict[str, Path | None]:
    """The files in the cache by name; None where it is known that the repository has none."""
    lookup = require("huggingface_hub", "pretrained").try_to_load_from_cache
    paths = {
        name: lookup(source.reference.name, name, cache_dir=hub_folder(), revision=source.revision)
        for name in (*WEIGHTS, CONFIG, PREPROCESSOR, _CARD)
    }
    answers = {name: path for name, path in paths.items() if path is not None}
    return {name: Path(path) if isinstance(path, str) else None for name, path in answers.items()}


def _is_enough(paths: dict[str, Path | None]) -> bool:
    """Whether the files in the cache make a network, without asking the hub for more."""
    usable = _is_usable(paths)
    complete = PREPROCESSOR in paths or _is_of_timm(paths.get(CONFIG))
    return usable and (complete or is_offline() or _is_model_file(paths))


def _is_of_timm(config: Path | None) -> bool:
    """Whether a config.json is of timm's kind, which says how images are prepared, too."""
    return config is not None and "architecture" in read_table(config)


def _is_model_file(paths: dict[str, Path | None]) -> bool:
    """Whether the weights are a model file of this package, which needs no other file."""
    weights = paths.get(WEIGHTS[0])
    return weights is not None and is_model_file(weights)


def _is_usable(paths: dict[str, Path | None]) -> bool:
    return any(paths.get(name) for name in WEIGHTS) and CONFIG in paths


def _downloaded(
    source: _Repository, cached: dict[str, Path | None], again: bool
) -> dict[str, Path | None]:
    """The files by name, from the hub; those in the cache if it cannot be reached.

    Raises:
        UsageError, ContentError: as `hub_files`.
    """
    try:
        names = _names(source)
    except ContentError:
        if not _is_usable(cached):
            raise
        if again:
            copy = "the copy in the cache is taken; there may be a newer version"
            say(f"{source.endpoint} is not reached: {copy}", file=sys.stderr)
        return cached
    weights = next((name for name in WEIGHTS if name in names), None)
    if weights is None:
        raise UsageError(f"{source.reference}: has neither {' nor '.join(WEIGHTS)} ({source.page})")
    paths: dict[str, Path | None] = dict.fromkeys((CONFIG, PREPROCESSOR))
    for name in (weights, CONFIG, PREPROCESSOR, _CARD):
        if name in names:
            path = _download(source, name)
            source = replace(source, revision=path.parent.name)  # the others of the same commit
            paths[name] = path
    return paths


def _names(source: _Repository) -> set[str]:
    """The names of a repository's files, in one attempt. Raises as `hub_files`."""
    if is_offline():
        raise ContentError(_by_hand(source))
    api = require("huggingface_hub", "pretrained").HfApi(endpoint=source.endpoint)
    try:
        facts = api.model_info(source.reference.name, revision=source.revision, timeout=_PATIENCE)
    except Exception as error:  # of the HTTP client, which is another in each version
        raise _explained(source, error) from None
    return {file.rfilename for file in facts.siblings or ()}


def _download(source: _Repository, name: str, force: bool = False) -> Path:
    """The path of a file, which is downloaded if it is not in the cache. Raises as `hub_files`."""
    utils = require("huggingface_hub.utils", "pretrained")
    utils.logging.set_verbosity_error()  # what goes wrong is told by this package
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    try:
        if name in WEIGHTS and not force:
            repository = source.reference.name
            download_part(repository, name, source.revision, source.endpoint, _PATIENCE)
        path = require("huggingface_hub", "pretrained").hf_hub_download(
            source.reference.name,
            name,
            revision=source.revision,
            cache_dir=hub_folder(),
            endpoint=source.endpoint,
            etag_timeout=_PATIENCE,
            force_download=force,
        )
    except ContentError:
        raise
    except Exception as error:  # of the HTTP client, which is another in each version
        raise _explained(source, error, name) from None
    return Path(path)


def _explained(source: _Repository, error: Exception, name: str = "") -> Exception:
    """The error of a request, such as for the file of this name, in words of this package."""
    errors: Any = require("huggingface_hub.errors", "pretrained")
    this = source.reference
    status = status_of(error)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return UsageError(
            f"{this}: not open to everybody: agree to its terms at {source.page}, and give "
            "your token in HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"{this}: has no revision {source.revision} ({source.page})")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return UsageError(
            f"{this}: the hub has no such network, or it is private (then give your token in "
            f"HF_TOKEN): {source.page}; `resnets list --pretrained` names those that are known"
            f"{_nearest_id(this)}"
        )
    if status is not None:
        return ContentError(f"{this}: {source.endpoint} answers with an error: {status}")
    broke_off = type(error).__name__ in _BROKEN_OFF or "Consistency check failed" in str(error)
    if broke_off and name:  # before there is a download, the hub is not reached
        return ContentError(
            f"{this}: the download of {name} broke off; the next attempt goes on from what has come"
        )
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return ContentError(
            f"{this}: the cache of the hub, {hub_folder()}, cannot be written to "
            f"({error.strerror}: {error.filename}); set HF_HUB_CACHE to a folder that can be "
            "written to"
        )
    return ContentError(_by_hand(source))


def _nearest_id(reference: Reference) -> str:
    """The end of an error: the most similar ids of the same owner; empty if the table has none."""
    owner = reference.id.partition("/")[0] + "/"
    alike = [row.id for row in published() if row.id.startswith(owner)]
    return nearest(reference.id, alike) if alike and reference.row is None else ""


def _by_hand(source: _Repository) -> str:
    """What to do where the hub cannot be reached."""
    why = "downloads are switched off" if is_offline() else f"{source.endpoint} is not reached"
    if near := _nearest_id(source.reference):
        why = f"`resnets list --pretrained` does not have it{near}. If it is on the hub: {why}"
    return (
        f"{source.reference}: {why}, and there is no copy in {hub_folder()}; put "
        f"{source.url(CONFIG)} and {source.url(WEIGHTS[0])} in a folder, and give that folder "
        f"in place of the id; or run `resnets fetch {source.reference} --to FOLDER` where there "
        "is a network, and bring that folder here"
    )


def _checked(source: _Repository, weights: Path, again: bool) -> str:
    """The SHA-256 of the weights, which is that under which the cache keeps them.

    Raises:
        ContentError: the file is another.
    """
    published, actual = weights.resolve().name, sha256(weights)
    if not re.fullmatch("[0-9a-f]{64}", published):  # a system without links
        return actual
    if published != actual and again and not is_offline():
        actual = sha256(_download(source, weights.name, force=True))
    if published != actual:
        raise ContentError(
            f"{weights}: damaged: its SHA-256 begins with {actual[:12]}, and that which the hub "
            f"published with {published[:12]} (`resnets fetch {source.reference}` "
            "downloads it again)"
        )
    return actual
