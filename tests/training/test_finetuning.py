"""The steps of fine-tuning, beside those of timm's parameter groups with torch's optimizer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from resnets.networks import build
from resnets.training.named_recipes import RECIPES
from resnets.training.optimisation import clip_gradients, make_optimizer, set_rate
from resnets.training.schedules import make_schedule
from tests.fixtures.parity import fill

THEIRS = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "finetuning" / "resnet18.json").read_text()
)


def test_a_network_is_fine_tuned_as_timm_and_torch_do_it():
    """Every loss, norm of the gradient, rate and parameter; `make.py` beside the file wrote them.

    Six images, batch norms that keep their statistics, gradients clipped in most steps.
    """
    steps = THEIRS["steps"]
    recipe = replace(
        RECIPES["transfer"], network="resnet18", epochs=len(steps), learning_rate=0.01
    ).resolved(side=128, count=6)
    network = build("resnet18", num_classes=3)
    state = {
        key: torch.from_numpy(fill.weights(key, tuple(value.shape)))
        for key, value in network.state_dict().items()
    }
    state |= {key: 0.2 * value for key, value in state.items() if key.endswith("bn2.weight")}
    network.load_state_dict(state)
    network.double().train()
    network.freeze(None, statistics=bool(recipe.freeze_statistics))
    optimizer = make_optimizer(network, recipe)
    factor = make_schedule(recipe, steps_per_epoch=1)
    images = torch.from_numpy(fill.images((6, 3, 64, 64))).double()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for number, expected in enumerate(steps):
        set_rate(optimizer, recipe.rate * factor(number))
        loss = nn.functional.cross_entropy(network(images), torch.arange(6) % 3)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_gradients(network.parameters(), recipe.clip_norm)
        rates = {group["lr"] for group in optimizer.param_groups}
        optimizer.step()
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-6), number
        assert norm.item() == pytest.approx(expected["norm"], rel=1e-6), number
        assert sorted(rates) == pytest.approx(expected["rates"], rel=1e-9), number
    assert any(step["norm"] > recipe.clip_norm for step in steps)
    moved = {
        name: (value.detach() - before[name]).abs().mean().item()
        for name, value in network.named_parameters()
    }
    assert moved == pytest.approx(THEIRS["moved"], rel=1e-6)
