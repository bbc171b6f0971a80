"""Familiar and unfamiliar features: the score, its threshold, and what is measured of it."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics.pairwise import cosine_similarity

from resnets.errors import ContentError, UsageError
from resnets.evaluation import familiarity as module
from resnets.evaluation.familiarity import (
    Familiarity,
    OtherImages,
    class_directions,
    familiarity_of,
    fit_familiarity,
)

FEATURES = 6


def around(direction: int, count: int, seed: int, spread: float = 0.2) -> Any:
    """Features that point more or less along an axis."""
    random = np.random.default_rng(seed)
    return np.eye(FEATURES)[direction] * 3 + random.normal(0, spread, (count, FEATURES))


def two_classes(count: int = 200, seed: int = 0) -> Any:
    return np.concatenate([around(0, count, seed), around(1, count, seed + 1000)])


DIRECTIONS = class_directions(two_classes(), np.repeat([0, 1], 200))


def others(features: Any, confident: bool = True) -> OtherImages:
    return OtherImages(features, np.full(len(features), confident), "things")


def test_the_score_is_the_cosine_with_the_nearest_class_mean() -> None:
    """By scikit-learn."""
    features = np.random.default_rng(3).normal(size=(50, FEATURES))
    scores = fit_familiarity(DIRECTIONS, two_classes(seed=1)).scores(features)
    np.testing.assert_allclose(scores, cosine_similarity(features, DIRECTIONS).max(1), atol=1e-6)


def test_length_does_not_count_and_no_direction_is_unfamiliar() -> None:
    known = fit_familiarity(DIRECTIONS, two_classes(seed=1))
    assert known.familiar(np.eye(FEATURES)[:2] * 1e-3).tolist() == [True, True]
    odd = np.stack([np.zeros(FEATURES), np.full(FEATURES, np.nan), np.eye(FEATURES)[4]])
    assert known.familiar(odd).tolist() == [False, False, False]


def test_at_most_one_validation_image_in_twenty_is_lost_and_about_so_many_new_ones() -> None:
    known = fit_familiarity(DIRECTIONS, two_classes(500, seed=1))
    assert (known.lost.count, known.lost.total, known.total) == (50, 1000, 1000)
    new = ~known.familiar(two_classes(500, seed=7))
    low, high = binom.interval(0.9999, 1000, 0.05)
    assert low - 20 < new.sum() < high + 20  # the threshold is itself a draw
    few = fit_familiarity(DIRECTIONS, two_classes(9, seed=1))
    assert few.lost.count == 0
    assert few.familiar(two_classes(9, seed=1)).all()
    assert few.detected is None


def test_other_images_choose_the_threshold_and_the_other_halves_measure_it() -> None:
    far = around(4, 101, seed=5)
    known = fit_familiarity(DIRECTIONS, two_classes(100, seed=1), others(far))
    assert known.detected is not None
    assert known.passed is not None
    assert (known.detected.count, known.detected.total) == (51, 51)
    assert (known.lost.total, known.total) == (100, 100)
    assert known.lost.count <= 2
    assert known.passed.count == 0
    assert not known.familiar(far).any()
    assert "100.00 % (51/51" in known.in_words()


def test_images_that_cannot_be_told_apart_cost_few_of_ones_own_and_are_not_said_to_be_found() -> (
    None
):
    """Over many draws the halves that did not choose tell the truth: as many found as lost."""
    detected, lost, chosen = [], [], []
    for seed in range(60):
        same = others(two_classes(30, seed=2000 + seed))
        known = fit_familiarity(DIRECTIONS, two_classes(30, seed=seed), same, seed)
        assert known.detected is not None
        assert known.passed is not None
        assert known.passed.count == known.detected.total - known.detected.count
        detected.append(known.detected.value)
        lost.append(known.lost.value)
        chosen.append(np.mean(~known.familiar(two_classes(500, seed=seed))))
    assert np.mean(chosen) < 0.08
    error = np.std(np.subtract(detected, lost)) / np.sqrt(len(detected))
    assert abs(np.mean(detected) - np.mean(lost)) < 4 * error


def test_what_is_unsure_anyway_does_not_pass() -> None:
    near = two_classes(50, seed=9)
    for confident, passed in ((True, True), (False, False)):
        known = fit_familiarity(DIRECTIONS, two_classes(50, seed=1), others(near, confident))
        assert known.passed is not None
        assert (known.passed.count > 0) == passed


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_to_choose_and_measure_by_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=rf"{count} other images? and 100 validation images"):
        fit_familiarity(DIRECTIONS, two_classes(50), others(around(4, count, 0)))
    with pytest.raises(UsageError, match="no validation images"):
        fit_familiarity(DIRECTIONS, np.empty((0, FEATURES)))


def test_the_header_keeps_every_bit_of_it() -> None:
    for other_images in (None, others(around(4, 20, 5))):
        known = fit_familiarity(DIRECTIONS, two_classes(50, seed=1), other_images)
        again = familiarity_of(json.loads(json.dumps(known.to_dict())), FEATURES)
        assert again is not None
        assert again.in_words() == known.in_words()
        features = np.random.default_rng(3).normal(size=(500, FEATURES))
        np.testing.assert_array_equal(again.scores(features), known.scores(features))
        assert again.threshold == known.threshold
    assert familiarity_of({}) is None


def test_many_classes_and_features_take_a_bounded_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_NUMBERS", 5 * FEATURES)
    features = np.concatenate([around(axis, 40, axis) for axis in range(FEATURES)])
    directions = class_directions(features, np.arange(len(features)) // 4)
    assert directions.shape == (5, FEATURES)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-3)
    whole = class_directions(features[:8], [0, 0, 2, 2, 2, 5, 5, 5])  # no image of 1, 3 and 4
    assert whole.shape == (3, FEATURES)


DAMAGED: dict[str, dict[str, Any]] = {
    "another score": {"score": "energy"},
    "no numbers": {"directions": ""},
    "no base64": {"directions": "é"},
    "numbers cut off": {"directions": "AAAA"},
    "a negative shape": {"shape": [-1, -12]},
    "a huge shape": {"shape": [1 << 40, 1 << 40]},
    "no shape": {"shape": 3},
    "a word for a threshold": {"threshold": "low"},
    "a threshold that is not finite": {"threshold": float("nan")},
    "another number of features in the center": {"center": "AAAA"},
    "more lost than there are": {"lost": {"count": 3, "total": 2}},
    "a list for a share": {"found": [1, 2]},
    "numbers that are not finite": {
        "directions": "/////////////////////////////////w==", "shape": [2, FEATURES]
    },
}  # fmt: skip


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_header_is_refused(change: dict[str, Any]) -> None:
    whole = fit_familiarity(DIRECTIONS, two_classes(20)).to_dict()
    with pytest.raises(ContentError, match="familiarity"):
        Familiarity.from_dict(whole | change)
    for name in whole.keys() - {"center"}:  # which files of earlier versions lack
        with pytest.raises(ContentError, match="familiarity"):
            Familiarity.from_dict({key: value for key, value in whole.items() if key != name})


def test_the_score_of_another_network_is_refused() -> None:
    known = fit_familiarity(DIRECTIONS, two_classes(20))
    with pytest.raises(ContentError, match=f"for {FEATURES} features; the network has 64"):
        familiarity_of(known.to_dict(), 64)
