import math

import pytest
import torch

from resnets.errors import UsageError
from resnets.training.lr_finder import plot, range_test


def quadratic(curvature: float, start: float = 1.0):
    """Gradient descent on a parabola: it converges for rates below 2 / curvature alone."""
    place = [start]

    def train_step(rate: float) -> float:
        loss = curvature * place[0] ** 2 / 2
        place[0] -= rate * curvature * place[0]
        return loss

    return train_step


@pytest.mark.parametrize("curvature", [0.1, 1.0, 10.0, 100.0])
def test_the_suggestion_follows_the_curvature(curvature):
    """Descent is stable up to 2 / curvature; the suggestion lies a little below that."""
    result = range_test(quadratic(curvature), smallest=1e-5, largest=1e3, steps=150)
    assert result.diverged
    assert 0.01 / curvature < result.suggestion < 2 / curvature


def bumpy(rate: float) -> float:
    """Falls by 1 nat a decade from 1e-3, is thrown up at 0.03, and then falls twice as fast."""
    decades = math.log10(rate)
    first = 3 - max(0.0, decades + 3)
    return first if rate < 0.03 else 8 - 4 * (decades - math.log10(0.03))


def test_what_falls_only_after_a_rise_is_not_suggested():
    result = range_test(bumpy, smallest=1e-4, largest=1, steps=200)
    assert not result.diverged
    assert 1e-3 < result.suggestion < 0.03
    again = result.smoothed[result.rates.index(result.suggestion) :]
    assert min(again) < result.smoothed[0] < max(again)  # it rose, and fell below the start


@pytest.mark.parametrize("height", [1.5, 2.0])
def test_a_single_bad_batch_is_no_lasting_rise(height):
    calls = []

    def train_step(rate: float) -> float:
        """Falls fastest at 0.1, as a logistic curve of the logarithm does at its middle."""
        calls.append(rate)
        bad = height if len(calls) == 30 else 1
        return bad * (0.2 + 2 / (1 + (rate / 0.1) ** 2))

    result = range_test(train_step, smallest=1e-4, largest=10, steps=100)
    assert 0.03 < result.suggestion < 0.5


def test_rates_are_evenly_spaced_in_their_logarithm():
    result = range_test(lambda _: 1.0, smallest=1e-4, largest=1e-1, steps=31)
    assert result.rates == pytest.approx([10 ** (-4 + i / 10) for i in range(31)])
    assert not result.diverged


def test_smoothing_leaves_a_constant_as_it_is():
    result = range_test(lambda _: 2.3, steps=20)
    assert result.smoothed == pytest.approx([2.3] * 20)


@pytest.mark.parametrize("last", [math.nan, math.inf, 1e9])
def test_it_stops_where_the_loss_diverges(last):
    calls = []

    def train_step(rate: float) -> float:
        calls.append(rate)
        return last if len(calls) == 15 else 1 / len(calls)

    result = range_test(train_step, steps=100)
    assert result.diverged
    assert len(calls) == 15
    assert all(map(math.isfinite, result.smoothed))


def test_it_finds_a_rate_that_trains_a_real_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(20, 50), torch.nn.ReLU(), torch.nn.Linear(50, 3))
    images = torch.randn(256, 20)
    labels = (images @ torch.randn(20, 3)).argmax(1)

    def train_step(rate: float) -> float:
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= rate * parameter.grad
        return loss.item()

    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = range_test(train_step, smallest=1e-4, largest=1e3, steps=120)
    network.load_state_dict(before)
    losses = [train_step(result.suggestion) for _ in range(100)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"smallest": 0.0}, "rates from 0 to 10 in 100 steps"),
        ({"smallest": 1.0, "largest": 0.1}, "rates from 1 to 0.1 in 100 steps"),
        ({"steps": 9}, "in at least 10 steps"),
    ],
)
def test_rates_that_do_not_grow_are_refused(rates, message):
    with pytest.raises(UsageError, match=message):
        range_test(lambda _: 1.0, **rates)


def test_a_loss_that_is_not_finite_at_once_says_to_start_lower():
    with pytest.raises(UsageError, match="not finite at a rate of 1e-05"):
        range_test(lambda _: math.nan)


def test_the_plot_is_written_in_the_format_of_its_suffix(tmp_path):
    result = range_test(quadratic(1.0), steps=40)
    plot(result, tmp_path / "rates.png")
    plot(result, tmp_path / "rates.svg")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert f"{result.suggestion:.2g}" in (tmp_path / "rates.svg").read_text(encoding="utf-8")
