"""One function that opens labelled images, whatever the source."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resnets.data.archives import ARCHIVE, cifar_folder, read_cifar
from resnets.data.checks import (
    Checked,
    check_classes,
    check_images,
    check_names,
    missing_classes,
    repeated_images,
)
from resnets.data.digits import read_digits
from resnets.data.folders import read_folder
from resnets.data.hub import read_hub
from resnets.data.idx import NAME, idx_sets, read_idx
from resnets.data.labelled import LabelledImages
from resnets.data.names import has_image_ending, is_hidden
from resnets.data.parquet import read_parquet
from resnets.data.splits import AS_NOW, RULE, Drawing, Parts, Splits, counts, draw, fingerprint
from resnets.data.tables import TABLE_ENDINGS, read_table
from resnets.errors import UsageError

__all__ = ["LabelledImages", "Parts", "Splits", "open_data", "read_parts"]

SOURCES = (
    "data is digits, a folder of class folders, parquet files, CIFAR's archives for Python, IDX "
    "files, a .csv or .tsv of path,label, or hub:NAME"
)


def open_data(
    source: str | Path,
    *,
    validation: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    test: float = 0.1,
    test_seed: int = 0,
    to_learn: bool = True,
    drawing: Drawing = AS_NOW,
) -> Splits:
    """Open labelled images and split them honestly.

    Where the source has its own validation or test split, that is taken as it is. Else the test
    split is drawn from all images and the validation split from what is then left to learn from:
    the given fraction of every class, by the images' content and a seed. The test split has a seed
    of its own, so that networks trained with different seeds are scored on the same images, none of
    which any of them has learnt.

    Args:
        source: see `read_parts`.
        validation: fraction to draw, in [0, 1); with 0 there is no validation split.
        seed: draws the validation split.
        skip_unreadable: leave images out that cannot be read, after decoding every one.
        test: fraction to draw if the source has no test split, in [0, 1); 0 for none.
        test_seed: draws the test split.
        to_learn: whether a network shall learn from it. If not, one class is enough, some may be
            empty, and a source that has but a test or validation split is taken as all its images.
        drawing: by which rule to know images and to draw, where it is that of an earlier version.

    Raises:
        UsageError: no such source, or an argument that is not allowed.
        ContentError: the source cannot be learnt from as it is; the message says what to do.
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0 <= fraction < 1:
            raise UsageError(f"{name}: {fraction} is not a fraction in [0, 1)")
    parts = read_parts(source) if to_learn else whole(read_parts(source))
    check_names(str(source), parts.class_names)
    checked = {name: check_images(part, skip_unreadable) for name, part in parts.images.items()}
    warnings = list(parts.warnings)
    if to_learn:
        warnings += check_classes(str(source), parts, checked)
    if not validation and "validation" in checked:
        left_out = len(checked["validation"].images)
        warnings.append(f"the {left_out} validation images of the source are left out")
    splits, origins = arrange(checked, (validation, seed), (test, test_seed), drawing)
    images = {name: part.images for name, part in splits.items()}
    number = {name: counts(part) for name, part in images.items()}
    prints = {rule: fingerprint_of(parts.class_names, checked, rule) for rule in (1, RULE)}
    made = {"source": str(source), "kind": parts.kind, **origins, "counts": number}
    return Splits(
        train=images["train"],
        validation=images.get("validation"),
        test=images.get("test"),
        class_names=parts.class_names,
        fingerprint=prints[drawing.rule],
        split=made | drawing.to_dict(),
        skipped=tuple(problem for part in checked.values() for problem in part.skipped),
        warnings=(*warnings, *missing_classes(splits), *repeated_images(splits)),
        digests={name: part.digests for name, part in splits.items()},
        fingerprints=prints,
    )


def fingerprint_of(class_names: Sequence[str], parts: Mapping[str, Checked], rule: int) -> str:
    """The fingerprint of a source by a rule of `Drawing`."""
    content = {name: (part.images.labels, part.known_by(rule)) for name, part in parts.items()}
    return fingerprint(class_names, content)


def whole(parts: Parts) -> Parts:
    """The same, but a test or validation split that is alone as all images."""
    (first, *others), (only, *_) = parts.images.keys(), parts.images.values()
    return parts if others or first == "train" else replace(parts, images={"all": only})


def arrange(
    parts: Mapping[str, Checked],
    validation: tuple[float, int],
    test: tuple[float, int],
    drawing: Drawing,
) -> tuple[dict[str, Checked], dict[str, Any]]:
    """Draw the splits that a source lacks.

    Args:
        parts: the source's own splits, or "all".
        validation: fraction and seed.
        test: fraction and seed.
        drawing: by which rule.

    Returns:
        The splits in the order train, validation, test, and where the last two are from.
    """
    learning = parts["all"] if "all" in parts else parts["train"]
    drawn: dict[str, Checked] = {}
    origins: dict[str, Any] = {"validation": None, "test": None}
    wishes = {"test": ("all", *test), "validation": ("train", *validation)}
    for name, (whence, fraction, seed) in wishes.items():
        if name in parts and (fraction or name == "test"):
            drawn[name], origins[name] = parts[name], {"from": "source"}
        elif fraction and name not in parts:
            chosen = draw_from(learning, fraction, f"{name} {seed} ", drawing)
            drawn[name], learning = learning.subset(chosen), learning.subset(~chosen)
            origins[name] = {"from": whence, "fraction": fraction, "seed": seed}
    splits = {"train": learning} | drawn
    return {
        name: splits[name] for name in ("train", "validation", "test") if name in splits
    }, origins


def draw_from(
    part: Checked, fraction: float, key: str, drawing: Drawing
) -> "np.ndarray[tuple[int], np.dtype[np.bool]]":
    """Choose a fraction of every class of a part, as a mask (N,): see `draw`."""
    alone = np.arange(len(part.images)) if drawing.rule == 1 else None
    return draw(part.images.labels, part.known_by(drawing.rule), fraction, key, alone)


def read_parts(source: str | Path) -> Parts:
    """What a source holds, in its own splits, neither checked nor split further.

    Args:
        source: "digits"; a folder of class folders, or one of parquet files, of IDX files or of
            CIFAR's unpacked batches; a single such file; CIFAR's archive; a table of path and
            label; or "hub:" and the name of a data set of the Hugging Face hub.

    Raises:
        UsageError: there is no such file, or it is none of these.
        ContentError: it is one of these, but broken.
    """
    if source == "digits":
        return read_digits()
    if isinstance(source, str) and source.startswith("hub:"):
        return read_hub(source)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder; {SOURCES}")
    return read_from_folder(path) if path.is_dir() else read_from_file(path)


def read_from_folder(path: Path) -> Parts:
    """Tell what a folder is by what lies in it."""
    unpacked = cifar_folder(path)
    if unpacked:
        return read_cifar(unpacked)
    if idx_sets(path):
        return read_idx(path)
    for _, _, files in os.walk(path):  # ends at the first image, so a large folder costs nothing
        visible = [name for name in files if not is_hidden(name)]
        if any(name.endswith(".parquet") for name in visible):
            return read_parquet(path)
        if any(map(has_image_ending, visible)):
            break
    return read_folder(path)


def read_from_file(path: Path) -> Parts:
    """Tell what a file is by its name."""
    if path.suffix.lower() in TABLE_ENDINGS:
        return read_table(path)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path)
    if NAME.fullmatch(path.name):
        return read_idx(path)
    if ARCHIVE.fullmatch(path.name):
        return read_cifar(path)
    raise UsageError(f"{path}: no source of labelled images by its name; {SOURCES}")
