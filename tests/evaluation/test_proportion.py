import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from resnets.errors import UsageError
from resnets.evaluation.proportion import Proportion


@st.composite
def proportions(draw):
    total = draw(st.integers(1, 2000))
    return Proportion(draw(st.integers(0, total)), total)


def test_the_interval_is_newcombes_published_one():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson)
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611)}
    for (count, total), ends in published.items():
        assert Proportion(count, total).interval == pytest.approx(ends, abs=5e-5)


@given(proportions())
def test_an_interval_holds_its_proportion_and_solves_wilsons_equation(proportion):
    low, high = proportion.interval
    assert 0 <= low <= proportion.value <= high <= 1
    for end in {low, high} - {0, 1}:  # |p - end| = z sqrt(end (1 - end) / n)
        distance = 1.959964 * math.sqrt(end * (1 - end) / proportion.total)
        assert abs(proportion.value - end) == pytest.approx(distance, rel=1e-4, abs=1e-9)


@given(proportions(), st.floats(0.5, 0.999))
def test_the_upper_bound_is_the_rate_at_which_so_few_would_be_as_rare_as_doubt(proportion, level):
    bound = proportion.upper_bound(level)
    if proportion.count == proportion.total:
        assert bound == 1
        return
    assert binom.cdf(proportion.count, proportion.total, bound) == pytest.approx(1 - level)
    exact = beta.ppf(level, proportion.count + 1, proportion.total - proportion.count)
    assert bound == pytest.approx(exact)


@pytest.mark.parametrize(("count", "total"), [(1, 0), (0, 0), (-1, 3), (4, 3)])
def test_a_proportion_outside_zero_to_one_is_refused(count, total):
    with pytest.raises(UsageError, match=f"{count}/{total}"):
        Proportion(count, total)
