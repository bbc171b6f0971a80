"""Which bytes of which file, and how the ranges that are needed become few requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Where the bytes of an image are.

    Attributes:
        file: name of a file, below the folder.
        offset: of the first byte.
        length: in bytes.
        digest: 32 bytes, as `digests_of_bytes` computes it from the content; None if unknown.
    """

    file: str
    offset: int
    length: int
    digest: bytes | None = None

    @property
    def stop(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.length


@dataclass(frozen=True)
class Request:
    """A range of a file that is fetched at once, with the places in it."""

    file: str
    start: int
    stop: int
    places: tuple[Place, ...]

    def cut(self, data: bytes) -> dict[Place, bytes]:
        """The bytes of each place, from the bytes of the range."""
        return {
            place: data[place.offset - self.start : place.stop - self.start]
            for place in self.places
        }


def planned(places: Sequence[Place], largest: int, gap: int) -> list[Request]:
    """The requests that fetch some places: neighbours together, no byte twice.

    Args:
        places: in the order in which they are needed; one may occur several times.
        largest: bytes of a request, unless a single place, or some that overlap, have more.
        gap: bytes between two places that are fetched for nothing rather than by another request.

    Returns:
        In the order in which the first place of each is needed.

    >>> a, b, far = Place("x", 0, 5), Place("x", 7, 3), Place("x", 900, 5)
    >>> [(request.start, request.stop) for request in planned([far, b, a], 100, 10)]
    [(900, 905), (0, 10)]
    """
    turns = {place: turn for turn, place in reversed([*enumerate(places)])}
    by_offset = sorted(turns, key=lambda place: (place.file, place.offset, place.stop))
    single = [Request(place.file, place.offset, place.stop, (place,)) for place in by_offset]
    apart = _merged(single, lambda one, two: two.start < one.stop)
    requests = _merged(
        apart,
        lambda one, two: two.start - one.stop <= gap and two.stop - one.start <= largest,
    )
    return sorted(requests, key=lambda request: min(turns[place] for place in request.places))


def _merged(
    requests: Sequence[Request], together: Callable[[Request, Request], bool]
) -> list[Request]:
    """Requests, sorted by file and start, with neighbours of a file joined where they may be."""
    merged: list[Request] = []
    for request in requests:
        last = merged[-1] if merged else None
        if last is not None and last.file == request.file and together(last, request):
            stop = max(last.stop, request.stop)
            merged[-1] = Request(last.file, last.start, stop, last.places + request.places)
        else:
            merged.append(request)
    return merged
