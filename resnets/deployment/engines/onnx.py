"""ONNX Runtime as an engine."""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from resnets.deployment.engines.accelerators import (
    ACCELERATORS,
    refuse_fallback,
    refuse_missing,
)
from resnets.deployment.engines.shapes import Graphs
from resnets.deployment.exported.reading import (
    check_outputs,
    description_from,
    measure_onnx,
    precision_of,
)
from resnets.errors import ContentError, require
from resnets.evaluation.engine import Floats, check_images, engine_in_a_line, finite, frames_of
from resnets.images import Pixels
from resnets.machine import engine_threads
from resnets.model_file import Description

_QUIET = 4  # fatal errors only: the others are raised as exceptions, too
# the names of the graph's input and outputs
_IMAGES, _PROBABILITIES, _FEATURES = "images", "probabilities", "features"


class OnnxRuntime:
    """Runs an exported .onnx file on the CPU, or on an accelerator: see `engine.Engine`.

    `Graphs` decides for which batch sizes there is a session of fixed shape.
    """

    def __init__(self, path: Path, threads: int = 0, name: str = "onnxruntime") -> None:
        """Open a file.

        Args:
            path: the file.
            threads: number of threads that compute; 0: the runtime's own choice.
            name: onnxruntime for the CPU, or a key of `ACCELERATORS`.
        """
        self.path, self.threads, self.name = path, threads, name
        self.accelerator = ACCELERATORS.get(name)
        # checks the file before the runtime is loaded
        self.content, header, self.image_bytes = measure_onnx(path)
        self.description = description_from(header, str(path))
        self.precision = precision_of(header)
        self.runtime = require("onnxruntime", "onnx")
        if self.accelerator is not None:
            refuse_missing(name, self.runtime.get_available_providers())
        self.sessions = Graphs(self.open)
        on_cpu = self.accelerator is None
        self.one = _OneImage(self.sessions.one, self.description) if on_cpu else None

    def __repr__(self) -> str:
        return engine_in_a_line(self)

    def open(self, batch: int | None) -> Any:
        """A session for `batch` images at the network's size; None: any number of any size.

        Raises:
            ContentError: ONNX Runtime refuses the file, or its metadata describe another graph.
        """
        options = self.runtime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = engine_threads(self.threads)
        options.enable_mem_pattern = self.name != "onnxruntime-directml"  # which cannot have it
        side = self.description.preprocessing.resize
        for name, size in {"batch": batch, "height": side, "width": side}.items():
            if batch is not None:
                options.add_free_dimension_override_by_name(name, size)
        try:
            session = self.runtime.InferenceSession(
                self.content, options, providers=self.providers(), enable_fallback=0
            )
        except Exception as error:
            raise self.fault(error) from None
        if self.accelerator is not None:
            refuse_fallback(self.name, session.get_providers())
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if [value.name for value in (*inputs, *outputs)] != [_IMAGES, _PROBABILITIES, _FEATURES]:
            raise ContentError(f"{self.path}: its graph does not go from images to probabilities")
        channels, classes = _fixed_size(inputs[0].shape), _fixed_size(outputs[0].shape)
        check_outputs(self.description, channels, classes, str(self.path))
        return session

    def providers(self) -> list[Any]:
        """What computes, the preferred first; the CPU takes what the accelerator does not know."""
        if self.accelerator is None:
            return ["CPUExecutionProvider"]
        return [(self.accelerator.name, dict(self.accelerator.options)), "CPUExecutionProvider"]

    def fault(self, error: Exception) -> ContentError:
        """An error of ONNX Runtime, whose types are not public, as a ContentError."""
        reason = " ".join(str(error).split())[:200]
        return ContentError(f"{self.path}: ONNX Runtime cannot run it: {reason}")

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        return self.run(images, _PROBABILITIES)

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        return self.run(images, _FEATURES)

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        frames = frames_of(images, self.description.preprocessing)
        try:
            session = self.sessions.for_batch(len(frames))
            probabilities, features = session.run([_PROBABILITIES, _FEATURES], {_IMAGES: frames})
        except Exception as error:
            raise self.fault(error) from None
        return finite(probabilities), finite(features)

    def run(self, images: Pixels, output: str) -> Floats:
        """One output of the graph."""
        frames = frames_of(images, self.description.preprocessing)
        try:
            if self.one is not None and len(frames) == 1 and output == _PROBABILITIES:
                values = self.one.probabilities(frames)
            else:
                values = self.sessions.for_batch(len(frames)).run([output], {_IMAGES: frames})[0]
        except Exception as error:
            raise self.fault(error) from None
        return finite(values)

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        try:
            probabilities, features = self.sessions.for_any().run(None, {_IMAGES: images})
        except Exception as error:
            raise self.fault(error) from None
        return finite(probabilities), finite(features)


class _OneImage:
    """A session for one image with fixed buffers, so that a call converts and allocates nothing.

    The time of one image is the latency that users notice; this saves 2 % of it for model 1.
    """

    def __init__(self, session: Any, description: Description) -> None:
        """session: of fixed shape for one image; description: of its network."""
        preprocessing = description.preprocessing
        side = preprocessing.resize
        self.inputs = np.empty((1, side, side, preprocessing.channels), np.uint8)
        self.outputs = np.empty((1, len(description.class_names)), np.float32)
        self.session, self.binding, self.lock = session, session.io_binding(), Lock()
        inputs, outputs = self.inputs, self.outputs
        self.binding.bind_input(_IMAGES, "cpu", 0, np.uint8, inputs.shape, inputs.ctypes.data)
        self.binding.bind_output(
            _PROBABILITIES, "cpu", 0, np.float32, outputs.shape, outputs.ctypes.data
        )

    def probabilities(self, frame: Pixels) -> Floats:
        """(1, K), of one image at the network's size (1, R, R, C); from any thread."""
        if not self.lock.acquire(blocking=False):  # another thread is using the buffers
            probabilities: Floats = self.session.run([_PROBABILITIES], {_IMAGES: frame})[0]
            return probabilities
        try:
            np.copyto(self.inputs, frame)
            self.session.run_with_iobinding(self.binding)
            return self.outputs.copy()
        finally:
            self.lock.release()


def _fixed_size(shape: list[int | str | None]) -> int | None:
    """The last size of a shape; None if it is not fixed."""
    return shape[-1] if shape and isinstance(shape[-1], int) else None
