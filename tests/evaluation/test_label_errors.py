import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from resnets.errors import ContentError
from resnets.evaluation.label_errors import find_label_errors
from resnets.evaluation.logits import log_probabilities


def by_the_papers_definition(probabilities, labels):
    """Northcutt et al. 2021, section 3.1, one image at a time."""
    classes = len(probabilities[0])
    threshold = []
    for j in range(classes):  # equation 2
        own = [p[j] for p, label in zip(probabilities, labels, strict=True) if label == j]
        threshold.append(sum(own) / len(own) if own else float("inf"))
    joint = [[0] * classes for _ in range(classes)]
    suspects = set()
    for index, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        reached = [j for j in range(classes) if p[j] >= threshold[j] - 1e-12]
        if reached:  # equation 1
            j = max(reached, key=lambda k: p[k])
            if j != label and p[j] <= p[label]:
                continue  # not in the paper: a label that is at least as probable is no error
            if j != label:
                suspects.add((index, label, j))
            joint[label][j] += 1
    return threshold, joint, suspects


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 2**32))
def test_it_is_the_papers_definition(total, classes, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, total)
    logits = generator.normal(size=(total, classes), scale=2) + 3 * np.eye(classes)[labels]
    label_errors = find_label_errors(logits, labels)
    threshold, joint, suspects = by_the_papers_definition(softmax(logits, axis=1), labels)
    assert label_errors.thresholds == pytest.approx(threshold)
    assert label_errors.confident_joint.tolist() == joint
    if label_errors.joint is None:
        assert not better_than_always_the_same(logits, labels)
        suspects = set()
    assert {(s.index, s.label, s.suggested) for s in label_errors.suspects} == suspects


def better_than_always_the_same(logits, labels):
    """Whether the accuracy's 95 % interval (Wilson) is above the share of the largest class."""
    right = (logits.argmax(axis=1) == labels).sum()
    low = binomtest(right, len(labels)).proportion_ci(0.95, method="wilson").low
    return low > np.bincount(labels).max() / len(labels)


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 2**32))
def test_the_joint_has_the_labels_own_shares_as_its_rows(total, classes, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, total)
    logits = generator.normal(size=(total, classes)) + 3 * np.eye(classes)[labels]
    label_errors = find_label_errors(logits, labels)
    assume(label_errors.joint is not None)
    shares = np.bincount(labels, minlength=classes) / total
    assert label_errors.joint.sum(axis=1) == pytest.approx(shares)
    assert 0 <= label_errors.error_rate <= 1
    margins = [suspect.margin for suspect in label_errors.suspects]
    assert all(margin > 0 for margin in margins)
    assert margins == sorted(margins, reverse=True)


def test_labels_flipped_by_hand_among_real_digits_are_found():
    images, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    flipped = generator.choice(len(labels), 90, replace=False)
    given_labels = labels.copy()
    given_labels[flipped] = (labels[flipped] + generator.integers(1, 10, 90)) % 10
    model = KNeighborsClassifier(10)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(
        model, images / 16, given_labels, cv=folds, method="predict_proba"
    )
    label_errors = find_label_errors(log_probabilities(probabilities), given_labels)
    suspected = [suspect.index for suspect in label_errors.suspects]
    hits = np.isin(suspected, flipped)
    assert hits.sum() >= 60  # of 90
    assert hits.mean() > 0.9
    assert hits[:40].mean() > 0.95
    assert label_errors.error_rate == pytest.approx(90 / len(labels), abs=0.01)
    right = [
        s.suggested == labels[s.index] for s in label_errors.suspects if s.index in set(flipped)
    ]
    assert np.mean(right) > 0.9


@given(st.integers(1, 40), st.floats(0.1, 8))
def test_equal_answers_reach_their_own_mean(count, scale):
    labels = np.repeat([0, 1], count)
    label_errors = find_label_errors(scale * np.eye(2)[labels], labels)
    assert label_errors.confident_joint.tolist() == [[count, 0], [0, count]]


def test_right_labels_of_a_sure_network_are_not_suspected():
    labels = np.arange(60) % 3
    label_errors = find_label_errors(9.0 * np.eye(3)[labels], labels)
    assert label_errors.suspects == ()
    assert label_errors.error_rate == 0
    assert label_errors.confident_joint.tolist() == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]


def test_a_class_that_labels_no_image_is_never_suggested():
    sure = [[9.0, 1.0, 0.0]] * 30 + [[0.0, 9.0, 1.0]] * 30
    logits = [*sure, [0.0, 1.0, 9.0], [0.5, 0.0, 9.0]]
    label_errors = find_label_errors(logits, [0] * 30 + [1] * 30 + [0, 1])
    assert label_errors.thresholds[2] == np.inf
    assert label_errors.joint is not None
    assert not label_errors.confident_joint[:, 2].any()
    assert all(suspect.suggested != 2 for suspect in label_errors.suspects)


def test_the_suspects_go_into_json_by_name():
    logits = [[4.0, 0.0]] * 10 + [[0.0, 4.0]] * 10 + [[4.0, 0]]
    label_errors = find_label_errors(logits, [0] * 10 + [1] * 11)
    rows = json.loads(
        json.dumps(label_errors.rows([f"{i}.png" for i in range(21)], ["cat", "dog"]))
    )
    assert [(r["name"], r["label"], r["suggested"]) for r in rows] == [("20.png", "dog", "cat")]
    assert rows[0]["probability"] == pytest.approx(1 / (1 + np.exp(4)))
    assert rows[0]["margin"] == pytest.approx(1 - 2 / (1 + np.exp(4)))


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ContentError, match="not finite"):
        find_label_errors([[0, np.nan]], [0])


@pytest.mark.parametrize("largest", [0.5, 0.9])
@pytest.mark.parametrize("scale", [0.3, 9.0])
def test_a_network_at_chance_suspects_no_label_and_estimates_nothing(largest, scale):
    """Whether it is sure or not, and whether it knows how frequent the classes are or not."""
    generator = np.random.default_rng(4)
    labels = (generator.random(400) > largest).astype(int)
    logits = generator.normal(size=(400, 2), scale=scale) + np.array(
        [np.log(largest / (1 - largest)), 0]
    )
    label_errors = find_label_errors(logits, labels)
    assert label_errors.suspects == ()
    assert label_errors.joint is None
    assert label_errors.error_rate is None


def test_a_label_that_is_the_more_probable_class_is_no_error():
    # labelled bees (53 %), and 47 % for ants: more than images of ants have for ants on average
    shares = [[0.1, 0.9]] * 40 + [[0.47, 0.53]] + [[0.6, 0.4]] * 30 + [[0.25, 0.75]] * 30
    label_errors = find_label_errors(np.log(shares), [1] * 41 + [0] * 60)
    assert label_errors.thresholds[0] < 0.47
    assert label_errors.thresholds[1] > 0.53
    assert label_errors.joint is not None
    assert label_errors.suspects == ()
    assert label_errors.error_rate == 0
