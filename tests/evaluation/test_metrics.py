import csv
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from resnets.errors import ContentError, UsageError
from resnets.evaluation.logits import log_probabilities
from resnets.evaluation.metrics import measure, merge


@st.composite
def answered(draw, ties=True):
    """Logits and labels, often with equal logits among them, as an 8-bit network has."""
    total, classes = draw(st.integers(1, 40)), draw(st.integers(2, 8))
    values = st.integers(-8, 8) if ties else st.floats(-50, 50)
    logits = draw(arrays(np.float64, (total, classes), elements=values))
    labels = draw(arrays(np.int64, total, elements=st.integers(0, classes - 1)))
    return logits, labels


@pytest.fixture(scope="module")
def digits():
    """Logits of a logistic regression on real images that it has not seen, and their labels."""
    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(C=0.01).fit(images[:1000] / 16, labels[:1000])
    return model.decision_function(images[1000:] / 16), labels[1000:]


@given(answered())
def test_loss_and_top_k_agree_with_torch(pair):
    logits, labels = pair
    metrics = measure(logits, labels)
    scores, truth = torch.tensor(logits), torch.tensor(labels)
    assert metrics.loss == pytest.approx(float(torch.nn.functional.cross_entropy(scores, truth)))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    for k, proportion in ((1, metrics.top1), (5, metrics.top5)):
        assert proportion.count == int((order[:, :k] == truth[:, None]).any(dim=1).sum())
        assert proportion.total == len(labels)


@given(answered(ties=False))
def test_top_five_is_never_less_than_top_one_nor_short_of_all_with_five_classes(pair):
    logits, labels = pair
    metrics = measure(logits, labels)
    assert metrics.top1.count <= metrics.top5.count
    if logits.shape[1] <= 5:
        assert metrics.top5.count == len(labels)


@given(answered())
def test_the_confusion_matrix_accounts_for_every_image(pair):
    logits, labels = pair
    metrics = measure(logits, labels)
    table = np.array(metrics.confusion)
    for label, guess in zip(labels, logits.argmax(axis=1), strict=True):
        table[label, guess] -= 1
    assert not table.any()
    table = np.array(metrics.confusion)
    assert np.trace(table) == metrics.top1.count
    assert [row.support for row in metrics.classes] == table.sum(axis=1).tolist()
    assert sum(pair.count for pair in metrics.most_confused(99)) == table.sum() - np.trace(table)


@given(answered())
def test_class_scores_are_the_textbooks_ratios_or_none(pair):
    logits, labels = pair
    guesses = logits.argmax(axis=1)
    for k, row in enumerate(measure(logits, labels).classes):
        called, so = (guesses == k).sum(), (labels == k).sum()
        both = ((guesses == k) & (labels == k)).sum()
        assert row.precision == (pytest.approx(both / called) if called else None)
        assert row.recall == (pytest.approx(both / so) if so else None)
        assert row.f1 == (pytest.approx(2 * both / (called + so)) if called + so else None)


@given(answered())
def test_the_brier_score_is_the_squared_distance_to_the_one_hot_label(pair):
    logits, labels = pair
    probabilities = torch.softmax(torch.tensor(logits), dim=1).numpy()
    distance = ((probabilities - np.eye(logits.shape[1])[labels]) ** 2).sum(axis=1).mean()
    assert measure(logits, labels).brier == pytest.approx(distance, abs=1e-12)
    assert 0 <= measure(logits, labels).brier <= 2


@given(answered(), st.data())
def test_the_figures_are_the_same_however_the_images_were_shared_out(pair, data):
    logits, labels = pair
    total = len(labels)
    order = np.array(data.draw(st.permutations(range(total))))
    cuts = data.draw(st.lists(st.integers(0, total), max_size=4).map(sorted))
    pieces = np.split(order, cuts)
    merged = merge([(piece, logits[piece]) for piece in pieces], total)
    assert merged.tobytes() == logits.tobytes()
    assert measure(merged, labels) == measure(logits, labels)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([[0, 1], [3]], "image 2 of 4 came 0 times"),
        ([[0, 1, 2], [2, 3]], "image 2 of 4 came 2 times"),
        ([[0, 1, 2, 3, 4]], "0 to 4 came, of 0 to 3"),
        ([[], []], "no process has an image"),
    ],
)
def test_a_merge_that_would_lose_or_count_twice_is_refused(places, message):
    parts = [(place, np.zeros((len(place), 2))) for place in places]
    with pytest.raises(UsageError, match=message):
        merge(parts, total=4)


def test_on_real_images_the_figures_are_those_of_scikit_learn(digits):
    logits, labels = digits
    metrics = measure(logits, labels)
    guesses = logits.argmax(axis=1)
    assert 0.8 < metrics.top1.value < 1
    assert metrics.macro_f1 == pytest.approx(f1_score(labels, guesses, average="macro"))
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, guesses))
    probabilities = torch.softmax(torch.tensor(logits), dim=1).numpy()
    assert metrics.loss == pytest.approx(log_loss(labels, probabilities), rel=1e-9)
    worst = metrics.most_confused(1)[0]
    table = np.array(metrics.confusion)
    np.fill_diagonal(table, 0)
    assert worst.count == table.max() == table[int(worst.true), int(worst.predicted)]
    assert worst.share == worst.count / (labels == int(worst.true)).sum()


@given(answered())
def test_probabilities_give_the_same_figures_as_their_logits(pair):
    logits, labels = pair
    probabilities = torch.softmax(torch.tensor(logits), dim=1).numpy()
    ours, other = measure(log_probabilities(probabilities), labels), measure(logits, labels)
    assert ours.loss == pytest.approx(other.loss, abs=1e-9)
    assert ours.brier == pytest.approx(other.brier, abs=1e-9)


def test_a_probability_of_zero_for_the_truth_is_a_finite_loss():
    metrics = measure(log_probabilities([[1.0, 0.0]]), [1])
    assert metrics.loss == pytest.approx(708.4, abs=0.1)  # -ln of the smallest normal float64
    assert metrics.brier == 2


@settings(max_examples=30)
@given(answered())
def test_the_figures_survive_json_and_csv(pair):
    metrics = measure(*pair)
    read = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert read["top1"]["count"] == metrics.top1.count
    assert read["top1"]["interval"] == list(metrics.top1.interval)
    assert read["classes"] == metrics.rows()
    assert read["confusion"] == [list(row) for row in metrics.confusion]
    text = io.StringIO()
    writer = csv.DictWriter(text, metrics.rows()[0])
    writer.writeheader()
    writer.writerows(metrics.rows())
    assert len(text.getvalue().splitlines()) == 1 + len(metrics.classes)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), UsageError, "needs an image"),
        (np.zeros((2, 1)), [0, 0], UsageError, "two classes"),
        (np.zeros((2, 3)), [0], UsageError, "not \\(N, K\\) and \\(N,\\)"),
        (np.zeros((2, 3)), [0, 3], UsageError, "must be within 0 to 2"),
        (np.zeros((2, 3)), [-1, 0], UsageError, "must be within 0 to 2"),
        (np.zeros((2, 3)), [0.0, 1.0], UsageError, "must be integers"),
        ([[0, 1], [np.nan, 0], [0, np.inf]], [0, 1, 1], ContentError, "2 of 3 .* image 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(logits, labels, error, message):
    with pytest.raises(error, match=message):
        measure(logits, labels)


def test_class_names_must_be_as_many_as_the_logits():
    with pytest.raises(UsageError, match="2 class names for 3 classes"):
        measure(np.zeros((1, 3)), [0], ["a", "b"])


@pytest.mark.parametrize("rows", [[[0.5, 0.6]], [[1.5, -0.5]], [[np.nan, 1]], [2.0, 1.0]])
def test_what_are_no_probabilities_is_refused(rows):
    with pytest.raises(UsageError, match="probabilities"):
        log_probabilities(rows)
