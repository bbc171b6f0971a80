"""OpenVINO as an engine."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnets.deployment.engine import Floats, check_images, framed
from resnets.deployment.exported import (
    DESCRIPTION,
    check_outputs,
    description_from,
    header_from,
    read_onnx,
)
from resnets.errors import ContentError, require
from resnets.images import Pixels

PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


class OpenVino:
    """Runs an exported .xml (with its .bin) or .onnx file on the CPU: see `engine.Engine`.

    One image alone is computed by a model of fixed shape, for which OpenVINO computes ahead all
    that depends on the shape; those for several images and for any size are made when needed.
    """

    name = "openvino"

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.runtime = require("openvino", "openvino")
        self.path, self.threads = path, threads
        if path.suffix.lower() == ".onnx":
            content, header = read_onnx(path)
            self.model = self.read(io.BytesIO(content))
        else:
            self.model = self.read(path)
            header = self.header()
        self.description = description_from(header, str(path))
        self.side = self.description.preprocessing.resize
        self.check()
        self.requests: dict[tuple[int, int], Any] = {}
        self.request(1, self.side)

    def read(self, source: Path | io.BytesIO) -> Any:
        """The model of a file."""
        with self.faults():
            return self.runtime.Core().read_model(source)

    def header(self) -> dict[str, str]:
        """What an .xml file says of itself."""
        if not self.model.has_rt_info([DESCRIPTION]):
            return {}
        return header_from(str(self.model.get_rt_info([DESCRIPTION]).value), str(self.path))

    def check(self) -> None:
        """Refuse a graph that its metadata do not describe."""
        ends = [*self.model.inputs, *self.model.outputs]
        names = [min(end.get_names(), default="") for end in ends]
        if names != ["images", "probabilities", "features"]:
            raise ContentError(f"{self.path}: its graph does not go from images to probabilities")
        last = [end.get_partial_shape()[-1] for end in ends[:2]]
        channels, classes = (size.get_length() if size.is_static else None for size in last)
        check_outputs(self.description, channels, classes, str(self.path))

    def request(self, batch: int, side: int) -> Any:
        """What computes batches of so many images, -1 for any number, of such a size."""
        if (batch, side) not in self.requests:
            options = PRECISION | {"INFERENCE_NUM_THREADS": self.threads}
            with self.faults():
                model = self.model.clone()
                model.reshape([batch, side, side, self.description.preprocessing.channels])
                compiled = self.runtime.Core().compile_model(model, "CPU", options)
                self.requests[batch, side] = compiled.create_infer_request()
        return self.requests[batch, side]

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what OpenVINO raises into a ContentError."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[-200:]
            raise ContentError(f"{self.path}: OpenVINO cannot run it: {reason}") from None

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        return self.run(framed(images, self.description.preprocessing), self.side)[0]

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        return self.run(framed(images, self.description.preprocessing), self.side)[1]

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        return self.run(images, -1)

    def run(self, images: Pixels, side: int) -> tuple[Floats, Floats]:
        """Both outputs, as arrays of their own."""
        request = self.request(1 if len(images) == 1 and side > 0 else -1, side)
        with self.faults():
            found = request.infer([images], share_inputs=True)
            return found[0], found[1]
