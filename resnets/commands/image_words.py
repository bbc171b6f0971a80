"""MODEL and images that words of a command line name."""

import sys
from collections.abc import Sequence
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.commands.notices import passed_over_lines
from resnets.errors import ContentError, UsageError
from resnets.escaping import say
from resnets.files.reading import read_limited
from resnets.format import plural
from resnets.images.opening import MAX_BYTES

if TYPE_CHECKING:
    from resnets.evaluation.source import Source


def model_and_images(words: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """MODEL and what stands for images.

    The first word is MODEL if it ends as model files, exported files and checkpoints do, is the
    folder of a run, or the name of a network.

    Raises:
        UsageError: it is one of these, but no MODEL; or a MODEL stands behind the images.
    """
    from resnets.deployment.engines.swapped import is_model, refuse_swapped
    from resnets.model_path import find_model, meant

    refuse_swapped(words[:1], words[1:])
    if words and is_model(words[0]):
        return find_model(words[0]), words[1:]
    if words and not _may_be_images(words[0]):
        raise UsageError(
            f"{words[0]}: no model (no such file, run, network or id) and no image, folder or "
            f"pattern{meant(words[0])}"
        )
    return None, words


def _may_be_images(word: str) -> bool:
    """Whether a word may stand for images: they are there, or it is written as they are."""
    from resnets.data.sources.names import has_image_ending

    if not word or word == "-" or "://" in word or word.startswith(("digits", "hub:")):
        return True  # or what is said of these where images are opened
    return Path(word).exists() or has_magic(word) or has_image_ending(word)


def image_sources(
    words: Sequence[str], *, verbose: bool = False, cache: str | None = None
) -> "list[Source]":
    """The images for words of the command line; a dash is standard input.

    What is passed over in folders is told on standard error.

    Args:
        words: files, folders and patterns.
        verbose: whether every file that is passed over is named.
        cache: for shards at an address, how much of them to keep on the local disk.

    Raises:
        UsageError: there is none, or none that the cache is for.
    """
    from resnets.addresses import is_remote
    from resnets.evaluation.finding_images import matching_images
    from resnets.evaluation.source import Source

    if not words:
        raise UsageError(
            "no images given: name files, folders or patterns, or - for standard input"
        )
    if cache is not None and not any(map(is_remote, words)):
        raise UsageError(f"--cache {cache}: only what is read from an address has a cache")
    sources: list[Source] = []
    passed_over: list[tuple[str, str]] = []
    for word in words:
        if word == "-":
            sources.append(Source("standard input", _standard_input()))
        else:
            matches = matching_images(word, cache)
            sources += matches.sources
            passed_over += matches.passed_over
    for line in passed_over_lines(passed_over, verbose=verbose):
        say(line, file=sys.stderr)
    return sources


def paths_of(sources: "Sequence[Source]") -> list[Path]:
    """The paths of the images that are files."""
    return [source.content for source in sources if isinstance(source.content, Path)]


def _standard_input() -> bytes | ContentError:
    """The bytes on standard input; an error if there are more than an image may have."""
    content = read_limited(sys.stdin.buffer, MAX_BYTES)
    if content is None:
        return ContentError(f"more than {plural(MAX_BYTES, 'byte')}; an image has fewer")
    return content
