"""Opening labelled images from any source, and splitting them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnets.addresses import AS_DATA, is_remote, refuse_address
from resnets.data.grouping import Grouping, find_groups, group_warnings
from resnets.data.labelled import LabelledImages
from resnets.data.membership import TrainedOn, member_digests, ranks
from resnets.data.sources.archives import ARCHIVE, cifar_folder, read_cifar
from resnets.data.sources.checks import (
    Checked,
    changed_images,
    check_classes,
    check_images,
    check_names,
    empty_splits,
    missing_classes,
    refuse_several_labels,
    repeated_images,
    together,
)
from resnets.data.sources.digits import read_digits
from resnets.data.sources.folder_index import FolderIndex
from resnets.data.sources.folders import read_folder
from resnets.data.sources.hub import HUB, read_hub
from resnets.data.sources.idx import NAME, idx_sets, read_idx
from resnets.data.sources.layout import CLASSES_FIRST, UNSPECIFIED, Layout, layout_of_flags
from resnets.data.sources.names import has_image_ending
from resnets.data.sources.objects import Data, is_path, read_objects
from resnets.data.sources.parquet import may_hold_images, read_parquet
from resnets.data.sources.remote import read_address
from resnets.data.sources.rows import IN_MEMORY
from resnets.data.sources.shards import holds_shards, read_shards
from resnets.data.sources.tables import TABLE_ENDINGS, read_metadata, read_rows, read_table
from resnets.data.sources.walking import walk
from resnets.data.sources.webdataset import holds_samples, read_tars
from resnets.data.splits import (
    CURRENT_RULE,
    NEVER,
    RULE,
    Groups,
    SourceContent,
    SplitRule,
    Splits,
    assign_folds,
    counts,
    draw,
    fingerprint,
    merged,
)
from resnets.errors import UsageError
from resnets.format import bytes_of, plural

__all__ = [
    "IN_MEMORY",
    "Data",
    "DataSource",
    "LabelledImages",
    "SourceContent",
    "Splits",
    "open_data",
    "open_source",
    "read_source",
    "source_name",
]

_ORDER = ("all", "train", "validation", "test")  # of splits
_DATA_ENDINGS = TABLE_ENDINGS | {
    "",
    ".parquet",
    ".gz",
    ".tar",
}  # of files that may hold labelled images
_MODEL_ENDINGS = (".safetensors", ".onnx", ".pt2", ".pt", ".pth", ".th", ".ckpt")
_RUN = ("config.toml", "log.jsonl")  # what a run's folder holds

_SOURCES = (
    "data is digits, a folder of class folders, of shards or of parquet files, CIFAR's archives "
    "for Python, IDX files, a .csv or .tsv of path,label, or hub:NAME"
)


def open_data(
    source: Data,
    *,
    validation: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    test: float = 0.1,
    test_seed: int = 0,
    to_learn: bool = True,
    split_rule: SplitRule = CURRENT_RULE,
    avoid: TrainedOn | None = None,
) -> Splits:
    """Open labelled images and split them honestly.

    Where the source has its own validation or test split, that is taken as it is. Else the test
    split is drawn from all images and the validation split from what is then left to learn from:
    the given fraction of every class, by the images' content and a seed. The test split has a seed
    of its own, so that networks trained with different seeds are scored on the same images, none of
    which any of them has learnt.

    Args:
        source: see `read_source`.
        validation: fraction to draw, in [0, 1); with 0 there is no validation split.
        seed: draws the validation split.
        skip_unreadable: leave images out that cannot be read, after decoding every one.
        test: fraction to draw if the source has no test split, in [0, 1); 0 for none.
        test_seed: draws the test split.
        to_learn: whether a network shall learn from it. If not, one class is enough, some may be
            empty, and a source that has but a test or validation split is taken as all its images.
        split_rule: by which rule images are recognised and drawn; of an earlier version
            for the networks that it trained.
        avoid: what an earlier network has seen; see `DataSource.splits`.

    Raises:
        UsageError: no such source, or an argument that is not allowed.
        ContentError: no network can be trained on the source; the message says what to do.
    """
    layout = layout_of_flags(None, {}, split_rule.group_by)
    data_source = open_source(
        source, skip_unreadable=skip_unreadable, to_learn=to_learn, layout=layout
    )
    return data_source.splits((validation, seed), (test, test_seed), split_rule, avoid)


def open_source(
    source: Data,
    *,
    skip_unreadable: bool = False,
    to_learn: bool = True,
    layout: Layout = UNSPECIFIED,
) -> "DataSource":
    """Open labelled images and look at every one; what is split how is asked for later.

    Args:
        source: see `read_source`.
        skip_unreadable: as for `open_data`.
        to_learn: as for `open_data`.
        layout: what is known of a folder.

    Raises:
        UsageError, ContentError: as `open_data`.
    """
    if not to_learn and layout == UNSPECIFIED:
        layout = CLASSES_FIRST
    content = read_source(source, layout) if to_learn else _whole(read_source(source, layout))
    name = source_name(source, content)
    check_names(name, content.class_names)
    checked = check_images(content.images, skip_unreadable)
    warnings = (*content.warnings, *changed_images(checked))
    if to_learn:
        warnings = (*warnings, *check_classes(name, content, checked))
        refuse_several_labels(name, checked)
    stored_layout = UNSPECIFIED if layout == CLASSES_FIRST else layout
    return DataSource(name, content, checked, warnings, stored_layout)


def source_name(source: Data, content: SourceContent | None = None) -> str:
    """The name of a source in configurations, model files and reports.

    Args:
        source: see `read_source`.
        content: what it holds, where that was read before; of the hub's data sets only then with
            their commit.

    >>> source_name("digits")
    'digits'
    >>> source_name(read_source("digits"))
    'python: 1,797 images of 10 classes'
    """
    if content is not None and content.source:
        return content.source
    if is_path(source):
        return os.fspath(source)
    content = read_source(source) if content is None else content
    images = sum(map(len, content.images.values()))
    return content.source or f"{IN_MEMORY} {images:,} images of {len(content.class_names)} classes"


@dataclass(frozen=True)
class DataSource:
    """A source with checked images.

    Attributes:
        source: its name.
        content: its content.
        checked: by split of the source, or "all": the images that can be read.
        warnings: one sentence each.
        layout: what was said of its folders; the classes first goes without saying.
    """

    source: str
    content: SourceContent
    checked: Mapping[str, Checked]
    warnings: tuple[str, ...]
    layout: Layout = UNSPECIFIED

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Name and reason of each image that was left out."""
        return tuple(problem for part in self.checked.values() for problem in part.skipped)

    def everything(self) -> Checked:
        """All images of all the source's own splits."""
        return together([self.checked[name] for name in _ORDER if name in self.checked])

    def splits(
        self,
        validation: tuple[float, int] = (0.1, 0),
        test: tuple[float, int] = (0.1, 0),
        split_rule: SplitRule = CURRENT_RULE,
        avoid: TrainedOn | None = None,
    ) -> Splits:
        """Split it.

        Args:
            validation: fraction to draw, and seed.
            test: fraction to draw, and seed.
            split_rule: by which rule images are recognised and drawn.
            avoid: what an earlier network has seen. Nothing of it gets into test. Into validation
                gets nothing that it was trained on, and what it was validated on only where a
                class has too few other images. What is so left out of a split of the source's own
                is counted in `Splits.split`.

        Raises:
            UsageError: a fraction is not allowed, or the images cannot be grouped as asked.
        """
        _check_fractions(validation=validation[0], test=test[0])
        warnings = list(self.warnings)
        if not validation[0] and "validation" in self.checked and not split_rule.folds:
            left_out = len(self.checked["validation"].images)
            warnings.append(f"the source's {plural(left_out, 'validation image')} left out")
        grouping = self.grouping(split_rule.group_by)
        checked = self.checked if grouping is None else _in_groups(self.checked, grouping)
        warnings += [] if grouping is None else group_warnings(grouping)
        if split_rule.folds:
            splits, origins = _arrange_fold(
                checked, validation[1], split_rule, avoid or TrainedOn()
            )
        else:
            splits, origins = _arrange(checked, validation, test, split_rule, avoid or TrainedOn())
        images = {name: part.images for name, part in splits.items()}
        description = self._description_of(splits, origins)
        if grouping is not None:
            groups = {name: len(_set_of(part.groups)) for name, part in splits.items()}
            description["groups"] = groups
        return Splits(
            train=images["train"],
            validation=images.get("validation"),
            test=images.get("test"),
            class_names=self.content.class_names,
            fingerprint=self.fingerprints[split_rule.rule],
            split=description | split_rule.to_dict(),
            skipped=self.skipped,
            warnings=(*warnings, *missing_classes(splits), *repeated_images(splits)),
            not_drawn=tuple(empty_splits(splits, origins)),
            digests={name: part.digests for name, part in splits.items()},
            fingerprints=self.fingerprints,
            stored=self.stored,
        )

    def _description_of(
        self, splits: Mapping[str, Checked], origins: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the model file tells of the images: from where, and how many of each class."""
        description = {
            "source": self.source,
            "kind": self.content.kind,
            **origins,
            "counts": {name: counts(part.images) for name, part in splits.items()},
        }
        if self.layout != UNSPECIFIED:
            description["layout"] = self.layout.to_dict()
        return description

    def grouping(self, group_by: str | None) -> Grouping | None:
        """Which images belong together; None if that is not asked for.

        Raises:
            GroupingError: they cannot be grouped so.
        """
        if group_by is None:
            return None
        images = {name: part.images for name, part in self.checked.items()}
        return find_groups(self.content, images, group_by)

    @cached_property
    def fingerprints(self) -> dict[int, str]:
        """By rule, as `Splits` has them."""
        names, parts = self.content.class_names, self.checked.values()
        own = _fingerprint_of(names, self.checked, RULE)
        same = all(np.array_equal(part.earlier, part.digests) for part in parts)
        return {1: own if same else _fingerprint_of(names, self.checked, 1), RULE: own}

    @cached_property
    def stored(self) -> str:
        """As `Splits` has it."""
        content = {
            name: (part.images.labels, part.stored_digests) for name, part in self.checked.items()
        }
        if all(content[name][1] is part.digests for name, part in self.checked.items()):
            return self.fingerprints[RULE]
        return fingerprint(self.content.class_names, content)


def _in_groups(checked: Mapping[str, Checked], grouping: Grouping) -> dict[str, Checked]:
    """The images with the groups that they belong to."""
    return {name: replace(part, groups=grouping.numbers[name]) for name, part in checked.items()}


def _set_of(groups: Groups | None) -> set[int]:
    """The distinct numbers of groups."""
    return set() if groups is None else set(groups.tolist())


def _fingerprint_of(class_names: Sequence[str], parts: Mapping[str, Checked], rule: int) -> str:
    """The fingerprint of a source by a rule of `SplitRule`."""
    content = {name: (part.images.labels, part.known_by(rule)) for name, part in parts.items()}
    return fingerprint(class_names, content)


def _whole(content: SourceContent) -> SourceContent:
    """The same, but a test or validation split that is alone as all images."""
    (first, *others), (only, *_) = content.images.keys(), content.images.values()
    if others or first == "train":
        return content
    columns = {name: partial(_as_all, first, read) for name, read in content.columns.items()}
    return replace(content, images={"all": only}, columns=columns)


def _as_all(split: str, read: Callable[[str], Sequence[Any]], _: str) -> Sequence[Any]:
    """The values of a column where a split is taken as all images."""
    return read(split)


def _check_fractions(**fractions: float) -> None:
    """Check the fractions to draw, by split. Raises UsageError."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise UsageError(f"{name}: {fraction} is not a fraction in [0, 1)")


def _arrange(
    parts: Mapping[str, Checked],
    validation: tuple[float, int],
    test: tuple[float, int],
    split_rule: SplitRule,
    avoid: TrainedOn,
) -> tuple[dict[str, Checked], dict[str, Any]]:
    """Draw the splits that a source lacks.

    Args:
        parts: the source's own splits, or "all".
        validation: fraction and seed.
        test: fraction and seed.
        split_rule: by which rule.
        avoid: what an earlier network has seen.

    Returns:
        The splits in the order train, validation, test; and plain values: where the last two are
        from, and what of them was seen before.
    """
    parts = {name: _with_ranks(part, avoid) for name, part in parts.items()}
    learning = _to_learn_from(parts)
    drawn: dict[str, Checked] = {}
    origins: dict[str, Any] = {"validation": None, "test": None}
    wishes = {"test": ("all", *test), "validation": ("train", *validation)}
    left_out = {"test": 0, "validation": 0}
    for name, (whence, fraction, seed) in wishes.items():
        if name in parts and (fraction or name == "test"):
            drawn[name] = parts[name].subset(_unseen(parts[name], strictly=name == "test"))
            origins[name] = {"from": "source"}
            left_out[name] = len(parts[name].images) - len(drawn[name].images)
        elif fraction and name not in parts:
            strictly = name == "test"
            chosen = _draw_from(
                learning, fraction, f"{name} {seed} ", split_rule, strictly=strictly
            )
            drawn[name], learning = learning.subset(chosen), learning.subset(~chosen)
            origins[name] = {"from": whence, "fraction": fraction, "seed": seed}
    splits = {"train": learning} | drawn
    if avoid:
        origins["start_network"] = _overlap(splits, left_out)
    return {
        name: splits[name]
        for name in ("train", "validation", "test")
        if name in splits and (name == "train" or len(splits[name].images))
    }, origins


def _arrange_fold(
    parts: Mapping[str, Checked], seed: int, split_rule: SplitRule, avoid: TrainedOn
) -> tuple[dict[str, Checked], dict[str, Any]]:
    """All images but those of one fold to learn from, and that fold as the test split.

    A test split of the source's own is in no fold: it is the test split where no fold is left out.

    Args:
        parts: the source's own splits, or "all".
        seed: of the folds.
        split_rule: the folds, and which is left out.
        avoid: what an earlier network has seen, which is in no fold.

    Returns:
        As `_arrange`.
    """
    parts = {name: _with_ranks(part, avoid) for name, part in parts.items()}
    learning = [part for name, part in parts.items() if name != "test"]
    pool = together(learning or [_to_learn_from(parts)])
    rows = [row.tobytes() for row in pool.digests]
    groups = None if pool.groups is None else merged(pool.groups, rows)
    folds = assign_folds(
        pool.images.labels, pool.digests, split_rule.folds, f"fold {seed} ", groups, pool.ranks
    )
    held_out = (folds == split_rule.fold) & (folds > 0)
    splits, origin, left_out = {"train": pool.subset(~held_out)}, None, 0
    if split_rule.fold:
        splits["test"], origin = pool.subset(held_out), {"from": "fold"}
    elif "test" in parts:
        splits["test"] = parts["test"].subset(_unseen(parts["test"], strictly=True))
        origin = {"from": "source"}
        left_out = len(parts["test"].images) - len(splits["test"].images)
    origins: dict[str, Any] = {"validation": None, "test": origin}
    if avoid:
        origins["start_network"] = _overlap(splits, {"test": left_out, "validation": 0})
    return {name: part for name, part in splits.items() if name == "train" or len(part.images)}, (
        origins
    )


def _to_learn_from(parts: Mapping[str, Checked]) -> Checked:
    """The training images; none where a source that is only measured has but the other splits."""
    for name in ("all", "train"):
        if name in parts:
            return parts[name]
    other = next(iter(parts.values()))
    return other.subset(np.zeros(len(other.images), dtype=np.bool))


def _with_ranks(part: Checked, avoid: TrainedOn) -> Checked:
    """Images with what an earlier network has seen of them; as they are if there was none."""
    if not len(avoid.trained) and not len(avoid.validated):
        return part
    return replace(part, ranks=ranks(member_digests(part.images, part.digests), avoid))


def _draw_from(
    part: Checked, fraction: float, key: str, split_rule: SplitRule, *, strictly: bool
) -> NDArray[np.bool]:
    """Choose a fraction of every class, (N,): see `draw`; `strictly` only what was never seen."""
    groups = np.arange(len(part.images)) if split_rule.rule == 1 else None
    if groups is None and part.groups is not None:
        groups = merged(part.groups, [row.tobytes() for row in part.digests])
    turns = part.ranks
    if turns is not None and strictly:
        turns = np.where(turns > 0, np.int8(NEVER), turns)
    digests = part.known_by(split_rule.rule)
    return draw(part.images.labels, digests, fraction, key, groups, turns)


def _unseen(part: Checked, strictly: bool) -> NDArray[np.bool]:
    """Which images of a split of the source's own stay, (N,).

    Args:
        part: N images.
        strictly: only what was never seen. Else also what was validated on, in classes of which
            nothing else is left.
    """
    if part.ranks is None:
        return np.ones(len(part.images), dtype=np.bool)
    new: NDArray[np.bool] = part.ranks == 0
    if not strictly:
        bare = ~np.isin(part.images.labels, part.images.labels[new])
        new |= bare & (part.ranks < NEVER)
    return new


def _overlap(splits: Mapping[str, Checked], left_out: Mapping[str, int]) -> dict[str, Any]:
    """What an earlier network has seen of the splits, as counts by split: plain values for JSON."""
    ranked = {name: part.ranks for name, part in splits.items() if part.ranks is not None}
    return {
        "left_out": dict(left_out),
        "trained_on": {name: int((ranks == NEVER).sum()) for name, ranks in ranked.items()},
        "validated_on": {name: int((ranks == 1).sum()) for name, ranks in ranked.items()},
    }


def read_source(source: Data, layout: Layout = UNSPECIFIED) -> SourceContent:
    """What a source holds, in its own splits, neither checked nor split further.

    Args:
        source: "digits"; a folder of class folders, or one of shards, of parquet files, of IDX
            files or of CIFAR's unpacked batches; a single such file; CIFAR's archive; a table of
            path and label; "hub:" and the name of a data set of the Hugging Face hub, see
            `read_hub`; or the address of a folder of shards, such as s3://bucket/shards. Or what
            these hold, as values: labelled images, in splits of their own or not. Or what Python
            programs hold otherwise: see `objects.read_objects`.
        layout: what is known of the folders in a folder.

    Raises:
        UsageError: there is no such file, or it is none of these; or `read_folder` raises it.
        ContentError: it is one of these, but broken.
    """
    if isinstance(source, SourceContent | Splits | LabelledImages):
        return _content_of_values(source)
    if not is_path(source):
        return read_objects(source)
    content = _read_path(source, layout)
    if content.kind != "folder" and (layout.splits or (layout.class_level or 1) > 1):
        raise UsageError(
            f"{source}: no folder of images in folders, so --class-level and the flags that name "
            "folders of splits do not go with it; leave them out"
        )
    return content


def _read_path(source: str | os.PathLike[str], layout: Layout) -> SourceContent:
    """Read what a name or a path leads to."""
    refuse_missing(source)
    if source == "digits":
        return read_digits()
    if isinstance(source, str) and source.startswith(HUB):
        return read_hub(source)
    if isinstance(source, str) and source.startswith(IN_MEMORY):
        raise UsageError(
            f"{source}: these were given from Python, not by a path; give them again, as with "
            "resnets.resume(folder, data=...)"
        )
    if is_remote(source):
        return _read_address(os.fspath(source), 0)
    path = Path(source)
    return _read_from_folder(path, layout) if path.is_dir() else _read_from_file(path)


def with_cache(source: Data, size: str | None) -> Data:
    """The content of an address, with a cache of its images; any other source as it is.

    Args:
        source: see `read_source`.
        size: of the cache on the local disk, such as 50GB; None for no cache.

    Raises:
        UsageError: it is no size, or the source is on this machine already.
        ContentError: as `read_source`.
    """
    if size is None:
        return source
    limit = bytes_of(size)
    if is_path(source) and is_remote(source):
        return _read_address(os.fspath(source), limit)
    raise UsageError(f"--cache {size}: only what is read from an address has a cache")


def _read_address(address: str, cache_bytes: int) -> SourceContent:
    """Read what lies at an address, which is its name."""
    return replace(read_address(address, cache_bytes), source=address)


def refuse_missing(source: str | os.PathLike[str]) -> None:
    """Refuse a name or path that leads to no data, before any work.

    Raises:
        UsageError: it is empty, nothing is there, or a model is.
    """
    if not os.fspath(source):  # pathlib would take it as the current folder
        raise UsageError(f"no data given: the path is empty; {_SOURCES}")
    if isinstance(source, str) and (source == "digits" or source.startswith((HUB, IN_MEMORY))):
        return
    if is_remote(source):
        return
    path = Path(source)
    if not path.exists():
        refuse_address(source, AS_DATA)
        raise UsageError(f"{source}: no such file or folder; {_SOURCES}")
    _refuse_model(path)


def _refuse_model(path: Path) -> None:
    """Refuse the folder of a run, and a file of weights. Raises UsageError."""
    is_run = path.is_dir() and all((path / name).is_file() for name in _RUN)
    if is_run or path.suffix.lower() in _MODEL_ENDINGS:
        what = "the folder of a run" if is_run else "a model or its weights"
        raise UsageError(
            f"{path}: {what}, where labelled images belong; {_SOURCES} (to start a training from "
            f"its weights: resnets train DATA --from {path})"
        )


def _content_of_values(source: SourceContent | Splits | LabelledImages) -> SourceContent:
    """The content of labelled images in memory."""
    if isinstance(source, SourceContent):
        return source
    if isinstance(source, LabelledImages):
        return SourceContent("python", {"all": source})
    images = {"train": source.train, "validation": source.validation, "test": source.test}
    present = {name: part for name, part in images.items() if part is not None}
    return SourceContent("python", present, source.warnings)


def files_of(source: str | Path) -> Iterator[Path]:
    """The files that are read for a source: images, tables, archives; none if it has no files."""
    path = Path(source)
    if path.is_dir():
        for name in walk(path, ""):
            file = path / name
            known = file.suffix.lower() in _DATA_ENDINGS or NAME.fullmatch(file.name)
            if known or has_image_ending(name):
                yield file
    elif path.exists():
        yield path
        if path.suffix.lower() in TABLE_ENDINGS:
            yield from (path.parent / name for name in read_rows(path))


def _read_from_folder(path: Path, layout: Layout) -> SourceContent:
    """Read a folder, whose kind is recognised by its files."""
    if holds_shards(path):
        return read_shards(path)
    unpacked = cifar_folder(path)
    if unpacked:
        return read_cifar(unpacked)
    if idx_sets(path):
        return read_idx(path)
    index = FolderIndex(path)
    labels = None if layout != UNSPECIFIED else read_metadata(index)
    if labels is not None:
        return labels
    tables = False
    for name in index.files():  # ends at the first image, so a large folder costs nothing
        if name.lower().endswith(".parquet"):
            if may_hold_images(path / name):
                return read_parquet(path)
            tables = True
        elif name.lower().endswith(".tar") and holds_samples(path / name):
            return read_tars(path)
        elif has_image_ending(name):
            return read_folder(path, layout, index)
    return read_parquet(path) if tables else read_folder(path, layout, index)


def _read_from_file(path: Path) -> SourceContent:
    """Read a file, whose kind is recognised by its name."""
    if path.suffix.lower() in TABLE_ENDINGS:
        return read_table(path)
    if path.suffix.lower() == ".parquet":
        return read_shards(path.parent) if holds_shards(path.parent, path) else read_parquet(path)
    if NAME.fullmatch(path.name):
        return read_idx(path)
    if path.suffix.lower() == ".tar" and holds_samples(path):
        return read_tars(path)
    if ARCHIVE.fullmatch(path.name):
        return read_cifar(path)
    raise UsageError(f"{path}: no source of labelled images by its name; {_SOURCES}")
