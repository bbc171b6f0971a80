"""A server by BentoML: bentoml serve bentoml_service:Photos, with the variable SETTINGS."""

from typing import Any

import bentoml
from PIL.Image import Image
from pillow_onnx import Network, decoded, opened_base64, settings

_BATCHES: dict[str, Any] = {
    "batchable": True,
    "max_batch_size": settings()["batch"],
    "max_latency_ms": 30_000,
}


@bentoml.service(workers=1, traffic={"timeout": 30, "max_concurrency": 256})
class Photos:
    """Photos as the files of a form, or as {"images": [BASE64]}; requests share batches."""

    def __init__(self) -> None:
        self.side, self.network = settings()["side"], Network(settings()["model"])

    @bentoml.api(**_BATCHES)
    def predict(self, images: list[Image]) -> list[dict[str, Any]]:
        """The predictions of a batch."""
        return self.network([decoded(image, self.side) for image in images])

    @bentoml.api(**_BATCHES)
    def predict_base64(self, images: list[str]) -> list[dict[str, Any]]:
        """The predictions of a batch."""
        return self.network([decoded(opened_base64(image), self.side) for image in images])
