"""Warnings about the data that a command has opened, and the images that were left out."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnets.escaping import say
from resnets.format import plural

if TYPE_CHECKING:
    from resnets.evaluation.outputs import EvaluationImages
    from resnets.evaluation.source import Source
    from resnets.model_file import Description

_LISTED = 10  # images that are left out, by name


def print_notices(
    warnings: Sequence[str], skipped: Sequence[tuple[str, str]], *, machine: bool = False
) -> None:
    """Print warnings about the data, and which images were left out.

    Args:
        warnings: one sentence each.
        skipped: name and reason of each image that cannot be read.
        machine: whether a program reads standard output; then to standard error.
    """
    for line in notices(warnings, skipped):
        say(line, file=sys.stderr if machine else sys.stdout, flush=True)


def tell_enlarged(sources: "Sequence[Source]", description: "Description") -> None:
    """Tell on standard error where images are much smaller than what the network sees."""
    from resnets.evaluation.enlarging import sources_enlarged

    if line := sources_enlarged(sources, description.preprocessing.size):
        say(line, file=sys.stderr)


def tell_of_reading(chosen: "EvaluationImages", compared: int) -> None:
    """Tell on standard error of images at an address that are read to find near-duplicates.

    Args:
        chosen: the images to evaluate, before those that look like seen ones are left out.
        compared: number of training and validation images to compare with; 0: none.
    """
    from resnets.data.storage import reads_ahead

    if not compared or chosen.seen is None or not reads_ahead(chosen.seen.storage):
        return
    if not chosen.exposure.seen:
        images = plural(min(compared, len(chosen.seen)), "training or validation image")
        say(
            f"near-duplicates: reading {images} from the address (--compared 0 skips it)",
            file=sys.stderr,
        )


def tell_assumed(description: "Description") -> None:
    """Tell on standard error what was assumed when the network's file was made, if anything."""
    if line := description.assumed_in_words:
        say(line, file=sys.stderr)


def notices(warnings: Sequence[str], skipped: Sequence[tuple[str, str]]) -> list[str]:
    """One line each; of many images that were left out, the number.

    >>> notices(["no images of cat"], [("a.png", "0 bytes")])
    ['warning: no images of cat', 'left out a.png: 0 bytes']
    """
    lines = [f"warning: {text}" for text in warnings]
    lines += [f"left out {name}: {why}" for name, why in skipped[:_LISTED]]
    if len(skipped) > _LISTED:
        lines.append(f"left out {plural(len(skipped) - _LISTED, 'more image')} that cannot be read")
    return lines


def passed_over_lines(passed_over: Sequence[tuple[str, str]], *, verbose: bool) -> list[str]:
    """What is told of files that were not read: one line each, or one for each reason.

    Args:
        passed_over: path and reason of each.
        verbose: whether each is named.

    >>> passed_over_lines([("a.txt", "no image"), ("b.txt", "no image")], verbose=False)
    ['a.txt and 1 more ignored: no image (--verbose names all)']
    """
    from resnets.data.sources.walking import in_words

    if verbose:
        return [f"ignored {path}: {why}" for path, why in passed_over]
    more = (
        " (--verbose names all)" if len(passed_over) > len({why for _, why in passed_over}) else ""
    )
    return [line + more for line in in_words(passed_over)]
