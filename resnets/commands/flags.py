"""Values of flags that several commands have."""

from typing import Annotated, Literal

from tyro.conf import arg

from resnets.errors import UsageError

Split = Literal["auto", "train", "validation", "test", "all"]

Cache = Annotated[str | None, arg(metavar="SIZE")]
"""How much of shards at an address to keep on the local disk; see `opening.with_cache`."""


def check_compared(compared: int | None) -> None:
    """Check --compared: how many images are searched for near-duplicates; None is the default.

    Raises:
        UsageError: it is negative.
    """
    if compared is not None and compared < 0:
        raise UsageError(f"--compared {compared}: a number of images, 0 or more")
