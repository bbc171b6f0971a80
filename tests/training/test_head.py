"""The classifier of a frozen network is the logistic regression that predicts best."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from resnets.training.head import _fit_classifier


def clouds(classes: int, count: int, width: int = 5, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Points around a centre for each class, that overlap: (N, C) float32 and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(7).normal(0, 2, (classes, width))
    return (centres[labels] + rng.normal(0, 1.5, (count, width))).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_gradient_of_the_penalised_loss_is_zero(classes: int) -> None:
    """The definition of the optimum, by autograd: mean loss + |W|² / (2 C N), standardised."""
    features, labels = clouds(classes, 60)
    weight, bias, strength = _fit_classifier(features, labels, classes, clouds(classes, 60, seed=1))
    scaled = torch.from_numpy((features - features.mean(0)) / features.std(0)).double()
    w = torch.from_numpy(weight * features.std(0)).double().requires_grad_()
    b = torch.from_numpy(bias + weight @ features.mean(0)).double().requires_grad_()
    loss = F.cross_entropy(scaled @ w.T + b, torch.from_numpy(labels))
    penalised = w[1] - w[0] if classes == 2 else w  # of two classes, one row is penalised
    total = loss + (penalised**2).sum() / (2 * strength * len(labels))
    total.backward()
    assert w.grad is not None
    assert b.grad is not None
    assert max(w.grad.abs().max(), b.grad.abs().max()) < 2e-3


def test_validation_images_choose_the_penalty() -> None:
    """With labels of pure noise the strongest penalty is best; with clear ones a weaker one."""
    features, labels = clouds(3, 90)
    noise = np.random.default_rng(1).permutation(labels)
    others = clouds(3, 90, seed=2)
    _, _, strongest = _fit_classifier(features, noise, 3, others)
    _, _, weaker = _fit_classifier(features, labels, 3, others)
    assert strongest < weaker
    assert strongest == 1e-4
    _, _, without = _fit_classifier(features, labels, 3)
    assert without > 1e-4


@given(st.integers(2, 5), st.integers(0, 4), st.integers(0, 50))
@settings(max_examples=25, deadline=None)
def test_a_class_without_images_is_never_predicted(classes: int, absent: int, seed: int) -> None:
    features, labels = clouds(classes, 40, seed=seed)
    absent %= classes
    rows = labels != absent
    weight, bias, _ = _fit_classifier(features[rows], labels[rows], classes)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()
    assert not ((features[rows] @ weight.T + bias).argmax(1) == absent).any()


def test_one_image_a_class_is_enough() -> None:
    features, labels = clouds(3, 3)
    weight, bias, _ = _fit_classifier(features, labels, 3)
    assert (features @ weight.T + bias).argmax(1).tolist() == labels.tolist()


def test_balanced_weights_bring_back_a_rare_class() -> None:
    features, labels = clouds(2, 200)
    rare = (labels == 0) | (np.arange(200) < 20)
    plain, balanced = (
        _fit_classifier(features[rare], labels[rare], 2, clouds(2, 100, seed=3), balanced=b)
        for b in (False, True)
    )
    predicted = [(features @ w.T + b).argmax(1).mean() for w, b, _ in (plain, balanced)]
    assert predicted[1] > predicted[0]


def test_views_of_an_image_do_not_vouch_for_each_other() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(60, 100)).astype(np.float32)  # which says nothing about labels
    labels = random.integers(0, 2, 60)
    twice, both = np.concatenate([noise, noise]), np.concatenate([labels, labels])
    *_, strength = _fit_classifier(twice, both, 2, views=2)
    *_, fooled = _fit_classifier(twice, both, 2)
    assert strength < fooled
