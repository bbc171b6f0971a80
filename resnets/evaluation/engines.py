"""What computes logits: an `Engine` for each runtime."""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from resnets.evaluation.predict import Engine
    from resnets.networks import ResNet


def in_torch(network: "ResNet") -> "Engine":
    """PyTorch as the engine, on the device where the network is."""
    device = next(network.parameters()).device

    def engine(images: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(images).to(device)).float().cpu().numpy()

    return engine
