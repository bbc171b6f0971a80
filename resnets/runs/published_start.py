"""Published weights for a training on photos whose user named none."""

import sys
from collections.abc import Callable

from resnets.errors import ContentError, MissingExtra, UsageError
from resnets.format import byte_size
from resnets.pretrained.files import is_offline
from resnets.pretrained.opening import is_in_cache, open_published
from resnets.pretrained.reference import read_reference
from resnets.pretrained.table import (
    USUAL_START,
    Published,
    find_recommended,
    is_non_commercial,
)

Agree = Callable[[str], bool]  # asks the user a question that is answered by yes or no


def published_start(network: str, notify: Callable[[str], None], agree: Agree | None) -> str | None:
    """The id of the weights to start from; None: from scratch. The user is told which, and why.

    Args:
        network: in the catalog, that is to be trained; auto: the usual one for weights.
        notify: takes a line for the user.
        agree: whether the user wants to download what is not in the cache; None asks nobody.
    """
    network = USUAL_START if network == "auto" else network
    row = find_recommended(network)
    if row is None or is_non_commercial(row.licence):
        return None
    why = ""
    try:
        cached = is_in_cache(read_reference(row.id))
        if cached or (agree and not is_offline() and agree(_question(row))):
            open_published(read_reference(row.id))
            notify(
                f"Starts from {row.id}, "
                + ("which is in the cache" if cached else "which is downloaded now")
                + " (--from none trains from scratch)"
            )
            return row.id
    except (ContentError, UsageError, MissingExtra, OSError) as error:
        why = f" ({error})"
    notify(
        f"Trains from scratch{why}, without weights trained on ImageNet, which usually help with "
        f"few photos. `resnets fetch {network}` downloads them into the cache "
        f"({byte_size(row.bytes)}); --from none always trains from scratch"
    )
    return None


def _question(row: Published) -> str:
    """What a user is asked before a download."""
    return (
        f"Download {row.id} ({byte_size(row.bytes)}, {row.licence}), weights trained on ImageNet, "
        "which usually help with few photos? [y/N] "
    )


def ask_at_terminal(question: str) -> bool:
    """Ask a user who sits at a terminal; others are not asked and have not agreed."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
