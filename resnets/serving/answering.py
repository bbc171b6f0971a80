"""Answers for images: decoding in a bounded pool of threads, and computation of what is wanted."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from resnets.errors import ContentError, OtherFormat, TooLarge
from resnets.evaluation.predict import Prediction, prediction_of
from resnets.images import UNTRUSTED, Pixels, Preprocessing, decode, from_pixels
from resnets.images.memory_budget import IN_USE
from resnets.images.opening import refuse_bomb
from resnets.serving.answers import Answer, Outputs, Upload
from resnets.serving.batching import DeadlinePassed, Places, fail
from resnets.serving.events import Answered
from resnets.serving.served_model import ServedModel
from resnets.serving.settings import Settings
from resnets.serving.threads import Threads

_T = TypeVar("_T")

_LARGE = 2_100_000  # pixels, as of a screen; decoding more may take much longer than computing
_HTTP_STATUS: tuple[tuple[type[ContentError], int], ...] = (  # of one unreadable image
    (TooLarge, 413),
    (OtherFormat, 415),
    (ContentError, 422),
)


@dataclass(eq=False)
class _Job:
    """An image on its way to its answer.

    Attributes:
        upload: the image.
        top: how many of the most probable classes to list.
        features: whether the outputs shall hold the features.
        result: gets the outputs.
        since: when it arrived, by `time.perf_counter`.
        decoding: seconds until it was decoded; None before.
    """

    upload: Upload
    top: int
    features: bool
    result: "asyncio.Future[Outputs]"
    since: float = field(default_factory=time.perf_counter)
    decoding: float | None = None


class Answering:
    """Decodes images in a bounded pool of threads and has them computed, within limits.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.places = Places(settings.queue)
        self.answered: Callable[[ServedModel, Upload, Outputs], None] = lambda *_: None
        decoders = settings.decoding_threads
        self._on_one_core = decoders == 1
        self._decoders = Threads(decoders, "decode")
        self._decoders_of_large = Threads(decoders, "decode large")

    async def answers(
        self,
        model: ServedModel,
        uploads: Sequence[Upload],
        top: int,
        features: bool = False,
        repeated: bool = False,
    ) -> list[Answer]:
        """The answers for images, in their order; an image that cannot be read fails alone.

        The caller has taken their places, and cancels this at the deadline. From a thread that
        decodes, an image goes to the thread that computes, without the event loop in between.

        Args:
            model: that predicts.
            uploads: the images.
            top: how many of the most probable classes each prediction lists, 1 to K.
            features: whether the outputs shall hold the features.
            repeated: whether the images were sent before: see `Answered`.
        """
        loop, begin = asyncio.get_running_loop(), time.perf_counter()
        jobs = [_Job(upload, top, features, loop.create_future()) for upload in uploads]
        answers: list[Answer] = []
        try:
            for job in jobs:
                self._decoders_for(model).put(self._decode, model, job)
            answers = [await self._answer(model, job, repeated) for job in jobs]
            return answers
        finally:
            for job in jobs:
                _give_up(job.result)
            decoding = [job.decoding for job in jobs if job.decoding is not None]
            seconds = time.perf_counter() - begin
            model.events.tell(Answered(model.name, seconds, answers, decoding, repeated))

    def _decoders_for(self, model: ServedModel) -> Threads:
        """The threads that decode for a model: on one core, the one that computes.

        It decodes all that waits before it computes that as a batch. Two threads would take turns
        on the core, image by image.
        """
        return model.threads if self._on_one_core else self._decoders

    async def in_pool(
        self,
        function: Callable[..., _T],
        *arguments: Any,
        deadline: float,
        pool: Threads | None = None,
    ) -> _T:
        """The result of a function, which runs in a pool: that for small images by default.

        Raises:
            DeadlinePassed: it passed before.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                return await loop.run_in_executor(pool or self._decoders, function, *arguments)
        except TimeoutError:
            raise DeadlinePassed from None

    async def of_image(
        self,
        function: Callable[[bytes | Pixels, Preprocessing, int], _T],
        content: bytes | Pixels,
        preprocessing: Preprocessing,
        deadline: float,
    ) -> _T:
        """The result of a function that decodes an image of at most so many pixels: in a pool.

        A large image goes to the threads for those; see `_decode`.

        Raises:
            DeadlinePassed: it passed before.
        """
        most = self.settings.max_pixels
        small = min(_LARGE, most)
        try:
            return await self.in_pool(function, content, preprocessing, small, deadline=deadline)
        except TooLarge:
            pool = self._decoders_of_large
        return await self.in_pool(
            function, content, preprocessing, most, deadline=deadline, pool=pool
        )

    def close(self) -> None:
        """Let go of the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._decoders_of_large.shutdown(wait=False, cancel_futures=True)

    def _decode(self, model: ServedModel, job: _Job, large: bool = False) -> None:
        """Decode an image, and have it computed. In a thread of the pool.

        A large image goes to threads of its own: the system shares the cores among them and those
        of the others, which would wait for seconds.
        """
        if job.result.done():  # nobody waits for it any more
            return
        limit = self.settings.max_pixels if large else min(_LARGE, self.settings.max_pixels)
        try:
            try:
                frame = _frame(job.upload.content, model.description.preprocessing, limit)
            except TooLarge:
                if large:
                    raise
                self._decoders_of_large.put(self._decode, model, job, True)
                return
        except Exception as error:
            job.result.get_loop().call_soon_threadsafe(fail, job.result, error)
            return
        job.decoding = time.perf_counter() - job.since
        model.compute(frame, job.features, job.top, job.result)

    async def _answer(self, model: ServedModel, job: _Job, repeated: bool) -> Answer:
        """The answer for one image."""
        name = job.upload.name
        try:
            outputs = await job.result
        except ContentError as error:
            status = next(code for kind, code in _HTTP_STATUS if isinstance(error, kind))
            return Answer(Prediction(name, error=str(error)), http_status=status)
        if not repeated:
            self.answered(model, job.upload, outputs)
        return Answer(prediction_of(name, outputs.status, outputs.top), outputs)


def _give_up(result: "asyncio.Future[Outputs]") -> None:
    """Wait for a result no more; where it is an error, that was told, or is told no more."""
    if not result.cancel() and not result.cancelled():
        result.exception()


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
