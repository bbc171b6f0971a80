"""The model file of a published network, so that every command takes it as any other.

It is made once, from the publisher's files, and kept in the cache folder of this package.
"""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from resnets.data.membership import Generation, TrainedOn
from resnets.errors import ContentError, UsageError
from resnets.escaping import say
from resnets.files import read_text, write_atomically
from resnets.headers import parse_json
from resnets.images import Preprocessing
from resnets.model_file import Description, is_model_file, save
from resnets.networks.checkpoints.foreign import load_checkpoint
from resnets.networks.checkpoints.hub_folder import read_hub_folder
from resnets.pretrained.files import Files, model_folder
from resnets.pretrained.hub import hub_files
from resnets.pretrained.names import class_names
from resnets.pretrained.reference import Reference
from resnets.pretrained.table import Published, is_non_commercial
from resnets.pretrained.torchvision import torchvision_files

_FORM = 1  # raised when a model file made today would differ from yesterday's
_ACCEPTED = "accepted-licences.txt"
_UNKNOWN = "not stated"
_TRAINED_ON = {1000: "ImageNet-1k", 11821: "ImageNet-12k", 21843: "ImageNet-21k"}


def open_published(
    reference: Reference, *, again: bool = False, accept_licence: bool = False
) -> Path:
    """The model file of a published network; downloaded and made if it is not in the cache.

    Args:
        reference: its id.
        again: ask for the newest version.
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
        return files.weights
    config = _read_config(files.config)
    licence = row.licence if row else _licence_of(config, files.card)
    _check_licence(reference, licence, accept_licence)
    target = _place(reference.name, files, row)
    if not target.is_file():
        origin = {"id": reference.id, "licence": licence, "url": files.url}
        origin |= {"commit": files.commit} if files.commit else {}
        origin |= {"sha256": files.sha256}
        if row is not None and row.top1 is not None:
            origin |= {"top1": f"{row.top1} %", "top1_source": row.source}
        _make(target, reference, files, origin)
    return target


def _place(name: str, files: Files, row: Published | None) -> Path:
    """Where the model file is kept: another one for each version of what it is made from."""
    parts = [str(_FORM), files.sha256, files.commit, repr(row)]
    parts += [read_text(path) for path in (files.config, files.preprocessor) if path]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return model_folder() / key / f"{name.rpartition('/')[2]}.safetensors"


def _make(target: Path, reference: Reference, files: Files, origin: Mapping[str, str]) -> None:
    """Write the model file of a published network.

    Raises:
        ContentError: its files are no network of this family, or say nothing of its images.
    """
    if reference.host == "hub":
        parts = read_hub_folder(files.weights.parent)
        for note in parts.notes:
            say(f"{reference}: {note}", file=sys.stderr)
        network, seen, names = parts.network(), parts.preprocessing, parts.class_names
    else:
        row = cast("Published", reference.row)
        network, seen, names = load_checkpoint(files.weights), _preprocessing(row), ()
    classes = network.architecture.num_classes
    data = _TRAINED_ON.get(classes, "")
    history = Generation(data, unknown="its publisher gives no list of them", origin=origin)
    description = Description(
        network.architecture.to_dict(),
        _class_names(names, classes),
        seen,
        data={"source": reference.id},
        trained_on=TrainedOn((history,)).to_dict(),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    save(target, network, description)


def _class_names(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    """Names for the logits, each another: those that came with the weights, or ImageNet's."""
    if len(set(names)) == classes:
        return names
    if known := class_names(classes):
        return known
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


def _read_config(path: Path | None) -> dict[str, Any]:
    """A config.json; empty if there is none. Raises ContentError."""
    if path is None:
        return {}
    try:
        values = parse_json(read_text(path))
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ContentError(f"{path}: not a table")
    return values


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
    known = read_text(record).splitlines() if record.is_file() else []
    if line in known:
        return
    if not accept:
        raise UsageError(
            f"{reference}: licence {licence}: for non-commercial use only; `resnets fetch "
            f"{reference} --accept-licence` accepts that, after which every command takes it"
        )
    record.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(record, os.linesep.join([*known, line, ""]).encode())
