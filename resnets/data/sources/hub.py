"""Data sets of the Hugging Face hub, by name."""

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from resnets.data.digests import Glance, glance_bytes
from resnets.data.sources.names import listed, split_of
from resnets.data.sources.parquet import choose_columns, labelled_splits
from resnets.data.splits import Parts
from resnets.errors import ContentError, UsageError, require
from resnets.files import read_input
from resnets.images.opening import MAX_BYTES

_NAME = re.compile(r"[\w.-]*\w(/\w[\w.-]*)?", re.ASCII)
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

    def glance(self, index: int) -> Glance:
        """The digests of a row's bytes."""
        return glance_bytes(self.read(index))


def read_hub(source: str) -> Parts:
    """Read ``hub:NAME`` or ``hub:NAME@CONFIGURATION`` with the datasets library.

    Raises:
        MissingExtra: the library is not installed.
        UsageError: the hub has no such data set or configuration.
        ContentError: the hub cannot be reached and the cache has no copy, or it has no labelled
            images.
    """
    datasets = _load(source)
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
    return Parts("hub", images, left_out + warnings, declared, others)


def _values_of(splits: Mapping[str, Any], name: str, split: str) -> list[Any]:
    """The values of one column of a split."""
    values: list[Any] = splits[split].data.column(name).to_pylist()
    return values


def _load(source: str) -> Any:
    """Load the splits of a data set, by name."""
    name, _, configuration = source.removeprefix("hub:").partition("@")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{source}: {name!r} is not a name of the hub; write it as in hub:uoft-cs/cifar10"
        )
    datasets, hub = require("datasets", "hub"), require("huggingface_hub", "hub").constants
    if name in getattr(datasets.packaged_modules, "_PACKAGED_DATASETS_MODULES", ()):
        raise UsageError(
            f"{source}: {name!r} is a file format to the datasets library, which would read files "
            "here; write the owner too, such as hub:uoft-cs/cifar10"
        )
    before = hub.HF_HUB_OFFLINE
    offline = before or not _responds(hub.ENDPOINT)
    try:
        datasets.config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = offline
        return datasets.load_dataset(_remote_name(name), configuration or None)
    except ConnectionError:
        raise ContentError(
            f"{source}: the hub cannot be reached, and there is no copy in the cache "
            f"({datasets.config.HF_DATASETS_CACHE}); connect once, or download its parquet files "
            "elsewhere and pass their folder"
        ) from None
    except (datasets.exceptions.DatasetsError, FileNotFoundError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{source}: cannot be loaded: {reason}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = hub.HF_HUB_OFFLINE = before


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
