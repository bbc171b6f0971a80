"""Finding the images that words stand for: files, folders, patterns, shards and packed files.

No torch here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob, has_magic
from pathlib import Path

from resnets.addresses import AS_IMAGE, is_remote, refuse_address
from resnets.data.sources.names import has_image_ending, is_hidden, printable
from resnets.data.sources.walking import HIDDEN, Listing, PassedOver, in_words, listing
from resnets.errors import UsageError
from resnets.evaluation.source import Source, StoredImage


@dataclass(frozen=True)
class Matches:
    """The images that a path or pattern stands for.

    Attributes:
        sources: the images, each once.
        passed_over: path and reason of each file beside them that is not an image.
    """

    sources: Sequence[Source]
    passed_over: Sequence[PassedOver] = ()


def find_images(words: Sequence[str]) -> list[Source]:
    """The images that paths and patterns stand for; folders are searched through.

    Args:
        words: paths and patterns such as ``photos/*.jpg`` and ``photos/**/*.jpg``, and folders and
            addresses of shards, of WebDataset's tar files and of parquet files.

    Raises:
        UsageError: there is no such file, or no image in a folder.
    """
    return [source for word in words for source in matching_images(word).sources]


def matching_images(word: str, cache: str | None = None) -> Matches:
    """The images of one path or pattern, and what is passed over: see `find_images`.

    Args:
        word: path, pattern, or the folder or address of shards, or of tar or parquet files.
        cache: for an address, how much of it to keep on the local disk, such as 50GB.
    """
    if not word:  # pathlib would take it as the current folder
        raise UsageError("no image given: the path is empty")
    if _holds_shards(word):
        return Matches(_stored_images(word, cache))
    paths, passed_over = [Path(word)], list[PassedOver]()
    if not paths[0].exists():
        paths, passed_over = _matching(word)
    matches = _images_of(paths)
    passed_over += matches.passed_over
    if matches.sources:
        return Matches(matches.sources, passed_over)
    if word == "digits" or word.startswith("hub:"):
        raise UsageError(
            f"{word}: a data set, and this takes images: give files, folders or patterns such as "
            "'photos/*.jpg'"
        )
    refuse_address(word, AS_IMAGE)
    folder = any(path.is_dir() for path in paths)
    if Path(word).is_dir() and any(_may_be_packed(name) for name, _ in passed_over):
        return Matches(_stored_images(word, None))  # or an error that says what is wrong with them
    beside = "".join(f"; {text}" for text in in_words(passed_over))
    what = "no image in this folder" if folder else "no such image, folder or pattern"
    raise UsageError(f"{word}: {what}{beside}")


def _images_of(paths: Sequence[Path]) -> Matches:
    """The images of files and folders, first those that are files, each once."""
    files: dict[Path, None] = {}
    packed: list[Source] = []
    passed_over: list[PassedOver] = []
    for path in paths:
        if path.is_dir():
            below = listing(path)
            files |= dict.fromkeys(sorted(path / name for name in below.images))
            others = list(below.passed_over)
            if not below.images and _holds_packed(path, [name for name, _ in others]):
                packed += _stored_images(str(path), None)
                others = [(name, why) for name, why in others if not _may_be_packed(name)]
            passed_over += [(str(path / name), why) for name, why in others]
        elif _holds_packed(path.parent, [path.name]):
            packed += _stored_images(str(path), None)
        else:
            files[path] = None
    singly = [Source(printable(str(file)), file) for file in files]
    return Matches([*singly, *packed], passed_over)


def _holds_shards(word: str) -> bool:
    """Whether a word is the folder or the address of shards."""
    if has_image_ending(word):
        refuse_address(word, AS_IMAGE)
    if is_remote(word):
        return True
    folder = Path(word)
    if not (folder / "index.parquet").is_file() and not any(folder.glob("*.shard-rows")):
        return False  # before pyarrow is imported
    from resnets.data.sources.shards import holds_shards

    return holds_shards(folder)


def _may_be_packed(name: str) -> bool:
    """Whether a file may hold many images, by its name."""
    return name.lower().endswith((".tar", ".parquet"))


def _holds_packed(folder: Path, names: Iterable[str]) -> bool:
    """Whether one of some files in a folder is a tar file of samples, or a table with images."""
    names = [*filter(_may_be_packed, names)]
    if not names:
        return False  # before pyarrow is imported
    from resnets.data.sources.parquet import may_hold_images
    from resnets.data.sources.webdataset import holds_samples

    def holds(file: Path) -> bool:
        return holds_samples(file) if file.suffix.lower() == ".tar" else may_hold_images(file)

    return any(holds(folder / name) for name in names)


def _stored_images(word: str, cache: str | None) -> list[Source]:
    """The images of shards and of packed files, by split, in the order in which they lie there."""
    from resnets.data.sources.opening import read_images

    parts = read_images(word, cache).images.values()
    return [
        Source(name, StoredImage(images.storage, row))
        for images in parts
        for row, name in zip(images.indices.tolist(), images.names, strict=True)
    ]


def _matching(word: str) -> tuple[list[Path], list[PassedOver]]:
    """The files and folders that a pattern matches, and what is passed over among them."""
    parts = Path(word).parts
    if "**" in parts:
        literal = next(place for place, part in enumerate(parts) if has_magic(part))
        return _searched(Path(*parts[:literal]), parts[literal:])
    matches = sorted(map(Path, glob(word)))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    hidden = {path for path in matches if is_hidden(path.name) and path.name != Path(word).name}
    passed_over = [(str(path), HIDDEN) for path in matches if path in hidden]
    return [path for path in matches if path not in hidden], passed_over


def _searched(folder: Path, pattern: Sequence[str]) -> tuple[list[Path], list[PassedOver]]:
    """The images below a folder whose path fits, and what is passed over among the other files.

    It is searched as for training: `glob` would follow links in circles, and find what is hidden.
    """

    def fits(path: str) -> bool:
        parts = Path(path).parts
        ends = range(len(parts) + 1) if not has_magic(pattern[-1]) else (len(parts),)
        return any(_fits(parts[:end], pattern) for end in ends)  # a folder: all that is in it

    below = listing(folder) if folder.is_dir() else Listing((), ())
    others = [(name, why) for name, why in below.passed_over if fits(name)]
    packed = [name for name, _ in others if _may_be_packed(pattern[-1]) and _may_be_packed(name)]
    passed_over = [(str(folder / name), why) for name, why in others if name not in packed]
    return [folder / name for name in (*below.images, *packed) if fits(name)], passed_over


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern, in which ** is any number of parts.

    >>> _fits(("a", "b", "1.png"), ("**", "*.png")), _fits(("a", "1.png"), ("*.png",))
    (True, False)
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def images_below(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their paths: the same as in training."""
    return sorted(folder / name for name in listing(folder).images)
