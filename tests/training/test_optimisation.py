import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from resnets.errors import UsageError
from resnets.networks import build
from resnets.training.optimisation import (
    CustomLoss,
    _class_weights,
    _parameter_groups,
    clip_gradients,
    make_loss,
    make_optimizer,
    set_rate,
)
from resnets.training.recipe import Recipe

OPTIMIZERS = ("sgd", "adamw", "muon")


def grouped(network: nn.Module, recipe: Recipe, key: str) -> dict[str, float]:
    """The value of a group's setting for each parameter in a group, by the parameter's name."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = _parameter_groups(network, recipe)
    return {names[parameter]: group[key] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "preact_resnet110"])
def test_norms_and_biases_do_not_decay_unless_the_recipe_says_so(name):
    network = build(name, num_classes=3)
    kinds = {
        f"{prefix}.{own}".lstrip("."): (type(module), own)
        for prefix, module in network.named_modules()
        for own, _ in module.named_parameters(recurse=False)
    }
    decays = grouped(network, Recipe(weight_decay=0.3), "weight_decay")
    assert decays.keys() == kinds.keys()
    for parameter, (kind, own) in kinds.items():
        weight = kind in (nn.Conv2d, nn.Linear) and own == "weight"
        assert decays[parameter] == (0.3 if weight else 0.0), parameter
    biases = grouped(network, Recipe(weight_decay=0.3, decay_biases=True), "weight_decay")
    for parameter, (kind, _) in kinds.items():
        plain = kind in (nn.Linear, nn.Conv2d)  # torchvision's split_normalization_params
        assert biases[parameter] == (0.3 if plain else 0.0), parameter
    assert biases["fc.bias"] == 0.3
    everything = Recipe(weight_decay=0.3, decay_norms_and_biases=True)
    assert set(grouped(network, everything, "weight_decay").values()) == {0.3}


def test_earlier_stages_get_smaller_rates():
    network = build("resnet18", num_classes=3)
    scales = grouped(network, Recipe(optimizer="sgd", layer_decay=0.5), "scale")
    assert scales["fc.weight"] == 1
    assert scales["layer4.1.bn2.weight"] == 1 / 2
    assert scales["layer3.0.conv1.weight"] == 1 / 4
    assert scales["layer1.0.conv1.weight"] == 1 / 16
    assert scales["conv1.weight"] == scales["bn1.bias"] == 1 / 32
    assert set(grouped(network, Recipe(optimizer="sgd"), "scale").values()) == {1.0}


def test_the_last_norm_of_a_pre_activation_network_is_the_classifiers():
    scales = grouped(build("preact_resnet110"), Recipe(optimizer="sgd", layer_decay=0.5), "scale")
    after = [name for name in scales if scales[name] == 1]
    assert {"fc.weight", "fc.bias"} < set(after)
    assert len(after) == 4
    assert min(scales.values()) == 1 / 16


def test_frozen_parameters_are_in_no_group():
    network = build("resnet20", num_classes=3).freeze(2)
    trained = grouped(network, Recipe(), "scale")
    assert {name.split(".")[0] for name in trained} == {"layer3", "fc"}


def test_the_rate_of_each_group_is_its_share_of_the_rate():
    recipe = Recipe(optimizer="sgd", layer_decay=0.5, learning_rate=0.4)
    optimizer = make_optimizer(build("resnet20"), recipe)
    assert {group["lr"] for group in optimizer.param_groups} == {0.4, 0.2, 0.1, 0.05, 0.025}
    set_rate(optimizer, 0.8)
    assert {group["lr"] for group in optimizer.param_groups} == {0.8, 0.4, 0.2, 0.1, 0.05}


def test_muon_orthogonalises_convolutions_and_gives_the_rest_its_own_rate():
    network = build("resnet20")
    recipe = Recipe(optimizer="muon", non_conv_learning_rate_scale=0.1)
    orthogonal = grouped(network, recipe, "orthogonal")
    scales = grouped(network, recipe, "scale")
    for name, parameter in network.named_parameters():
        assert orthogonal[name] == (parameter.ndim == 4)
        assert scales[name] == (1.0 if parameter.ndim == 4 else 0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_memory_layout_of_a_gradient_does_not_matter(name):
    """torch 2.13's fused SGD and AdamW for CPUs mix the numbers up here, without a word."""

    def moved(layout: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        network.weight.grad = torch.randn(8, 4, 3, 3).contiguous(memory_format=layout)
        make_optimizer(network, Recipe(optimizer=name, learning_rate=0.1)).step()
        return network.weight.detach()

    expected = moved(torch.channels_last)
    torch.testing.assert_close(moved(torch.contiguous_format), expected)


def train(network, optimizer, steps, start=0):
    """Steps whose images depend on their number alone."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 3, 12, 12, generator=generator)
        labels = torch.randint(10, (8,), generator=generator)
        set_rate(optimizer, 0.01 / (1 + step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_optimizer_goes_on_bit_for_bit(name):
    recipe = Recipe(optimizer=name, weight_decay=0.01, layer_decay=0.9)

    def started():
        torch.manual_seed(0)
        network = build("resnet14").to(memory_format=torch.channels_last)
        return network, make_optimizer(network, recipe)

    whole = started()
    train(*whole, 5)
    first = started()
    train(*first, 2)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    resumed, forgetful = started(), started()
    network_state, optimizer_state = torch.load(file, weights_only=True)
    for part, state in zip(resumed, (network_state, optimizer_state), strict=True):
        part.load_state_dict(state)
    forgetful[0].load_state_dict(network_state)
    for network, optimizer in (resumed, forgetful):
        train(network, optimizer, 3, start=2)
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key
    lost = forgetful[0].state_dict()["fc.weight"]
    assert not torch.equal(whole[0].state_dict()["fc.weight"], lost)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name):
    rates = {"sgd": 0.05, "adamw": 0.003, "muon": 0.003}
    torch.manual_seed(0)
    network = build("resnet14", num_classes=10)
    recipe = Recipe(optimizer=name, learning_rate=rates[name], weight_decay=1e-4)
    optimizer = make_optimizer(network, recipe)
    images, labels = torch.randn(32, 3, 12, 12), torch.arange(32) % 10
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_a_gradient_is_shortened_to_the_longest_allowed_and_never_lengthened(length, longest):
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter) * length / 7**0.5
    assert clip_gradients(parameters, longest).item() == pytest.approx(length, rel=1e-5)
    after = sum(float(p.grad.square().sum()) for p in parameters) ** 0.5
    assert after == pytest.approx(min(length, longest), rel=1e-3)


def test_0_clips_nothing():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3e10, 4e10], dtype=torch.float32)
    assert clip_gradients([parameter], 0.0).item() == pytest.approx(5e10)
    assert torch.equal(parameter.grad, torch.tensor([3e10, 4e10]))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_class_weights_are_scikit_learns(labels):
    present = np.unique(labels)
    theirs = compute_class_weight("balanced", classes=present, y=labels)
    ours = _class_weights(np.array(labels), num_classes=6)
    assert ours[present].tolist() == pytest.approx(theirs.tolist())
    assert ours.sum().item() == pytest.approx(theirs.sum())


def test_a_balanced_loss_is_the_mean_over_classes():
    labels = np.array([0] * 6 + [1] * 2 + [2] * 1)
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(class_weights="balanced", label_smoothing=0.0)
    targets = torch.from_numpy(labels)
    each = nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = torch.stack([each[targets == label].mean() for label in range(3)]).mean()
    assert make_loss(recipe, labels, 3)(logits, targets).item() == pytest.approx(
        9 * expected.item()
    )


def test_smoothing_spreads_its_share_over_all_classes():
    recipe = Recipe(label_smoothing=0.2)
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 4])
    wished = 0.8 * nn.functional.one_hot(targets, 5) + 0.2 / 5
    expected = -(wished * logits.log_softmax(1)).sum()
    loss = make_loss(recipe, targets.numpy(), 5)
    assert loss(logits, targets).item() == pytest.approx(expected.item())
    hard = nn.functional.one_hot(targets, 5).float()
    assert loss(logits, hard).item() == pytest.approx(expected.item())


def test_momentum_0_goes_with_nesterov():
    """torch refuses Nesterov without momentum; the recipe's default should not stand in the way."""
    for name in OPTIMIZERS:
        recipe = dataclasses.replace(Recipe(), optimizer=name, momentum=0.0)
        network = build("resnet14")
        train(network, make_optimizer(network, recipe), 1)
        assert all(parameter.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    "own",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        nn.CrossEntropyLoss(reduction="sum"),
        lambda logits, targets: -logits.log_softmax(1)[range(len(logits)), targets].mean(),
    ],
)
def test_a_loss_of_ones_own_is_summed_over_the_images(own):
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = make_loss(Recipe(label_smoothing=0), targets.numpy(), 3)(logits, targets)
    torch.testing.assert_close(CustomLoss(own)(logits, targets), expected)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (5, "5.*function"),
        (nn.Linear(3, 1), "Linear.*weights"),
        (lambda logits, _: logits, r"\(6, 3\).*mean"),
        (lambda logits, _: logits.argmax(), "int64.*floating"),
        (lambda _, targets: len(targets), "6.*tensor"),
    ],
)
def test_what_is_no_loss_is_refused_in_words(own, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        CustomLoss(own)(torch.randn(6, 3), torch.zeros(6, dtype=torch.int64))
