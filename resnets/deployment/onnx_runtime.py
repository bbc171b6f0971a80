"""ONNX Runtime as an engine."""

from pathlib import Path
from typing import Any

from resnets.deployment.engine import Floats, check_images, framed
from resnets.deployment.exported import check_outputs, description_from, read_onnx
from resnets.errors import ContentError, require
from resnets.images import Pixels

QUIET = 4  # only fatal errors: the others are raised too


class OnnxRuntime:
    """Runs an exported .onnx file on the CPU: see `engine.Engine`.

    One image alone is computed by a session of fixed shape, for which ONNX Runtime computes ahead
    all that depends on the shape; that for several is made when it is first needed.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.runtime = require("onnxruntime", "onnx")
        self.path, self.threads = path, threads
        self.content, header = read_onnx(path)
        self.description = description_from(header, str(path))
        side = self.description.preprocessing.resize
        self.single = self.open(batch=1, height=side, width=side)
        self.several: Any = None

    def open(self, **sizes: int) -> Any:
        """A session; with sizes, for just these.

        Raises:
            ContentError: ONNX Runtime refuses the file, or it is not what its metadata say.
        """
        options = self.runtime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = self.threads
        for name, size in sizes.items():
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
        session = self.single if len(frames) == 1 else self.for_several()
        try:
            return session.run([output], {"images": frames})[0]
        except Exception as error:
            raise self.fault(error) from None

    def for_several(self) -> Any:
        """The session for any number of images of any size."""
        if self.several is None:
            self.several = self.open()
        return self.several

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        try:
            probabilities, features = self.for_several().run(None, {"images": images})
        except Exception as error:
            raise self.fault(error) from None
        return probabilities, features


def number(shape: list[int | str | None]) -> int | None:
    """The last size of a shape, if it is fixed."""
    return shape[-1] if shape and isinstance(shape[-1], int) else None
