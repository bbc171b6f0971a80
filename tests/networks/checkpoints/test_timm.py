"""timm's networks, against what timm computes: `tests/fixtures/parity/make.py` wrote it."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resnets.networks import CATALOG, Architecture, build, load_checkpoint
from resnets.networks.checkpoints.conversion import convert
from resnets.networks.checkpoints.foreign import _understand
from resnets.networks.printed.reading import read_printed
from tests.fixtures.parity import fill
from tests.spread import spread

FOLDER = Path(fill.__file__).parent
FACTS: dict[str, Any] = {
    path.name.partition(".")[0]: json.loads(gzip.decompress(path.read_bytes()))
    for path in sorted(FOLDER.glob("*.json.gz"))
}
CHAOTIC = ("ecaresnet101d",)  # on some processors: hundred layers with attention


def _kind(name: str) -> Architecture:
    """What networks have in common that differ only in their depths and widths."""
    architecture = CATALOG[name].architecture
    groups = 2 if architecture.groups > 1 else 1
    depths = (1,) * len(architecture.depths)
    return replace(architecture, depths=depths, width=64, base_width=64, groups=groups)


SMALLEST = {  # of each kind: the same code computes the others
    _kind(name): name
    for name in sorted(FACTS, key=lambda name: -FACTS[name]["parameters"])
    if "logits" in FACTS[name]
}


def filled(facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        key: torch.from_numpy(fill.weights(key, tuple(shape)))
        for key, shape in facts["state"].items()
    }


@pytest.mark.parametrize("name", spread(SMALLEST.values(), every=2))
def test_a_checkpoint_of_timms_computes_here_what_it_computes_there(
    name: str, tmp_path: Path
) -> None:
    facts = FACTS[name]
    torch.save(filled(facts), tmp_path / f"{name}.pth")
    # a filter before a stride has no weights that could show it
    blur = {"blur": CATALOG[name].architecture.blur}
    network = load_checkpoint(tmp_path / f"{name}.pth", **blur)
    assert network.architecture == CATALOG[name].architecture
    with torch.inference_mode():  # in float64: deep networks with such weights multiply rounding
        images = torch.from_numpy(fill.images(tuple(facts["input"]))).double()
        logits, rounded = network.double()(images), network(images * (1 + 1e-15))
    # attention multiplies even the rounding of float64, which is another one on each processor
    tolerance = max(1e-6, 100 * ((rounded - logits).norm() / logits.norm()).item())
    if name in CHAOTIC and tolerance > 0.02:
        pytest.skip(f"rounding on this processor changes its logits by a share of {tolerance:.2g}")
    assert tolerance < 0.02
    expected = torch.tensor(facts["logits"], dtype=torch.float64)
    assert (logits[:, :16] - expected).norm() < tolerance * expected.norm()
    assert logits.norm().item() == pytest.approx(facts["logit_norm"], rel=tolerance)


@pytest.mark.parametrize("name", FACTS)
def test_a_network_of_timms_has_its_weights_and_goes_back_under_their_names(name: str) -> None:
    facts = FACTS[name]
    with torch.device("meta"):
        network = build(name)
        theirs = convert(network, "timm")
    assert sum(p.numel() for p in network.parameters()) == facts["parameters"]
    assert {key: list(value.shape) for key, value in theirs.items()} == facts["state"]
    changes = {"blur": network.architecture.blur}
    assert _understand(theirs, **changes).architecture == network.architecture


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if "printed" in facts])
def test_what_timm_prints_is_read(name: str) -> None:
    assert read_printed(FACTS[name]["printed"]) == CATALOG[name].architecture
