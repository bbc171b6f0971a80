import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.errors import UsageError
from resnets.training.budget import Speed, cadence, fitted, seconds
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
)
def test_what_fits_takes_no_longer_than_the_budget_and_uses_most_of_it(
    step: float, validation: float, budget: float, per_epoch: int
) -> None:
    speed = Speed(step, validation)
    try:
        recipe = fitted(Recipe(), speed, budget, per_epoch)
    except UsageError:
        assert 0.97 * budget < step + validation + 1e-6
        return
    steps = recipe.total_steps(per_epoch)
    validations = -(-steps // per_epoch)
    time = steps * step + validations * validation
    assert time <= budget
    unused = 0.97 * budget - time
    assert unused <= max(step + validation, 0.1 * budget) + 1e-6


def test_the_schedule_ends_with_the_budget() -> None:
    """58.685 s are planned: five epochs of 11 s, 26 steps more and their validation."""
    recipe = fitted(Recipe(), Speed(0.1, 1.0), 60.5, 100)
    assert recipe.total_steps(100) == recipe.steps == 526
