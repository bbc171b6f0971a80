"""Finding the images that words stand for: files, folders, patterns and shards. No torch here."""

from collections.abc import Sequence
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
            addresses of shards.

    Raises:
        UsageError: there is no such file, or no image in a folder.
    """
    return [source for word in words for source in matching_images(word).sources]


def matching_images(word: str, cache: str | None = None) -> Matches:
    """The images of one path or pattern, and what is passed over: see `find_images`.

    Args:
        word: path, pattern, or the folder or address of shards.
        cache: for an address, how much of it to keep on the local disk, such as 50GB.
    """
    if not word:  # pathlib would take it as the current folder
        raise UsageError("no image given: the path is empty")
    if _holds_shards(word):
        return Matches(_stored_images(word, cache))
    paths, passed_over = [Path(word)], list[PassedOver]()
    if not paths[0].exists():
        paths, passed_over = _matching(word)
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = listing(path)
            files |= dict.fromkeys(sorted(path / name for name in below.images))
            passed_over += [(str(path / name), why) for name, why in below.passed_over]
        else:
            files[path] = None
    if not files and (word == "digits" or word.startswith("hub:")):
        raise UsageError(
            f"{word}: a data set, and this takes images: give files, folders or patterns such as "
            "'photos/*.jpg'"
        )
    if not files:
        refuse_address(word, AS_IMAGE)
        beside = "".join(f"; {text}" for text in in_words(passed_over))
        folder = any(path.is_dir() for path in paths)
        what = "no image in this folder" if folder else "no such image, folder or pattern"
        raise UsageError(f"{word}: {what}{beside}")
    return Matches([Source(printable(str(file)), file) for file in files], passed_over)


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


def _stored_images(word: str, cache: str | None) -> list[Source]:
    """The images of shards, split after split, in the order in which they lie there."""
    from resnets.data.sources.opening import read_source, with_cache

    parts = read_source(with_cache(word, cache)).images.values()
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
    passed_over = [(str(folder / name), why) for name, why in below.passed_over if fits(name)]
    return [folder / name for name in below.images if fits(name)], passed_over


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
