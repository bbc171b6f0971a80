"""The model file of a published network, so that every command takes it as any other.

It is made once, from the publisher's files, and kept in the cache folder of this package.
"""

import contextlib
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from resnets.data.membership import Generation, TrainedOn
from resnets.errors import ContentError, UsageError
from resnets.escaping import say
from resnets.files.folders import temporary_folder, warn_of_cache, writing_to_cache
from resnets.files.reading import read_text
from resnets.files.writing import write_atomically
from resnets.images import Preprocessing
from resnets.integrity import DIGEST, verify_file
from resnets.model_file import (
    Description,
    is_model_file,
    read_description,
    read_header,
    save,
)
from resnets.networks.checkpoints.foreign import load_checkpoint
from resnets.networks.checkpoints.hub_folder import (
    CONFIG,
    PREPROCESSOR,
    HubFolder,
    read_hub_folder,
    read_table,
)
from resnets.pretrained.files import Files, model_folder, sha256
from resnets.pretrained.hub import hub_files, is_hub_cached
from resnets.pretrained.names import class_names
from resnets.pretrained.reference import Reference
from resnets.pretrained.table import Published, is_non_commercial
from resnets.pretrained.torchvision import cached_file, torchvision_files

if TYPE_CHECKING:
    from resnets.networks import ResNet

_FORM = 2  # raised when a model file made today would differ from yesterday's
_ACCEPTED = "accepted-licences.txt"
_UNKNOWN = "not stated"
_TRAINED_ON = {1000: "ImageNet-1k", 11821: "ImageNet-12k", 21843: "ImageNet-21k"}


def open_published(
    reference: Reference, *, again: bool = False, accept_licence: bool = False
) -> Path:
    """The model file of a published network; downloaded and made if it is not in the cache.

    Args:
        reference: its id.
        again: ask for the newest version, and replace a damaged copy.
        accept_licence: the user accepts a licence for non-commercial use, now and later.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        UsageError: there is no such network, this user may not have it, or its licence is for
            non-commercial use and was not accepted.
        ContentError: it can be neither found nor downloaded, or it is damaged.
    """
    row = reference.row
    if row is not None:  # before anything is downloaded
        _check_licence(reference, row.licence, accept_licence)
    published = torchvision_files if reference.host == "torchvision" else hub_files
    files = published(reference, again)
    if files.weights.suffix == ".safetensors" and is_model_file(files.weights):
        ancestor = TrainedOn.from_dict(read_description(files.weights).trained_on).origin
        _check_licence(reference, ancestor.get("licence", ""), accept_licence)
        return files.weights
    config = read_table(files.config) if files.config else {}
    licence = row.licence if row else _licence_of(config, files.card)
    _check_licence(reference, licence, accept_licence)
    target = _place(reference.name, files, row)
    if not _is_usable(target, whole=again):
        origin = {"id": reference.id, "licence": licence, "url": files.url}
        origin |= {"commit": files.commit} if files.commit else {}
        origin |= {"sha256": files.sha256}
        if row is not None and row.top1 is not None:
            origin |= {"top1": f"{row.top1} %", "top1_source": row.source}
        content = _read_published(reference, files.weights)
        return _save(target, reference.id, content, origin)
    return target


def is_in_cache(reference: Reference) -> bool:
    """Whether the files of a published network are on this machine; they may be damaged."""
    if reference.host == "hub":
        return is_hub_cached(reference)
    return cached_file(cast("Published", reference.row)).is_file()


def open_folder(folder: Path) -> Path:
    """The model file of a folder with the config.json of timm or transformers, which is kept, too.

    Raises:
        ContentError: it holds no network of this family, or images are prepared otherwise than this
            package can.
    """
    hub_folder = read_hub_folder(folder)
    beside = {name: folder / name for name in (CONFIG, PREPROCESSOR) if (folder / name).is_file()}
    files = Files(
        hub_folder.weights,
        sha256(hub_folder.weights),
        "",
        "",
        beside.get(CONFIG),
        beside.get(PREPROCESSOR),
    )
    name = folder.resolve().name
    target = _place(name, files, None)
    if not _is_usable(target):
        licence = _licence_of((read_table(files.config) if files.config else {}), None)
        origin = {"folder": name, "licence": licence, "sha256": files.sha256}
        return _save(target, name, _read(hub_folder, str(folder)), origin)
    return target


def _place(name: str, files: Files, row: Published | None) -> Path:
    """Where the model file is kept: another one for each version of what it is made from."""
    versions = [str(_FORM), files.sha256, files.commit, repr(row)]
    versions += [read_text(path) for path in (files.config, files.preprocessor) if path]
    key = hashlib.sha256("\0".join(versions).encode()).hexdigest()[:16]
    return model_folder() / key / f"{name.rpartition('/')[2]}.safetensors"


def _is_usable(path: Path, whole: bool = False) -> bool:
    """Whether the cache has a model file; not where it may not be looked into, or is cut off.

    Args:
        path: of the file.
        whole: look for damage anywhere in it, as those do who load it; else in its header alone.
    """
    try:
        digest = read_header(path).get(DIGEST)
        if whole:
            verify_file(path, digest)
    except (OSError, ContentError):
        return False
    return True


@dataclass(frozen=True)
class _PublishedNetwork:
    """A network with what belongs to it; class names are empty if its publisher gives none.

    `training_size` is the side of its training images in pixels; None if that is unknown or the
    side of those to predict.
    """

    network: "ResNet"
    preprocessing: Preprocessing
    class_names: tuple[str, ...] = ()
    training_size: int | None = None


def _read(hub_folder: HubFolder, name: str) -> _PublishedNetwork:
    """What a folder holds; its notes are told. Raises ContentError."""
    for note in hub_folder.notes:
        say(f"{name}: {note}", file=sys.stderr)
    return _PublishedNetwork(
        hub_folder.network(),
        hub_folder.preprocessing,
        hub_folder.class_names,
        hub_folder.training_size,
    )


def _read_published(reference: Reference, weights: Path) -> _PublishedNetwork:
    """The network of an id. Raises ContentError."""
    if reference.host == "hub":
        return _read(read_hub_folder(weights.parent), str(reference))
    row = cast("Published", reference.row)
    trained = row.train_size if row.train_size != row.size else None
    return _PublishedNetwork(load_checkpoint(weights), _preprocessing(row), training_size=trained)


def _save(target: Path, source: str, content: _PublishedNetwork, origin: Mapping[str, str]) -> Path:
    """Write the model file of a published network; where the cache takes none, elsewhere.

    Returns:
        Where it is.
    """
    architecture = content.network.architecture
    classes = architecture.num_classes
    history = Generation(
        _TRAINED_ON.get(classes, ""), unknown="its publisher gives no list of them", origin=origin
    )
    trained = {"training_size": content.training_size} if content.training_size else {}
    description = Description(
        architecture.to_dict(),
        _class_names(content.class_names, classes),
        content.preprocessing,
        data={"source": source} | trained,
        trained_on=TrainedOn((history,)).to_dict(),
    )
    for place in (target, temporary_folder() / target.name):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            save(place, content.network, description)
            break
        except OSError as error:
            if place != target:
                raise
            warn_of_cache(error)
    return place


def _class_names(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """Names for the logits, each another: those that came with the weights, or ImageNet's."""
    if len(set(names)) == classes:
        return names
    if imagenet_names := class_names(classes):
        return imagenet_names
    counts = Counter(names)
    numbered = enumerate(names or ("class",) * classes)
    return tuple(f"{name} {number}" if counts[name] != 1 else name for number, name in numbered)


def _preprocessing(row: Published) -> Preprocessing:
    """The preprocessing that torchvision prescribes."""
    return Preprocessing(
        row.size,
        row.resize,
        row.mean,
        row.std,
        interpolation=row.interpolation,
        crop_mode=row.crop_mode,
        crop_rounding="even",
    )


def _licence_of(config: Mapping[str, Any], card: Path | None) -> str:
    """The licence that a publisher's files name."""
    own = config.get("pretrained_cfg")
    if isinstance(own, dict) and isinstance(own.get("license"), str):
        return str(own["license"])
    text = read_text(card, errors="replace") if card else ""
    match = re.search(r"\A---\n(?:.*\n)*?license: *([\w.-]+)", text)
    return match[1] if match else _UNKNOWN


def _check_licence(reference: Reference, licence: str, accept: bool) -> None:
    """Refuse weights for non-commercial use, unless the user accepts that, or did so before.

    Raises:
        UsageError: neither is so.
    """
    if not is_non_commercial(licence):
        return
    record, line = model_folder() / _ACCEPTED, f"{reference.id} {licence}"
    accepted: list[str] = []
    with contextlib.suppress(OSError):  # none was accepted yet, or the cache cannot be read
        accepted = read_text(record).splitlines()
    if line in accepted:
        return
    if not accept:
        raise UsageError(
            f"{reference}: licence {licence}: for non-commercial use only; `resnets fetch "
            f"{reference} --accept-licence` accepts that, after which every command takes it"
        )
    with writing_to_cache():
        record.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(record, os.linesep.join([*accepted, line, ""]).encode())
