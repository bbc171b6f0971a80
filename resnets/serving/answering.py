"""Answers for images: decoding in a bounded pool of threads, and computation until a deadline."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from resnets.errors import ContentError, OtherFormat, TooLarge
from resnets.evaluation.predict import Prediction
from resnets.images import UNTRUSTED, Pixels, Preprocessing, decode, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import refuse_bomb
from resnets.serving.batching import DeadlinePassed, Places
from resnets.serving.metrics import Metrics
from resnets.serving.served_model import Outputs, ServedModel
from resnets.serving.settings import Settings

_T = TypeVar("_T")

_HTTP_STATUS: tuple[tuple[type[ContentError], int, str], ...] = (  # of one unreadable image
    (TooLarge, 413, "too large"),
    (OtherFormat, 415, "another format"),
    (ContentError, 422, "damaged"),
)


@dataclass(frozen=True)
class Upload:
    """An image that a client sent.

    Attributes:
        name: of the file, as the client calls it.
        content: its bytes, or the pixels (H, W, C) uint8 with C of 1, 3 or 4.
    """

    name: str
    content: bytes | Pixels = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    Attributes:
        prediction: of the image, or why it cannot be read.
        outputs: of the network; None if it cannot be read.
        http_status: of the response, if it is the only image of a request.
    """

    prediction: Prediction
    outputs: Outputs | None = None
    http_status: int = 200


class Answering:
    """Decodes images in a bounded pool of threads and has them computed, within limits.

    Args:
        settings: the limits.
        metrics: count what is answered.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.places = Places(settings.queue)
        self.answered: Callable[[ServedModel, Upload, Outputs], None] = lambda *_: None
        self._decoders = ThreadPoolExecutor(settings.decoding_threads, thread_name_prefix="decode")

    async def answers(
        self,
        model: ServedModel,
        uploads: Sequence[Upload],
        top: int,
        deadline: float,
        features: bool = False,
    ) -> list[Answer]:
        """The answers for images, in their order; an image that cannot be read fails alone.

        The caller has taken their places.

        Args:
            model: that predicts.
            uploads: the images.
            top: how many of the most probable classes each prediction lists, 1 to K.
            deadline: by the event loop's clock, in seconds.
            features: whether the outputs shall hold the features.

        Raises:
            DeadlinePassed: before all were answered.
        """
        begin = asyncio.get_running_loop().time()
        outcome = model.statistics.failure
        try:
            answers = await self._all(model, uploads, top, deadline, features)
            outcome = model.statistics.success
            return answers
        finally:
            outcome.add(asyncio.get_running_loop().time() - begin)

    async def _all(
        self,
        model: ServedModel,
        uploads: Sequence[Upload],
        top: int,
        deadline: float,
        features: bool,
    ) -> list[Answer]:
        """The answers for images."""
        if len(uploads) == 1:  # the usual case, without a task of its own
            return [await self._answer(model, uploads[0], top, deadline, features)]
        tasks = [
            asyncio.ensure_future(self._answer(model, upload, top, deadline, features))
            for upload in uploads
        ]
        try:
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def frame(
        self, content: bytes | Pixels, preprocessing: Preprocessing, deadline: float
    ) -> Pixels:
        """The frame (R, R, C) that a network takes of an image, decoded in the pool.

        Raises:
            DeadlinePassed: it passed before.
            ContentError: the image cannot be read.
        """
        return await self.in_pool(
            _frame, content, preprocessing, self.settings.max_pixels, deadline=deadline
        )

    async def in_pool(self, function: Callable[..., _T], *arguments: Any, deadline: float) -> _T:
        """The result of a function, which runs in the pool.

        Raises:
            DeadlinePassed: it passed before.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                return await loop.run_in_executor(self._decoders, function, *arguments)
        except TimeoutError:
            raise DeadlinePassed from None

    def close(self) -> None:
        """Let go of the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)

    async def _answer(
        self, model: ServedModel, upload: Upload, top: int, deadline: float, features: bool
    ) -> Answer:
        """The answer for one image."""
        answer = await self._uncounted(model, upload, top, deadline, features)
        self.metrics.answered(model.name, answer.prediction)
        return answer

    async def _uncounted(
        self, model: ServedModel, upload: Upload, top: int, deadline: float, features: bool
    ) -> Answer:
        """The answer for one image, which `_answer` counts."""
        try:
            begin = time.perf_counter()
            frame = await self.frame(upload.content, model.description.preprocessing, deadline)
            seconds = time.perf_counter() - begin
            model.statistics.decoding.add(seconds)
            self.metrics.decoded(model.name, seconds)
            outputs = await model.outputs(frame, deadline, features)
        except ContentError as error:
            status, reason = next(
                (code, why) for kind, code, why in _HTTP_STATUS if isinstance(error, kind)
            )
            self.metrics.unreadable(reason)
            return Answer(Prediction(upload.name, error=str(error)), http_status=status)
        self.answered(model, upload, outputs)
        return Answer(model.prediction(upload.name, outputs, top), outputs)


def _frame(content: bytes | Pixels, preprocessing: Preprocessing, max_pixels: int) -> Pixels:
    """The frame (R, R, C) that a network takes of an image; errors as those of `pixels_of`."""
    with IN_USE:
        return preprocessing.frame(pixels_of(content, preprocessing, max_pixels))


def pixels_of(content: bytes | Pixels, preprocessing: Preprocessing, max_pixels: int) -> Pixels:
    """An image's pixels (H, W, C), C being what the network takes, of its bytes or its pixels.

    Raises:
        TooLarge: it has more pixels, or takes more memory, than allowed.
        OtherFormat: it is in no format that is read from strangers.
        ContentError: it is damaged.
    """
    if not isinstance(content, bytes):
        height, width, _ = content.shape
        refuse_bomb(width, height, max_pixels)
        return from_pixels(content, preprocessing.channels)
    return decode(
        content,
        channels=preprocessing.channels,
        formats=UNTRUSTED,
        max_pixels=max_pixels,
        white=preprocessing.white,
    )
