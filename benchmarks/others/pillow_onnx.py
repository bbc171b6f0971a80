"""Decoding by Pillow and prediction by ONNX Runtime on one thread: what other servers serve.

    python pillow_onnx.py SETTINGS PHOTO ...

prints the images a second of this alone, one at a time and in batches, and the place of the most
probable class of each photo. Needs numpy, onnxruntime and Pillow only. SETTINGS is a JSON file with
`model` (an ONNX file of `resnets export`), `side` (of the images that it takes), `batch` (at most
so many images at once) and `seconds` (to measure); servers find it by the variable SETTINGS.
"""

import base64
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

TOP = 5


def settings(file: str | None = None) -> dict[str, Any]:
    """What to serve, of a file or of the one that the variable SETTINGS names."""
    return dict(json.loads(Path(file or os.environ["SETTINGS"]).read_text(encoding="utf-8")))


def opened(content: bytes) -> Image.Image:
    """A photo whose pixels are not decoded yet."""
    return Image.open(io.BytesIO(content))


def opened_base64(text: str) -> Image.Image:
    """Likewise of a text in JSON."""
    return opened(base64.b64decode(text))


def decoded(image: Image.Image, side: int) -> np.ndarray:
    """The middle of a photo (side, side, 3) uint8, its shorter side scaled to `side` pixels.

    As torchvision's Resize and CenterCrop.
    """
    short = min(image.size)
    size = (int(side * image.width / short), int(side * image.height / short))
    image = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


class Network:
    """A session of ONNX Runtime on one thread."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        """The most probable classes of images, as a response in JSON holds them."""
        (probabilities,) = self.session.run(["probabilities"], {"images": np.stack(images)})
        return [as_json(each) for each in probabilities]


def as_json(probabilities: np.ndarray) -> dict[str, Any]:
    """The prediction of an image."""
    order = np.argsort(probabilities)[::-1][:TOP]
    top = [{"class": int(n), "probability": float(probabilities[n])} for n in order]
    return {"prediction": top[0]["class"], "top": top}


def images_per_second(network: Network, photos: list[bytes], side: int, batch: int) -> float:
    """Decoding and computing photos in one loop, for some seconds."""
    done, begin, seconds = 0, 0.0, 0.0
    while seconds < settings(sys.argv[1])["seconds"]:
        some = [photos[(done + n) % len(photos)] for n in range(batch)]
        network([decoded(opened(photo), side) for photo in some])
        done += batch
        if not begin:  # after the first, which warms up
            done, begin = 0, time.perf_counter()
        seconds = time.perf_counter() - begin
    return done / seconds


def main() -> None:
    """Measure, and print JSON."""
    about = settings(sys.argv[1])
    photos = [Path(file).read_bytes() for file in sys.argv[2:]]
    network, side = Network(about["model"]), about["side"]
    speeds = [images_per_second(network, photos, side, size) for size in {1, about["batch"]}]
    classes = [network([decoded(opened(photo), side)])[0]["prediction"] for photo in photos]
    print(json.dumps({"images/s": max(speeds), "classes": classes}))


if __name__ == "__main__":
    main()
