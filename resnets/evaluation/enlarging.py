"""Whether images are enlarged much before a network sees them, by a sample of them, in words."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from resnets.data.white_level import sampled
from resnets.errors import ContentError
from resnets.evaluation.source import Source, StoredImage
from resnets.images import ALLOWED, UNTRUSTED, Pixels
from resnets.images.probing import probe

if TYPE_CHECKING:  # it needs pyarrow, which a slim installation does not have
    from resnets.data.labelled import LabelledImages

_MUCH = 3.0  # times the side of the images, from which on that is told
_SAMPLE = 16  # images whose sides are looked at

_Content = Path | bytes | Pixels | ContentError


def much_enlarged(side: int, size: int) -> str:
    """What is said where images are enlarged much; empty where they are not.

    Args:
        side: a typical image's shorter side, in pixels.
        size: the side at which the network sees it.

    >>> much_enlarged(100, 224)
    ''
    """
    if size < _MUCH * side:
        return ""
    return (
        f"The images, of about {side} pixels, are enlarged {size / side:.0f} times, to {size}: "
        "that adds no detail and takes more time"
    )


def sources_enlarged(sources: Sequence[Source], size: int) -> str:
    """The same for images to predict, by their headers.

    Of a remote place the first are looked at, which will be read and fetched next in any case.
    """
    some = [sources[place] for place in sampled(len(sources), _SAMPLE)]
    if any(_is_remote(source) for source in some):
        some = list(sources[:_SAMPLE])
    return _of_sides((_side(source.loaded) for source in some), size)


def images_enlarged(images: "LabelledImages", size: int) -> str:
    """The same for labelled images."""
    places = sampled(len(images), _SAMPLE)
    images.expect(places)
    return _of_sides((_side(partial(images.encoded, place)) for place in places), size)


def _is_remote(source: Source) -> bool:
    """Whether an image lies in a remote place."""
    if not isinstance(source.content, StoredImage):
        return False
    from resnets.data.storage import reads_ahead

    return reads_ahead(source.content.storage)


def _side(content: Callable[[], _Content]) -> int | None:
    """The shorter side of an image in pixels; others tell where there is none.

    0 for a broken image, and None for one that cannot be fetched: no other is asked for then, as a
    server that is away takes minutes for each.
    """
    try:
        image = content()
        if isinstance(image, OSError):
            return None
        if isinstance(image, ContentError):
            return 0
        if isinstance(image, np.ndarray):
            return int(min(image.shape[:2]))
        header = probe(image, formats=UNTRUSTED if isinstance(image, bytes) else ALLOWED)
    except OSError:
        return None
    except ContentError:
        return 0
    return min(header.width, header.height)


def _of_sides(sides: Iterable[int | None], size: int) -> str:
    """What is said of images of these sides."""
    known = [side for side in takewhile(lambda side: side is not None, sides) if side]
    return much_enlarged(int(np.median(known)), size) if known else ""
