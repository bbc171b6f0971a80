"""Data sets of the Hugging Face hub, by name: ``hub:NAME[@CONFIGURATION][@REVISION]``.

Without a revision it is the newest commit of the main branch. The commit that was read belongs to
the source's name from then on, so that a run that is resumed or repeated reads the same images.
"""

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from resnets.data.digests import ImageDigests, digests_of_bytes
from resnets.data.sources.names import listed, split_of
from resnets.data.sources.parquet import choose_columns, labelled_splits
from resnets.data.splits import SourceContent
from resnets.errors import ContentError, UsageError, require
from resnets.files.reading import read_input
from resnets.images.opening import MAX_BYTES

HUB = "hub:"  # before names of data sets of the hub
_NAME = re.compile(r"[\w.-]*\w(/\w[\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 5  # seconds for the hub to respond; its library would try for half a minute


class HubStorage:
    """Encoded images in a column of a datasets.Dataset, which maps its files into memory."""

    def __init__(self, dataset: Any, column: str, origin: str) -> None:
        """Store a column of a data set; the name of an image is origin[row]."""
        image = require("datasets", "hub").Image(decode=False)
        self.dataset = dataset.select_columns([column]).cast_column(column, image)
        self.column = column
        self.origin = origin

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> bytes:
        """The bytes of a row, or of the file it points to."""
        image = self.dataset[index][self.column] or {}
        if image.get("bytes") is not None:
            return bytes(image["bytes"])
        if not image.get("path"):
            raise ContentError("holds no image bytes")
        try:
            return read_input(image["path"], MAX_BYTES)
        except OSError as error:
            raise ContentError(f"cannot be read ({error.strerror or error})") from None

    def name(self, index: int) -> str:
        """The origin and the row."""
        return f"{self.origin}[{index}]"

    def digests(self, index: int) -> ImageDigests:
        """The digests of a row's bytes."""
        return digests_of_bytes(self.read(index))


@dataclass(frozen=True)
class _Address:
    """Which data set of the hub is meant.

    Attributes:
        source: how the user wrote it, for messages.
        name: OWNER/NAME, or NAME.
        configuration: empty for the data set's own default.
        revision: a commit, branch or tag; empty for the newest commit.
    """

    source: str
    name: str
    configuration: str = ""
    revision: str = ""

    @property
    def commit(self) -> str:
        """The revision if it is a whole commit, which always means the same images; else empty."""
        return self.revision if _COMMIT.fullmatch(self.revision) else ""

    @property
    def full_name(self) -> str:
        """The name with all that is known, such as hub:owner/name@plain@v1."""
        return HUB + "@".join(filter(None, (self.name, self.configuration, self.revision)))

    @classmethod
    def parse(cls, source: str) -> "_Address":
        """Read ``hub:NAME``, followed by at most @CONFIGURATION and @REVISION.

        A single word that is no whole commit counts as a configuration until the hub is asked.

        >>> _Address.parse("hub:owner/name@plain@v1").revision
        'v1'

        Raises:
            UsageError: it is not such a name.
        """
        name, *words = source.removeprefix(HUB).split("@", 2)
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{source}: {name!r} is not a name of the hub; write it as in hub:uoft-cs/cifar10"
            )
        if not all(words):
            raise UsageError(
                f"{source}: nothing follows an @; write hub:NAME@REVISION, hub:NAME@CONFIGURATION "
                "or hub:NAME@CONFIGURATION@REVISION"
            )
        if len(words) == 1 and _COMMIT.fullmatch(words[0]):
            words = ["", *words]
        return cls(source, name, *words)


class _OutageError(ContentError):
    """The hub fails to answer, so that a copy in the cache has to do."""


class _RefusedError(UsageError):
    """The hub does not give a data set away (any more), so that a copy has to do."""


def without_commit(source: str) -> str:
    """A source's name without the commit that was read, if it is one of the hub.

    >>> without_commit("hub:name@" + "0" * 40), without_commit("hub:name@v1"), without_commit("x")
    ('hub:name', 'hub:name@v1', 'x')
    """
    name, _, last = source.rpartition("@")
    return name if source.startswith(HUB) and _COMMIT.fullmatch(last) else source


def read_hub(source: str) -> SourceContent:
    """Read ``hub:NAME[@CONFIGURATION][@REVISION]`` with the datasets library.

    Returns:
        The images. `SourceContent.source` is the name with the commit that was read.

    Raises:
        MissingExtra: the library is not installed.
        UsageError: the hub has no such data set, configuration or revision.
        ContentError: the hub cannot be reached and the cache has no copy, or it has no labelled
            images.
    """
    address, datasets = _load(_Address.parse(source))
    splits: dict[str, Any] = {}
    ignored = []
    for name, dataset in datasets.items():
        split = split_of(str(name))
        if split is None or split in splits:
            ignored.append(str(name))
        else:
            splits[split] = dataset
    if not splits and len(datasets) == 1:
        splits, ignored = {"all": next(iter(datasets.values()))}, []
    if not splits:
        raise ContentError(f"{source}: no split is called train; it has {listed(ignored)}")
    first = next(iter(splits.values()))
    columns = choose_columns(first.features.arrow_schema, first.features.to_dict(), source)
    storages = {
        split: HubStorage(dataset, columns.image, f"{source} {split}")
        for split, dataset in splits.items()
    }
    labels = {split: dataset.data.column(columns.label) for split, dataset in splits.items()}
    images, warnings = labelled_splits(columns, storages, labels, source)
    left_out = (f"splits ignored: {listed(ignored)}",) if ignored else ()
    declared = bool(columns.class_names)
    others = {name: partial(_values_of, splits, name) for name in first.column_names}
    return SourceContent(
        "hub", images, left_out + warnings, declared, others, _name_of(address, first)
    )


def _values_of(splits: Mapping[str, Any], name: str, split: str) -> list[Any]:
    """The values of one column of a split."""
    values: list[Any] = splits[split].data.column(name).to_pylist()
    return values


def _name_of(address: _Address, dataset: Any) -> str:
    """The name of what was read, with its commit, by which the library's cache names a folder.

    Raises:
        ContentError: it is another commit than was asked for, as where the hub fails on the way
            and the library turns to its cache without a word.
    """
    folders = {Path(file["filename"]).parent.name for file in dataset.cache_files}
    revision = next((name for name in folders if _COMMIT.fullmatch(name)), address.commit)
    cached = replace(address, revision=revision)
    if address.commit and revision != address.commit:
        raise ContentError(
            f"{address.source}: the hub failed to send commit {address.commit}, and the cache has "
            f"another one; try again, or ask for that: {cached.full_name}"
        )
    return cached.full_name if revision else address.source


def _load(address: _Address) -> tuple[_Address, Any]:
    """The splits of a data set by name; and its address, with the commit if the hub was asked."""
    datasets, hub = require("datasets", "hub"), require("huggingface_hub.constants", "hub")
    if address.name in getattr(datasets.packaged_modules, "_PACKAGED_DATASETS_MODULES", ()):
        raise UsageError(
            f"{address.source}: {address.name!r} is a file format to the datasets library, which "
            "would read files here; write the owner too, such as hub:uoft-cs/cifar10"
        )
    try:
        if hub.HF_HUB_OFFLINE or not _responds(hub.ENDPOINT):
            raise _OutageError(f"{address.source}: the hub cannot be reached")
        address = _resolved(address)
    except (_OutageError, _RefusedError) as error:
        copy = _load_copy(address)
        if copy is None:
            at = f" of {address.revision}" if address.revision else ""
            kind = ContentError if isinstance(error, _OutageError) else UsageError
            raise kind(
                f"{error}, and there is no copy{at} in the cache "
                f"({datasets.config.HF_DATASETS_CACHE}); connect once, or download its parquet "
                "files elsewhere and pass their folder"
            ) from None
        return address, copy
    return address, _load_named(address)


def _resolved(address: _Address) -> _Address:
    """The address with the commit that the hub has for it now.

    Raises:
        UsageError: the hub has no such revision.
        _OutageError, _RefusedError: the hub does not tell.
    """
    commit = _newest(address)
    if commit is None:
        raise UsageError(
            f"{address.source}: the hub has no revision {address.revision!r} of it; a revision is "
            "a commit, branch or tag"
        )
    if address.configuration and not address.revision:
        configurations = _configurations(address, commit)
        if address.configuration not in configurations:
            address = replace(address, configuration="", revision=address.configuration)
            commit = _newest(address)
            if commit is None:
                raise UsageError(
                    f"{address.source}: {address.revision!r} is neither a revision (a commit, "
                    "branch or tag) nor a configuration of it on the hub; configurations: "
                    f"{listed(configurations)}"
                )
    return replace(address, revision=commit)


def _newest(address: _Address) -> str | None:
    """The commit of a revision; None if there is no such revision.

    Raises:
        _OutageError, _RefusedError: the hub does not tell.
    """
    hub, errors = require("huggingface_hub", "hub"), require("huggingface_hub.errors", "hub")
    try:
        facts = hub.HfApi().dataset_info(address.name, revision=address.revision or None)
    except errors.RevisionNotFoundError:
        return None
    except errors.GatedRepoError:
        raise _RefusedError(
            f"{address.source}: only users who were granted access on its page get it from the "
            "hub; log in (hf auth login, or HF_TOKEN)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise _RefusedError(
            f"{address.source}: the hub has no such data set, or it is private (hf auth login, or "
            "HF_TOKEN)"
        ) from None
    except Exception as error:  # of the HTTP client, as in `_errors_of`
        raise _outage(address, error) from None
    commit: str | None = facts.sha
    return commit


def _outage(address: _Address, error: Exception) -> _OutageError:
    """An error of the connection to the hub, in a line."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return _OutageError(f"{address.source}: the hub fails to answer ({reason})")


@contextlib.contextmanager
def _errors_of(address: _Address) -> Iterator[None]:
    """Turn the library's errors into this package's."""
    datasets, errors = require("datasets", "hub"), require("huggingface_hub.errors", "hub")
    try:
        yield
    except (ConnectionError, errors.HfHubHTTPError) as error:
        raise _outage(address, error) from None
    except (datasets.exceptions.DatasetsError, FileNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{address.source}: cannot be loaded: {reason}") from None
    except Exception as error:  # of the HTTP client, which is another in each of its versions
        raise _outage(address, error) from None


def _configurations(address: _Address, commit: str) -> list[str]:
    """The names of a data set's configurations."""
    with _errors_of(address):
        names = require("datasets", "hub").get_dataset_config_names(
            _remote_name(address.name), revision=commit
        )
    return list(names)


def _load_named(address: _Address) -> Any:
    """Load a data set at the address's commit from the hub, or as far as the cache has it."""
    with _errors_of(address):
        return require("datasets", "hub").load_dataset(
            _remote_name(address.name),
            address.configuration or None,
            revision=address.revision or None,
        )


def _load_copy(address: _Address) -> Any | None:
    """Load a data set from the library's cache; None if it has none of that revision.

    The library would give its latest copy, whatever the revision; see `_cached_at`.
    """
    datasets: Any = require("datasets", "hub")
    hub: Any = require("huggingface_hub.constants", "hub")
    before = hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    try:
        hub.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return _cached_at(address) if address.revision else _load_named(address)
    except _OutageError:
        return None
    finally:
        hub.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _cached_at(address: _Address) -> Any | None:
    """The copy of a commit in the library's cache; None if there is none, or of which is unsure."""
    datasets = require("datasets", "hub")
    cache = require("datasets.packaged_modules.cache.cache", "hub").Cache
    owner, _, last = address.name.rpartition("/")
    folder = "___".join(filter(None, (owner, datasets.naming.camelcase_to_snakecase(last))))
    pattern = f"{folder}/{address.configuration or '*'}/*/{address.commit or '-'}"
    copies = list(Path(datasets.config.HF_DATASETS_CACHE).glob(pattern))
    if len(copies) != 1:
        return None
    configuration, version = copies[0].parts[-3:-1]
    builder = cache(
        dataset_name=last,
        repo_id=address.name,
        config_name=configuration,
        version=version,
        hash=address.commit,
    )
    return builder.as_dataset()


def _remote_name(name: str) -> str:
    """The name by which the library uses the hub, even if a local folder has the same name."""
    return f"hf://datasets/{name}" if Path(name).exists() else name


def _responds(address: str) -> bool:
    """Whether a server responds at an address, directly or through the environment's proxy."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT).close()
    except urllib.error.HTTPError:  # a response, though an error
        return True
    except OSError:
        return False
    return True
