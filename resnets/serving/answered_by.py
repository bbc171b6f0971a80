"""Which files of a model answered the images of one call of a client."""

from collections import Counter
from threading import Lock

from resnets.format import plural

_SHOWN = 12  # characters of a digest


class AnsweredBy:
    """Which files of a model answered the images of one call."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._images: Counter[str] = Counter()  # by digest, in the order of first answers

    def add(self, digest: str) -> None:
        """Count an image."""
        with self._lock:
            self._images[digest] += 1

    def change(self) -> str | None:
        """What to say where the model changed between the first image and the last; else None."""
        if len(self._images) < 2:
            return None
        total = plural(self._images.total(), "image")
        parts = [f"{count:,} by {digest[:_SHOWN]}" for digest, count in self._images.items()]
        return f"the model changed meanwhile: of {total}, {', '.join(parts)}"
