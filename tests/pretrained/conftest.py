"""A hub on this machine that has networks under their published ids, filled by their names."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from resnets.networks import build
from tests.hub_server import HubServer

ID = "timm/resnet10t.c3_in1k"


def _value(name: str, shape: torch.Size) -> torch.Tensor:
    """The tensor of a name, drawn from its checksum."""
    draws = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if len(shape) > 1:
        return torch.randn(shape, generator=draws) * (2 / shape[1:].numel()) ** 0.5
    if name.endswith(("running_mean", "bias")):
        return torch.randn(shape, generator=draws) * 0.1
    return torch.rand(shape, generator=draws) + 0.5


def filled(network: str) -> dict[str, torch.Tensor]:
    """The weights of a network, each drawn from its name."""
    state = build(network).state_dict()
    return {name: _value(name, value.shape) for name, value in state.items()}


def files_for(network: str, content: bytes, licence: str = "apache-2.0") -> dict[str, bytes]:
    """A repository as timm writes it, of the values that its table has for resnet10t.c3_in1k."""
    config = {
        "architecture": network,
        "num_classes": 1000,
        "pretrained_cfg": {
            "input_size": [3, 176, 176],
            "test_input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "test_crop_pct": 0.95,
            "crop_mode": "center",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "num_classes": 1000,
            "license": licence,
        },
    }
    return {"config.json": json.dumps(config).encode(), "model.safetensors": content}


def know_address(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hub's library know the address as if it was imported now, which uploads need."""
    constants = pytest.importorskip("huggingface_hub.constants")
    template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    """Those of a ResNet-10-T, by the names that timm and this package have for them."""
    return filled("resnet10t")


@pytest.fixture(scope="session")
def safetensors_file(weights: dict[str, torch.Tensor]) -> bytes:
    """A file of the weights."""
    return save(weights)


@pytest.fixture
def published(
    safetensors_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """A hub with a network, for this process; the caches are empty."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with HubServer() as hub:
        hub.add(ID, files_for("resnet10t", safetensors_file))
        environment = hub.environment(tmp_path / "hf") | {
            "RESNETS_CACHE": str(tmp_path / "own"),
            "TORCH_HOME": str(tmp_path / "torch"),
            "RESNETS_TORCHVISION_URL": f"{hub.address}/files",
        }
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
        yield hub
