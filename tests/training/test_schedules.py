"""Step by step against torch's schedulers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from resnets.training.recipe import Recipe
from resnets.training.schedules import make_schedule

STEPS = 120


def factors(steps: int = STEPS, **changes: object) -> list[float]:
    recipe = Recipe(epochs=0, steps=STEPS, **changes)
    return [make_schedule(recipe, steps_per_epoch=10)(step) for step in range(steps)]


def torch_factors(make, steps: int = STEPS) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine():
    theirs = torch_factors(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.02))
    assert factors(schedule="cosine", final_rate=0.02) == pytest.approx(theirs)


def test_step():
    theirs = torch_factors(lambda o: lr_scheduler.MultiStepLR(o, [36, 72, 108], gamma=0.2))
    ours = factors(schedule="step", milestones=(0.3, 0.6, 0.9), gamma=0.2)
    assert ours == pytest.approx(theirs)


def test_linear():
    theirs = torch_factors(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=STEPS))
    assert factors(schedule="linear", final_rate=0.1) == pytest.approx(theirs)


def test_one_cycle():
    """torch reaches the final rate at the last step, which with a rate of 0 learns nothing; here
    it would be reached one step later.
    """

    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=STEPS + 1,
            pct_start=(0.25 * STEPS + 1) / (STEPS + 1),  # its peak is at pct_start * total - 1
            anneal_strategy="linear",
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        )

    ours = factors(schedule="one-cycle", peak=0.25, first_rate=0.1, final_rate=0.001)
    assert ours == pytest.approx(torch_factors(make))


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 2.0}, {"warmup_steps": 20}])
def test_linear_warm_up_before_a_cosine(warmup):
    def make(optimizer):
        rise = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=20)
        fall = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - 20)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[20])

    assert factors(schedule="cosine", **warmup) == pytest.approx(torch_factors(make))


def test_constant_warm_up_before_a_constant_rate():
    theirs = torch_factors(lambda o: lr_scheduler.ConstantLR(o, 0.1, total_iters=7))
    assert factors(schedule="constant", warmup="constant", warmup_steps=7) == pytest.approx(theirs)


recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 20),
    schedule=st.sampled_from(["constant", "step", "linear", "cosine", "one-cycle"]),
    warmup=st.sampled_from(["linear", "constant"]),
    warmup_epochs=st.floats(0, 30),
    peak=st.floats(0, 1),
    first_rate=st.floats(0, 1),
    final_rate=st.floats(0, 1),
    milestones=st.lists(st.floats(0, 1), max_size=3).map(tuple),
)


@given(recipes, st.integers(1, 50))
def test_the_factor_is_within_0_and_1_and_falls_after_the_warm_up(recipe, steps_per_epoch):
    schedule = make_schedule(recipe, steps_per_epoch)
    total, warmup = recipe.total_steps(steps_per_epoch), recipe.warmup_length(steps_per_epoch)
    assert 0 <= warmup <= total
    run = [schedule(step) for step in range(total + 5)]
    assert all(0 <= factor <= 1 for factor in run)
    assert run[warmup:] == sorted(run[warmup:], reverse=True)
    assert run[:warmup] == sorted(run[:warmup])
