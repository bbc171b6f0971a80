"""A network that is served: its engine, batches and identity.

Shapes: B images of a batch, R x R pixels, C channels, K classes, F features.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from resnets.deployment.engines import EngineName, open_engine
from resnets.deployment.engines.accelerators import ACCELERATORS
from resnets.deployment.engines.selection import digest, sha256_of
from resnets.errors import ContentError
from resnets.evaluation.engine import Engine, NotFiniteError, batch_size_of, computation_of
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.predict import rankings, stacked
from resnets.golden import TOLERANCE, difference, golden_from, golden_image, seed_of
from resnets.images import Pixels
from resnets.model_file import Description
from resnets.model_path import find_model
from resnets.serving.answers import Outputs
from resnets.serving.batching import Batcher
from resnets.serving.drift import Drift
from resnets.serving.events import Computed, Event, Events
from resnets.serving.recent import Recent
from resnets.serving.statistics import Statistics
from resnets.serving.threads import Threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Result = TypeVar("_Result")

_STRICTEST = min(TOLERANCE.values())
_SIZES = (1, 2, 4, 8, 16, 32, 64)  # of batches that are measured at the start
_LONG = 0.015  # seconds of a batch, beyond which no larger one is tried: others would wait for it
_NEAR = 1.05  # the largest size is taken that needs at most so many times the least time per image
_ROUNDS = 5  # in which all sizes take turns, so that what else runs slows none of them alone


@dataclass(frozen=True)
class _Item:
    """An image of a batch.

    Attributes:
        frame: (R, R, C) uint8.
        features: whether they are needed.
        top: how many of the most probable classes to list.
    """

    frame: Pixels
    features: bool = False
    top: int = 1


class ServedModel:
    """A network with its engine, a queue of images, and one thread that computes.

    Args:
        name: by which requests name it.
        path: of its file.
        engine: that computes.
        max_batch: images computed at once; 0 measures which size is worth it.

    Attributes:
        threads: the one that computes.
        recent: its latest requests.
    """

    def __init__(self, name: str, path: Path, engine: Engine, max_batch: int = 0) -> None:
        self.name = name
        self.path = path
        self.digests = ""  # digests of the files before they were opened: see `digests_of`
        self.reopen: Callable[[], ServedModel] | None = None  # opens the files anew
        self.engine = engine
        computed = Path(computation_of(engine, path).file)
        self.digest = sha256_of(computed) if computed.is_file() else ""
        self.precision = computation_of(engine, path).precision
        self.familiarity = familiarity_of(engine.description.familiarity)
        self._statistics = Statistics()
        self._drift = Drift(self.familiarity)
        self.recent = Recent()
        counting = (self._statistics.observe, self._drift.observe)
        self.events: Events[Event] = Events(*counting)
        self.threads = Threads(1, f"compute {name}")
        largest = batch_size_of(engine, max_batch or _SIZES[-1])
        self.max_batch = min(max_batch, largest) if max_batch else self._best_batch(largest)
        self.batcher: Batcher[_Item, Outputs] = Batcher(
            self._outputs, self.threads, self.max_batch, self._computed
        )

    @property
    def statistics(self) -> Statistics:
        """What it has computed."""
        self.events.count()
        return self._statistics

    @property
    def drift(self) -> Drift:
        """Whether the images are like the validation images."""
        self.events.count()
        return self._drift

    def _computed(self, waits: Sequence[float], seconds: float) -> None:
        """Tell of a batch."""
        self.events.tell(Computed(self.name, waits, seconds))

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Its name, the digest of its file, its engine and the precision of the arithmetic."""
        return self.name, self.digest, self.engine.name, self.precision

    @property
    def description(self) -> Description:
        """What the file says of the network."""
        return self.engine.description

    def compute(
        self, frame: Pixels, features: bool, top: int, result: "asyncio.Future[Outputs]"
    ) -> None:
        """Compute an image, unless its future is cancelled before; from any thread.

        Args:
            frame: (R, R, C) uint8, as `evaluation.predict.read` prepares it.
            features: whether they are needed; they come also where the status needs them.
            top: how many of the most probable classes to list, 1 to K.
            result: gets the outputs, or a ContentError where they are not finite.
        """
        needed = features or self.familiarity is not None
        self.batcher.put(_Item(frame, needed, top), result)

    async def between_batches(
        self, function: Callable[..., _Result], *arguments: object
    ) -> _Result:
        """The result of a function, which runs in the thread that computes, between two batches."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, function, *arguments)

    def check(self) -> None:
        """Compute the golden image, alone and in the largest batch, which warms the engine up.

        Raises:
            ContentError: the probabilities are not those in the file; or, where it has none, those
                of the image alone and in a batch differ.
        """
        preprocessing, golden = self.description.preprocessing, self.description.golden
        item = _Item(golden_image(preprocessing, seed_of(golden)), self.familiarity is not None)
        blank = _Item(np.zeros_like(item.frame))
        alone = self._sound_outputs([item])[0].probabilities
        batch = [blank] * (self.max_batch - 1) + [item]
        in_batch = self._sound_outputs(batch)[-1].probabilities
        allowed = TOLERANCE.get(computation_of(self.engine, self.path).precision, _STRICTEST)
        for how, probabilities in (("alone", alone), ("in a batch", in_batch)):
            wrong_by = difference(golden or golden_from(alone), probabilities)
            if wrong_by > allowed:
                raise ContentError(
                    f"{self.path}: {self.engine.name} computes the golden image wrong, {how}: a "
                    f"probability differs by {wrong_by:.2g} from the file's, {allowed:g} is "
                    "allowed (another --engine may be right; or write the file anew)"
                )

    def close(self) -> None:
        """Let go of the thread and the engine."""
        self.threads.shutdown()

    def _outputs(self, items: Sequence[_Item]) -> Sequence[Outputs | Exception]:
        """The outputs of a batch; where one image's are not finite, it fails alone."""
        try:
            return self._sound_outputs(items)
        except NotFiniteError as error:
            wrong = set(error.places)
            sound = [item for place, item in enumerate(items) if place not in wrong]
            others = iter(self._sound_outputs(sound) if sound else ())
            failure = ContentError("the network's numbers overflow for this image")
            return [failure if n in wrong else next(others) for n in range(len(items))]

    def _sound_outputs(self, items: Sequence[_Item]) -> list[Outputs]:
        """The outputs of a batch.

        Raises:
            NotFiniteError: some are not finite.
        """
        images = stacked([item.frame for item in items])
        features: NDArray[np.float32] | list[None] = [None] * len(items)
        familiar = None
        if not any(item.features for item in items):
            probabilities = self.engine.probabilities(images)
        else:
            probabilities, computed = self.engine.outputs(images)
            features = computed
            if self.familiarity is not None:
                familiar = self.familiarity.familiar(computed)
        # here and not one by one in the event loop, where sorting would wait for this thread
        ranked = rankings(probabilities, self.description, max(x.top for x in items), familiar)
        rows = zip(items, probabilities, features, ranked, strict=True)
        return [
            Outputs(row, status, top[: item.top], values if item.features else None)
            for item, row, values, (status, top) in rows
        ]

    def _best_batch(self, largest: int) -> int:
        """The largest size of a batch that computes an image nearly as fast as any.

        Each batch costs the server something besides, such as waking the event loop. Under light
        load batches are small whatever is allowed.
        """
        sizes = [size for size in _SIZES if size <= largest]
        fastest: dict[int, float] = {}  # cost of an image
        for size in sizes:  # from the smallest, to know where to stop; the first run warms up
            self._seconds(size)
            wait, cost = self._seconds(size)
            if wait > _LONG and fastest:
                break
            fastest[size] = cost / size
        for size in [*fastest] * (_ROUNDS - 1) if len(fastest) > 1 else ():
            fastest[size] = min(fastest[size], self._seconds(size)[1] / size)
        near = _NEAR * min(fastest.values())
        return max(size for size, seconds in fastest.items() if seconds <= near)

    def _seconds(self, size: int) -> tuple[float, float]:
        """How long a batch of black images is waited for, and the time that counts as its cost.

        That is the processor's, summed over all cores: under load the other cores decode. What
        other programs do meanwhile counts for neither. On a GPU, and on Windows, whose clock of the
        processor is too coarse, both are the time by the wall.
        """
        preprocessing = self.description.preprocessing
        side, channels = preprocessing.resize, preprocessing.channels
        frame = np.zeros((side, side, channels), np.uint8)
        items = [_Item(frame, self.familiarity is not None)] * size
        begin, begun = time.perf_counter(), time.process_time()
        self._outputs(items)
        wall, cost = time.perf_counter() - begin, time.process_time() - begun
        if self.engine.name in ACCELERATORS or os.name == "nt":
            return wall, wall
        return min(wall, cost), cost  # other programs lengthen the one, more threads the other


def open_served(
    path: Path,
    *,
    name: str = "",
    engine: EngineName = "auto",
    threads: int = 0,
    max_batch: int = 0,
    before: str = "",
) -> ServedModel:
    """Open MODEL for serving.

    Args:
        path: MODEL, as `find_model` takes it.
        name: by which requests name it; that of the file, or of its run's folder, by default.
        engine: the runtime, as `predict` chooses it.
        threads: that compute; 0 is the runtime's own choice.
        max_batch: images computed at once; 0 measures which size is worth it.
        before: the engine of the file that this one replaces, which auto takes again, if it can:
            a measurement would take many seconds on a machine that answers requests meanwhile.

    Raises:
        UsageError: the file, engine or device does not exist, or they do not go together.
        ContentError: the file is damaged, hostile, or not this package's, or its golden image is
            computed wrong.
        MissingExtra: the runtime is not installed.
    """
    file = find_model(path)
    opened_files = digests_of(file)
    opened_engine = open_engine(file, engine, threads, measure=not before, usual=before)
    model = ServedModel(name or name_of(path), file, opened_engine, max_batch)
    try:
        model.check()
    except ContentError:
        model.close()
        raise
    model.digests = opened_files
    model.reopen = partial(
        open_served,
        path,
        name=model.name,
        engine=engine,
        threads=threads,
        max_batch=model.max_batch,
        before=opened_engine.name,
    )
    return model


def stamps_of(path: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Time, size and number of the files that `open_served` may open; they change with content."""
    return tuple(stamp_of(part) for part in _parts(path))


def digests_of(path: Path) -> str:
    """The digests of the files that `open_served` may open.

    Raises:
        OSError: they cannot be read.
    """
    return " ".join(digest(part) for part in _parts(path) if part == path or part.is_file())


def _parts(path: Path) -> tuple[Path, ...]:
    """A file, and the one beside it that may be opened with it or in its place."""
    return (path, path.with_suffix(".bin" if path.suffix == ".xml" else ".onnx"))


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Time, size and number of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def name_of(path: Path) -> str:
    """A name for MODEL: of the network, the run's folder or the file.

    >>> name_of(Path("runs/cats/model.safetensors")), name_of(Path("cats.onnx"))
    ('cats', 'cats')
    """
    if path.stem == "model" and path.parent.name:
        return path.parent.name
    return path.name.removesuffix(path.suffix) if path.suffix in _ENDINGS else path.name


_ENDINGS = (".safetensors", ".onnx", ".xml")
