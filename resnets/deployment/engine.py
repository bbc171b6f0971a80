"""Engines: one small interface over PyTorch, ONNX Runtime and OpenVINO.

Shapes: B images of a batch, H x W pixels, C channels, K classes, F features. Importing this module
imports no runtime, and only the engine named "torch" imports torch.
"""

import importlib.util
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from resnets.deployment.exported import is_exported
from resnets.errors import UsageError
from resnets.images import Pixels, Preprocessing
from resnets.model_file import Description

EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]
Floats = NDArray[np.float32]

RUNS: dict[str, tuple[str, ...]] = {  # ending: the engines that run such a file
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
    ".safetensors": ("torch",),
}


class Engine(Protocol):
    """Runs a network on the CPU; safe to call from one thread at a time.

    Attributes:
        name: onnxruntime, openvino or torch.
        description: of the network: its classes, preprocessing and calibration.
        threads: that compute; 0 is the runtime's own choice.
    """

    name: str
    description: Description
    threads: int

    def probabilities(self, images: Pixels) -> Floats:
        """Calibrated probabilities (B, K) of raw images (B, H, W, C) uint8, of any H and W.

        Where the shorter side is not what the network wants, each image is resized here as in
        training. (B, R, R, C), with R the preprocessing's `resize`, is passed on as it is.

        Raises:
            UsageError: the images are of another type or shape, or there is none.
        """

    def features(self, images: Pixels) -> Floats:
        """What the classifier sees, (B, F), for search by likeness; images as above."""

    def graph(self, images: Pixels) -> tuple[Floats, Floats]:
        """Both, with all preprocessing done in the file's graph, as its other users have it."""


def open_engine(path: str | Path, engine: EngineName = "auto", threads: int = 0) -> Engine:
    """Open a network for inference.

    Args:
        path: an exported file (.onnx, OpenVINO's .xml, .pt2) or a model file.
        engine: which runtime; auto takes the one that is fastest here.
        threads: that compute; 0 is the runtime's own choice.

    Raises:
        UsageError: there is no such file or engine, or this engine does not run such a file.
        ContentError: the file is damaged, hostile, or not this package's.
        MissingExtra: the runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if threads < 0:
        raise UsageError(f"threads is {threads}; it must be 0 (the runtime chooses) or more")
    ending = path.suffix.lower() if is_exported(path) else ".safetensors"
    able = RUNS[ending]
    name = able[0] if engine == "auto" else engine
    if name not in able:
        raise UsageError(f"{path}: run by {' or '.join(able)}, not by {name}")
    if name == "onnxruntime":
        from resnets.deployment.onnx_runtime import OnnxRuntime

        return OnnxRuntime(path, threads)
    if name == "openvino":
        from resnets.deployment.openvino_runtime import OpenVino

        return OpenVino(path, threads)
    from resnets.deployment.torch_runtime import open_torch

    return open_torch(path, threads)


def installed(name: str) -> bool:
    """Whether a runtime can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def framed(images: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Images with what the network sees in their middle: (B, H, W, C) -> (B, R, R, C).

    R is the preprocessing's `resize`, so that a graph that prepares images by itself only crops
    them. The margin around the square that it cuts out is black.

    Raises:
        UsageError: the images are not (B, H, W, C) uint8, or there is none.
    """
    side, size = preprocessing.resize, preprocessing.size
    wanted = (side, side, preprocessing.channels)
    if images.shape[1:] == wanted and images.dtype == np.uint8 and len(images):
        return images
    check_images(images, preprocessing.channels)
    frames = np.zeros((len(images), *wanted), np.uint8)
    start = (side - size) // 2
    middle = slice(start, start + size)
    for frame, image in zip(frames, images, strict=True):
        frame[middle, middle] = preprocessing.pixels(image).transpose(1, 2, 0)
    return frames


def check_images(images: Any, channels: int) -> None:
    """Refuse what is not a batch of images.

    Raises:
        UsageError: it is not (B, H, W, C) uint8 with at least one image and one pixel.
    """
    expected = f"(B, H, W, {channels}) of uint8"
    if not isinstance(images, np.ndarray):
        raise UsageError(f"images is {type(images).__name__}; expected an array {expected}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != channels:
        raise UsageError(
            f"images of shape {images.shape} and type {images.dtype}; expected {expected}"
        )
    if 0 in images.shape:
        raise UsageError(f"images of shape {images.shape}: there is no image, or no pixel in it")
