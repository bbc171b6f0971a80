"""PyTorch as an engine, for files of torch.export and for model files."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from resnets.deployment.exported.reading import description_from, read_torch
from resnets.evaluation.eager import Eager
from resnets.evaluation.engine import (
    Engine,
    Floats,
    check_images,
    engine_in_a_line,
    finite,
    frames_of,
)
from resnets.images import Pixels
from resnets.model_file import Description, load

_Run = Callable[[Tensor], tuple[Tensor, Tensor]]


class TorchProgram:
    """Runs a function from images to probabilities and features: see `engine.Engine`."""

    name = "torch"

    def __init__(self, run: _Run, description: Description, threads: int = 0) -> None:
        self.call, self.description, self.threads = run, description, threads

    def __repr__(self) -> str:
        return engine_in_a_line(self)

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        return self.outputs(images)[0]

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        return self.outputs(images)[1]

    def outputs(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        return self.graph(frames_of(images, self.description.preprocessing))

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        with torch.inference_mode():
            probabilities, features = self.call(torch.from_numpy(images))
        return finite(probabilities.numpy()), finite(features.numpy())


def open_torch(path: Path, threads: int = 0) -> Engine:
    """An engine for a model file.

    Raises:
        ContentError: the file is damaged or not this package's.
    """
    if threads:
        torch.set_num_threads(threads)
    return Eager(load(path))


def open_program(path: Path) -> TorchProgram:
    """An engine for a .pt2 that this process has just written.

    Never open another file: `torch.export.load` runs the code in its pickles, expressions and
    libraries.

    Raises:
        ContentError: the file is not this package's.
    """
    description = description_from(read_torch(path), str(path))
    return TorchProgram(torch.export.load(path).module(), description)
