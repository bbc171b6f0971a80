"""A network that is served: its engine, batches and identity.

Shapes: B images of a batch, R x R pixels, C channels, K classes, F features.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnets.deployment.engines import EngineName, open_engine
from resnets.deployment.engines.selection import digest
from resnets.errors import ContentError
from resnets.evaluation.engine import Engine, NotFiniteError, batch_size_of, computation_of
from resnets.evaluation.familiarity import familiarity_of
from resnets.evaluation.predict import Prediction, prediction_of, rankings, stacked
from resnets.images import Pixels
from resnets.model_file import Description
from resnets.serving.batching import Batcher
from resnets.serving.statistics import Statistics

Floats = NDArray[np.float32]

_SIZES = (1, 2, 4, 8, 16, 32, 64)  # of batches that are measured at the start
_WORTH = 1.05  # a larger batch is taken where it is so many times as fast an image
_MEASURED = 3  # runs of each, of which the fastest counts


@dataclass(frozen=True)
class Outputs:
    """What a network computes for an image.

    Attributes:
        probabilities: (K,), calibrated.
        features: (F,); None where neither the status nor anybody needs them.
    """

    probabilities: Floats
    features: Floats | None = None


class ServedModel:
    """A network with its engine, a queue of images, and one thread that computes.

    Args:
        name: by which requests name it.
        path: of its file.
        engine: that computes.
        max_batch: images computed at once; 0 measures which size is worth it.
    """

    def __init__(self, name: str, path: Path, engine: Engine, max_batch: int = 0) -> None:
        self.name = name
        self.path = path
        self.engine = engine
        computed = Path(computation_of(engine, path).file)
        self.digest = digest(computed) if computed.is_file() else ""
        self.familiarity = familiarity_of(engine.description.familiarity)
        self.statistics = Statistics()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"compute {name}")
        largest = batch_size_of(engine, max_batch or _SIZES[-1])
        self.max_batch = min(max_batch, largest) if max_batch else self._best_batch(largest)
        self.batcher: Batcher[Pixels, Outputs] = Batcher(
            self._outputs, self._executor, self.max_batch, self.statistics.batch
        )

    @property
    def description(self) -> Description:
        """What the file says of the network."""
        return self.engine.description

    async def outputs(self, frame: Pixels, deadline: float) -> Outputs:
        """The outputs for an image, (R, R, C) uint8, as `evaluation.predict.read` prepares it.

        Raises:
            DeadlinePassed: it passed before.
            ContentError: the output is not finite.
        """
        return await self.batcher.submit(frame, deadline)

    def prediction(self, name: str, outputs: Outputs, top: int) -> Prediction:
        """The prediction for an image with its `top` most probable classes."""
        familiar = None
        if self.familiarity is not None and outputs.features is not None:
            familiar = self.familiarity.familiar(outputs.features[None])
        rows = rankings(outputs.probabilities[None], self.description, top, familiar)
        return prediction_of(name, *rows[0])

    def close(self) -> None:
        """Let go of the thread and the engine."""
        self._executor.shutdown(wait=True)

    def _outputs(self, frames: Sequence[Pixels]) -> Sequence[Outputs | Exception]:
        """The outputs of a batch; where one image's are not finite, it fails alone."""
        try:
            return self._sound_outputs(frames)
        except NotFiniteError as error:
            wrong = set(error.places)
            sound = [frame for place, frame in enumerate(frames) if place not in wrong]
            others = iter(self._sound_outputs(sound) if sound else ())
            failure = ContentError("the network's numbers overflow for this image")
            return [failure if n in wrong else next(others) for n in range(len(frames))]

    def _sound_outputs(self, frames: Sequence[Pixels]) -> list[Outputs]:
        """The outputs of a batch.

        Raises:
            NotFiniteError: some are not finite.
        """
        images = stacked(frames)
        if self.familiarity is None:
            return [Outputs(row) for row in self.engine.probabilities(images)]
        return [Outputs(*row) for row in zip(*self.engine.outputs(images), strict=True)]

    def _best_batch(self, largest: int) -> int:
        """The size of a batch beyond which an image is hardly computed faster."""
        preprocessing = self.description.preprocessing
        side, channels = preprocessing.resize, preprocessing.channels
        frame = np.zeros((side, side, channels), np.uint8)
        best, fastest = 1, self._seconds([frame])
        for size in _SIZES[1:]:
            if size > largest:
                break
            seconds = self._seconds([frame] * size) / size
            if fastest / seconds >= _WORTH:
                best, fastest = size, seconds
            elif size >= 4 * best:
                break
        return best

    def _seconds(self, frames: Sequence[Pixels]) -> float:
        """The least time that a batch took, after one to warm up."""
        times = []
        for _ in range(_MEASURED + 1):
            begin = time.perf_counter()
            self._outputs(frames)
            times.append(time.perf_counter() - begin)
        return min(times[1:])


def open_served(
    path: Path, *, name: str = "", engine: EngineName = "auto", threads: int = 0, max_batch: int = 0
) -> ServedModel:
    """Open MODEL for serving.

    Args:
        path: MODEL, as `find_model` takes it.
        name: by which requests name it; that of the file, or of its run's folder, by default.
        engine: the runtime, as `predict` chooses it.
        threads: that compute; 0 is the runtime's own choice.
        max_batch: images computed at once; 0 measures which size is worth it.

    Raises:
        UsageError: the file, engine or device does not exist, or they do not go together.
        ContentError: the file is damaged, hostile, or not this package's.
        MissingExtra: the runtime is not installed.
    """
    opened = open_engine(path, engine, threads)
    return ServedModel(name or name_of(path), path, opened, max_batch)


def name_of(path: Path) -> str:
    """A name for MODEL: of the network, the run's folder or the file.

    >>> name_of(Path("runs/cats/model.safetensors")), name_of(Path("cats.onnx"))
    ('cats', 'cats')
    """
    if path.stem == "model" and path.parent.name:
        return path.parent.name
    return path.name.removesuffix(path.suffix) if path.suffix in _ENDINGS else path.name


_ENDINGS = (".safetensors", ".onnx", ".xml")
