"""A server by LitServe: python litserve_server.py PORT, with the variable SETTINGS."""

import sys
from typing import Any

import litserve
from fastapi import Request
from pillow_onnx import Network, decoded, opened, opened_base64, settings


class Photos(litserve.LitAPI):
    """Photos as the file of a form, or as {"image": BASE64}."""

    def setup(self, device: str) -> None:  # noqa: ARG002  (LitServe passes it)
        """Open the network, in the worker's process."""
        self.side, self.network = settings()["side"], Network(settings()["model"])

    def decode_request(self, request: Request) -> Any:
        """The pixels of a photo."""
        image = request["image"]
        photo = opened_base64(image) if isinstance(image, str) else opened(image.file.read())
        return decoded(photo, self.side)

    def batch(self, inputs: list[Any]) -> list[Any]:
        """As they are: the network stacks them."""
        return inputs

    def predict(self, x: list[Any]) -> list[dict[str, Any]]:
        """The predictions of a batch."""
        return self.network(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The predictions one by one."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """JSON."""
        return output


if __name__ == "__main__":
    api = Photos(max_batch_size=settings()["batch"], batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
