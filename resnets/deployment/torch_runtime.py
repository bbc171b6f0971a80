"""PyTorch as an engine, for what torch.export wrote and for model files."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from resnets.deployment.engine import Engine, Floats, check_images, framed
from resnets.deployment.exported import description_from, read_torch
from resnets.errors import ContentError
from resnets.evaluation.engines import Eager
from resnets.images import Pixels
from resnets.model_file import Description, load

Run = Callable[[Tensor], tuple[Tensor, Tensor]]


class Torch:
    """Runs a function from images to probabilities and features: see `engine.Engine`."""

    name = "torch"

    def __init__(self, run: Run, description: Description, threads: int = 0) -> None:
        self.call, self.description, self.threads = run, description, threads

    def probabilities(self, images: Pixels) -> Floats:
        """(B, K), see `engine.Engine`."""
        return self.graph(framed(images, self.description.preprocessing))[0]

    def features(self, images: Pixels) -> Floats:
        """(B, F), see `engine.Engine`."""
        return self.graph(framed(images, self.description.preprocessing))[1]

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """(B, K) and (B, F), see `engine.Engine`."""
        check_images(images, self.description.preprocessing.channels)
        with torch.inference_mode():
            probabilities, features = self.call(torch.from_numpy(images))
        return probabilities.numpy(), features.numpy()


def open_torch(path: Path, threads: int = 0) -> Engine:
    """An engine for a model file, which runs as it is, or for a .pt2.

    Raises:
        ContentError: the file is damaged or not this package's.
    """
    if threads:
        torch.set_num_threads(threads)
    if path.suffix.lower() != ".pt2":
        return Eager(load(path))
    description = description_from(read_torch(path), str(path))
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises anything on damaged archives
        reason = " ".join(str(error).split())[:200]
        raise ContentError(f"{path}: PyTorch cannot load it: {reason}") from None
    return Torch(program.module(), description, threads)
