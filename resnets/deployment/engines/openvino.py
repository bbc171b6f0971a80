"""OpenVINO as an engine."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from resnets.deployment.engines.accelerators import ACCELERATORS, refuse_missing
from resnets.deployment.engines.shapes import Graphs
from resnets.deployment.exported.reading import (
    check_outputs,
    description_from,
    measure_onnx,
    measure_openvino,
    precision_of,
)
from resnets.errors import ContentError, require
from resnets.evaluation.engine import Floats, check_images, engine_in_a_line, finite, frames_of
from resnets.images import Pixels
from resnets.machine import engine_threads

_PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
_FIRST = Lock()  # held while the core is made


def core() -> Any:
    """OpenVINO's core, which lives as long as the process: see docs/decisions.md, Deployment.

    All that compiles a graph here uses it. The CPU plugin of a core gives the thread an alternate
    stack for signal handlers, and on its end gives back the one before. Cores that do not end in
    the reverse order of their beginning leave a stack that was freed, and the next signal with a
    handler ends the process.

    Raises:
        MissingExtra: openvino is not installed.
    """
    with _FIRST:
        return _core()


@cache
def _core() -> Any:
    return require("openvino", "openvino").Core()


class OpenVino:
    """Runs an exported .xml (with its .bin) or .onnx file, on the CPU or on an accelerator.

    See `engine.Engine`.

    `Graphs` decides for which batch sizes there is a request of fixed shape.
    """

    def __init__(self, path: Path, threads: int = 0, name: str = "openvino") -> None:
        """Open a file.

        Args:
            path: the file.
            threads: number of threads that compute; 0: the runtime's own choice.
            name: openvino for the CPU, or a key of `ACCELERATORS`.
        """
        self.path, self.threads, self.name = path, threads, name
        self.accelerator = ACCELERATORS.get(name)
        source: list[Any]  # the checked content, read before the runtime is loaded
        if path.suffix.lower() == ".onnx":
            content, header, self.image_bytes = measure_onnx(path)
            source = [io.BytesIO(content)]
        else:
            *source, header, self.image_bytes = measure_openvino(path)
        self.description = description_from(header, str(path))
        self.precision = precision_of(header)
        self.core = core()
        if self.accelerator is not None:
            refuse_missing(name, self.core.available_devices)
        self.model = self.read(*source)
        self.check()
        side = self.description.preprocessing.resize
        self.requests = Graphs(lambda batch: self.request(batch, side))
        self.any_size: Any = None
        self.lock = Lock()

    def __repr__(self) -> str:
        return engine_in_a_line(self)

    def read(self, *source: Any) -> Any:
        """The model from the content of a file."""
        with self.converted_errors():
            return self.core.read_model(*source)

    def check(self) -> None:
        """Raise a ContentError unless the metadata describe the graph."""
        ports = [*self.model.inputs, *self.model.outputs]
        names = [min(port.get_names(), default="") for port in ports]
        if names != ["images", "probabilities", "features"]:
            raise ContentError(f"{self.path}: its graph does not go from images to probabilities")
        last_sizes = [port.get_partial_shape()[-1] for port in ports[:2]]
        channels, classes = (size.get_length() if size.is_static else None for size in last_sizes)
        check_outputs(self.description, channels, classes, str(self.path))

    def request(self, batch: int | None, side: int) -> Any:
        """A request for `batch` images (None: any number) of a side in pixels (-1: any)."""
        device = "CPU" if self.accelerator is None else self.accelerator.name
        options = _PRECISION | {"INFERENCE_NUM_THREADS": engine_threads(self.threads)}
        if self.accelerator is not None:
            options = {"PERFORMANCE_HINT": "LATENCY", **self.accelerator.options}
        shape = [batch or -1, side, side, self.description.preprocessing.channels]
        with self.converted_errors():
            model = self.model.clone()
            model.reshape(shape)
            return self.core.compile_model(model, device, options).create_infer_request()

    @contextmanager
    def converted_errors(self) -> Iterator[None]:
        """Turn errors of OpenVINO into a ContentError."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[-200:]
            raise ContentError(f"{self.path}: OpenVINO cannot run it: {reason}") from None

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        return self.outputs(images)[0]

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        return self.outputs(images)[1]

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        frames = frames_of(images, self.description.preprocessing)
        return self.run(self.requests.for_batch(len(frames)), frames)

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        if self.any_size is None:
            self.any_size = self.request(None, -1)
        return self.run(self.any_size, images)

    def run(self, request: Any, images: Pixels) -> tuple[Floats, Floats]:
        """Copies of both outputs; one thread at a time.

        Two threads that used one request at once would get each other's outputs.
        """
        with self.lock, self.converted_errors():
            outputs = request.infer([images], share_inputs=True)
        return finite(outputs[0]), finite(outputs[1])
