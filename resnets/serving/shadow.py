"""Another network that answers the same images, after they were answered, and is only compared.

It computes one image at a time in a thread of low priority, and takes an image only when it is free
and none waits for the served network: so it delays nothing much, and fails no request.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from resnets.images import Pixels
from resnets.images.memory_budget import IN_USE
from resnets.serving.answering import pixels_of
from resnets.serving.answers import Floats, Outputs, Upload
from resnets.serving.logs import log
from resnets.serving.served_model import ServedModel

_NICENESS = 19  # the lowest priority


@dataclass
class _Agreement:
    """How well the shadow agrees with the served network.

    Attributes:
        images: that both answered.
        same: of these, with the same prediction.
        distance: sum of the total-variation distances of their probabilities, each 0 to 1.
        skipped: images that the shadow left out, as it was busy or others waited.
        failed: images that it could not answer.
    """

    images: int = 0
    same: int = 0
    distance: float = 0.0
    skipped: int = 0
    failed: int = 0


class Shadow:
    """Compares a network with the served one.

    Args:
        model: the other network.
        of: the name of the served one.
        max_pixels: of an image.
    """

    def __init__(self, model: ServedModel, of: str, max_pixels: int) -> None:
        self.model, self.of = model, of
        self.agreement = _Agreement()
        self._max_pixels = max_pixels
        self._busy = False
        self._task: asyncio.Future[None] | None = None  # which nothing else refers to
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="shadow", initializer=_lower_priority
        )

    def offer(self, served: ServedModel, upload: Upload, outputs: Outputs) -> None:
        """Compare an image that was answered, if the shadow is free; returns at once.

        Args:
            served: that answered.
            upload: the image.
            outputs: the answer.
        """
        if served.name != self.of:
            return
        if self._busy or served.batcher.waiting:
            self.agreement.skipped += 1
            return
        self._busy = True
        names = served.description.class_names
        self._task = asyncio.ensure_future(self._compare(upload.content, names, outputs))
        self._task.add_done_callback(self._free)

    def close(self) -> None:
        """Let go of the thread and the network."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.model.close()

    def _free(self, _compared: object) -> None:
        """Take the next image."""
        self._busy = False

    async def _compare(
        self, content: bytes | Pixels, names: Sequence[str], outputs: Outputs
    ) -> None:
        """Compute an image, and count how the two agree."""
        loop, agreement = asyncio.get_running_loop(), self.agreement
        try:
            mine = await loop.run_in_executor(self._thread, self._probabilities, content)
        except Exception as error:  # whatever it is, no request depends on it
            agreement.failed += 1
            log("shadow failed", model=self.model.name, reason=str(error))
            return
        theirs, own_names = outputs.probabilities, self.model.description.class_names
        agreement.images += 1
        agreement.same += names[int(theirs.argmax())] == own_names[int(mine.argmax())]
        agreement.distance += _distance(names, theirs, own_names, mine)

    def _probabilities(self, content: bytes | Pixels) -> Floats:
        """The other network's probabilities (K,) of an image. In the thread."""
        preprocessing = self.model.description.preprocessing
        with IN_USE:
            pixels = pixels_of(content, preprocessing, self._max_pixels)
            frame = preprocessing.frame(pixels)
        probabilities: Floats = self.model.engine.probabilities(frame[None])[0]
        return probabilities


def _distance(
    names: Sequence[str], probabilities: Floats, other_names: Sequence[str], others: Floats
) -> float:
    """The total-variation distance of two distributions, 0 to 1, by the names of their classes.

    >>> half = np.array([0.5, 0.5], np.float32)
    >>> _distance("ab", half, "ba", half), _distance("ab", half, "bc", half)
    (0.0, 0.5)
    """
    shares = dict(zip(names, np.asarray(probabilities, np.float64), strict=True))
    for name, share in zip(other_names, np.asarray(others, np.float64), strict=True):
        shares[name] = shares.get(name, 0.0) - share
    return float(sum(map(abs, shares.values()))) / 2


def _lower_priority() -> None:
    """Give this thread the lowest priority, where threads have their own (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
