import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.training.budget import MOST, Speed, cadence, fitted, seconds
from resnets.training.recipe import Recipe


@pytest.mark.parametrize("text", ["", "20", "20 m", "m", "1x", "-5m", "0s", "1m2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        seconds(text)


def test_a_cadence_of_zero_steps_is_refused() -> None:
    with pytest.raises(UsageError):
        cadence("0")


@given(
    step=st.floats(1e-4, 10),
    validation=st.floats(0, 100),
    budget=st.floats(1, 1e5),
    per_epoch=st.integers(1, 5000),
    first_scale=st.sampled_from([1.0, 0.75, 0.3]),
)
def test_what_fits_takes_no_longer_than_the_budget_and_uses_most_of_it(
    step: float, validation: float, budget: float, per_epoch: int, first_scale: float
) -> None:
    start = Recipe(training_size=32, first_scale=first_scale)
    speed = Speed(step, validation, step * start.first_share)
    try:
        recipe = fitted(start, speed, budget, per_epoch)
    except UsageError:
        assert 0.97 * budget < step + validation + 1e-6
        return
    steps = recipe.total_steps(per_epoch)
    validations = -(-steps // per_epoch)
    pixels = 0.0
    for epoch in range(validations):
        side = recipe.size_in(epoch, per_epoch) or 32
        pixels += side**2 * min(per_epoch, steps - epoch * per_epoch)
    time = pixels / 32**2 * step + validations * validation
    assert time <= budget
    unused = 0.97 * budget - time
    one_more = per_epoch * step + validation if recipe.epochs else step + validation
    assert recipe.epochs == MOST or unused <= one_more + 1e-6 * budget


def test_the_schedule_ends_with_the_budget() -> None:
    """58.685 s are planned: five epochs of 11 s, 26 steps more and their validation."""
    recipe = fitted(Recipe(), Speed(0.1, 1.0), 60.5, 100)
    assert recipe.total_steps(100) == recipe.steps == 526


@pytest.mark.parametrize(("first", "epochs"), [(0.1, 52), (0.05, 60), (0.2, 52)])
def test_smaller_images_save_what_was_measured(first: float, epochs: int) -> None:
    """582 s are planned, of 11 s an epoch; at 168 of 224 pixels, of 6 s where they take half."""
    recipe = fitted(Recipe(training_size=224, first_scale=0.75), Speed(0.1, 1.0, first), 600, 100)
    assert recipe.epochs == epochs
    spent = sum(
        1 + 10 * (1 - (1 - side**2 / 224**2) / (1 - 168**2 / 224**2) * max(0, 1 - first / 0.1))
        for epoch in range(epochs)
        for side in [recipe.size_in(epoch, 100) or 224]
    )
    assert 582 - 11 < spent <= 582
