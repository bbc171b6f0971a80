"""What people are told about the data that a command has opened."""

import sys
from collections.abc import Sequence

from resnets.escaping import say

LISTED = 10  # images that are left out, by name


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


def notices(warnings: Sequence[str], skipped: Sequence[tuple[str, str]]) -> list[str]:
    """One line each; of many images that were left out, the number.

    >>> notices(["no images of cat"], [("a.png", "0 bytes")])
    ['warning: no images of cat', 'left out a.png: 0 bytes']
    """
    lines = [f"warning: {text}" for text in warnings]
    lines += [f"left out {name}: {why}" for name, why in skipped[:LISTED]]
    if len(skipped) > LISTED:
        lines.append(f"left out {len(skipped) - LISTED:,} more images that cannot be read")
    return lines
