"""ONNX Runtime as an engine."""

from pathlib import Path
from typing import Any

from resnets.deployment.engine import Floats, check_images, framed
from resnets.deployment.exported import check_outputs, description_from, read_onnx
from resnets.deployment.shapes import Graphs
from resnets.errors import ContentError, require
from resnets.images import Pixels

QUIET = 4  # only fatal errors: the others are raised too


class OnnxRuntime:
    """Runs an exported .onnx file on the CPU: see `engine.Engine`.

    Its sessions are made as `Graphs` says.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.runtime = require("onnxruntime", "onnx")
        self.path, self.threads = path, threads
        self.content, header = read_onnx(path)
        self.description = description_from(header, str(path))
        self.sessions = Graphs(self.open)

    def open(self, batch: int | None) -> Any:
        """A session for so many images at the size of the network; of None, for any of any size.

        Raises:
            ContentError: ONNX Runtime refuses the file, or it is not what its metadata say.
        """
        options = self.runtime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = self.threads
        side = self.description.preprocessing.resize
        for name, size in {"batch": batch, "height": side, "width": side}.items():
            if batch is not None:
                options.add_free_dimension_override_by_name(name, size)
        try:
            session = self.runtime.InferenceSession(
                self.content, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:
            raise self.fault(error) from None
        given, made = session.get_inputs(), session.get_outputs()
        if [each.name for each in (*given, *made)] != ["images", "probabilities", "features"]:
            raise ContentError(f"{self.path}: its graph does not go from images to probabilities")
        channels, classes = number(given[0].shape), number(made[0].shape)
        check_outputs(self.description, channels, classes, str(self.path))
        return session

    def fault(self, error: Exception) -> ContentError:
        """What ONNX Runtime raised, of types that are not public, in words."""
        reason = " ".join(str(error).split())[:200]
        return ContentError(f"{self.path}: ONNX Runtime cannot run it: {reason}")

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        found: Floats = self.run(images, "probabilities")
        return found

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        found: Floats = self.run(images, "features")
        return found

    def run(self, images: Pixels, output: str) -> Any:
        """One output of the graph."""
        frames = framed(images, self.description.preprocessing)
        session = self.sessions.for_batch(len(frames))
        try:
            return session.run([output], {"images": frames})[0]
        except Exception as error:
            raise self.fault(error) from None

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        try:
            probabilities, features = self.sessions.for_any().run(None, {"images": images})
        except Exception as error:
            raise self.fault(error) from None
        return probabilities, features


def number(shape: list[int | str | None]) -> int | None:
    """The last size of a shape, if it is fixed."""
    return shape[-1] if shape and isinstance(shape[-1], int) else None
