import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from resnets.errors import UsageError
from resnets.evaluation.paired import Pairs, compare

counts = st.integers(0, 200)
tables = st.builds(Pairs, counts, counts, counts, counts).filter(lambda pairs: pairs.total > 0)


def test_fagerlands_published_example_comes_out():
    # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8:
    # complete response before and after therapy (Cavo et al. 2012), as their R package prints it
    pairs = Pairs(both=59, only_a=16, only_b=6, neither=80)
    assert round(pairs.difference, 4) == -0.0621
    assert [round(end, 4) for end in pairs.interval] == [-0.1240, -0.0054]
    assert round(pairs.p_value, 6) == 0.052479


@given(tables)
def test_swapping_the_networks_changes_nothing_but_the_sign(pairs):
    swapped = Pairs(pairs.both, pairs.only_b, pairs.only_a, pairs.neither)
    assert swapped.p_value == pytest.approx(pairs.p_value)
    assert swapped.difference == -pairs.difference
    assert swapped.interval == pytest.approx([-end for end in pairs.interval[::-1]], abs=1e-6)


@given(tables)
def test_the_interval_holds_the_difference_within_its_limits(pairs):
    low, high = pairs.interval
    assert -1 <= low <= pairs.difference <= high <= 1
    assert low < high


@given(tables.filter(lambda pairs: pairs.only_a + pairs.only_b > 0))
def test_the_interval_leaves_out_zero_just_where_mcnemars_uncorrected_test_refuses_it(pairs):
    wins, losses = pairs.only_b, pairs.only_a
    score = abs(wins - losses) / math.sqrt(wins + losses)
    low, high = pairs.interval
    if abs(score - norm.ppf(0.975)) > 1e-6:
        assert (low > 0 or high < 0) == (score > norm.ppf(0.975))


@settings(max_examples=40)
@given(tables)
def test_the_ends_are_where_the_score_of_the_likeliest_table_reaches_the_95_percent_point(pairs):
    wins, losses, total = pairs.only_b, pairs.only_a, pairs.total
    for end in pairs.interval:
        if abs(end) > 1 - 1e-6:
            continue

        def unlikely(loss, end=end):  # minus the log-likelihood of `loss` = P(only A is right)
            win, same = loss + end, 1 - 2 * loss - end
            parts = ((wins, win), (losses, loss), (total - wins - losses, same))
            return -sum(n * math.log(max(p, 1e-300)) for n, p in parts if n)

        limits = (max(0, -end), (1 - end) / 2)
        loss = minimize_scalar(
            unlikely, bounds=limits, method="bounded", options={"xatol": 1e-12}
        ).x
        variance = total * (2 * loss + end - end**2)
        score = abs(wins - losses - total * end) / math.sqrt(variance)
        assert score == pytest.approx(norm.ppf(0.975), rel=5e-3)


def test_the_interval_covers_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    chances = np.array([0.80, 0.06, 0.09, 0.05])
    drawn = generator.multinomial(300, chances, size=600)
    hit = [low <= 0.03 <= high for low, high in (Pairs(*map(int, row)).interval for row in drawn)]
    assert 0.92 <= np.mean(hit) <= 0.98


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 2**32))
def test_the_counts_are_those_of_a_loop_over_the_images(total, classes, seed):
    generator = np.random.default_rng(seed)
    said_a, said_b, labels = generator.integers(0, classes, (3, total))
    comparison = compare(said_a, said_b, labels, [f"class {k}" for k in range(classes)])
    expected = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    decisive, otherwise = [], []
    for i, (a, b, label) in enumerate(zip(said_a, said_b, labels, strict=True)):
        expected[bool(a == label), bool(b == label)] += 1
        decisive += [i] if (a == label) != (b == label) else []
        otherwise += [i] if label not in (a, b) and a != b else []
    assert comparison.pairs == Pairs(*expected.values())
    assert comparison.decisive == tuple(decisive)
    assert comparison.otherwise_wrong == tuple(otherwise)
    rows = [row.pairs for row in comparison.classes if row.pairs]
    assert sum(row.total for row in rows) == total
    assert sum(row.only_a for row in rows) == comparison.pairs.only_a
    first, second = comparison.accuracies
    assert second.value - first.value == pytest.approx(comparison.pairs.difference)


def test_looking_at_many_classes_makes_each_less_convincing():
    # 1 of 20 classes is better by 6 images to none, p = 2/64; among twenty that is no news
    labels = np.repeat(np.arange(20), 6)
    said_a = np.where(labels == 7, 0, labels)
    comparison = compare(said_a, labels, labels, [str(k) for k in range(20)])
    assert comparison.classes[7].pairs.p_value == pytest.approx(2 / 64)
    assert comparison.classes[7].adjusted == pytest.approx(20 * 2 / 64)
    assert comparison.classes[6].adjusted == 1


def test_the_verdict_says_which_by_how_much_and_whether_it_is_chance():
    right, wrong = np.zeros(1000, int), np.ones(1000, int)
    labels, names = right, ["cat", "dog"]
    better = np.where(np.arange(1000) < 50, wrong, right)
    assert (
        compare(better, right, labels, names)
        .verdict("old", "new")
        .startswith("new is better by 5.00 points (95 % interval 3.")
    )
    assert (
        compare(right, better, labels, names)
        .verdict("old", "new")
        .startswith("old is better by 5.00 points (95 % interval 3.")
    )
    little = np.where(np.arange(1000) < 3, wrong, right)
    assert "not show which is better: new is ahead by 0.30 points" in compare(
        little, right, labels, names
    ).verdict("old", "new")
    same = compare(right, right, labels, names)
    assert same.verdict().startswith("A and B are right equally often")
    assert not same.real


def test_a_comparison_goes_into_json():
    comparison = compare([0, 1, 1], [0, 0, 1], [0, 0, 0], ["cat", "dog", "unseen"])
    read = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert read["pairs"] == {"both": 1, "only_a": 0, "only_b": 1, "neither": 1}
    assert read["classes"][2] == {"name": "unseen", "pairs": None, "adjusted": 1.0}
    assert read["decisive"] == [1]
    assert read["p_value"] == 1
    assert read["accuracy_b"]["count"] == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([0, 1], [0], [0, 1]), "must all be"),
        (([], [], []), "must all be"),
        (([0], [0], [2]), "label 2: there are 2 class names"),
    ],
)
def test_predictions_that_do_not_fit_together_are_refused(arrays, message):
    with pytest.raises(UsageError, match=message):
        compare(*arrays, ["a", "b"])
