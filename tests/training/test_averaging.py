import io

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from resnets.training.recipe import Recipe
from resnets.training.trainer import _Average, _is_averaging_step


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))


def change(model: nn.Module) -> None:
    """Other weights, and a pass in training mode that moves the norm's statistics."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.train()(torch.randn(4, 3, 5, 5))


def started() -> nn.Module:
    model = network()
    model(torch.randn(4, 3, 5, 5))
    return model


@settings(max_examples=30)
@given(st.floats(0.001, 1.0), st.integers(1, 12))
def test_the_mean_is_the_closed_form_for_parameters_and_statistics(decay, updates):
    model = started()
    average = _Average(model, Recipe(average_decay=decay))
    seen = []
    for _ in range(updates):
        change(model)
        average.update(model)
        seen.append({name: value.double() for name, value in model.state_dict().items()})
    shares = [decay ** (updates - 1 - i) for i in range(updates)]
    for name, mean in average.network.state_dict().items():
        expected = sum(s * v[name] for s, v in zip(shares, seen, strict=True)) / sum(shares)
        if name.endswith("num_batches_tracked"):
            expected = seen[-1][name]
        torch.testing.assert_close(mean.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_decay_of_1_is_torchs_stochastic_weight_averaging():
    model = started()
    ours, theirs = (
        _Average(model, Recipe(average_decay=1.0)),
        AveragedModel(model, use_buffers=True),
    )
    for _ in range(5):
        change(model)
        ours.update(model)
        theirs.update_parameters(model)
    for name, value in theirs.module.named_parameters():
        torch.testing.assert_close(ours.network.get_parameter(name), value.detach())


def test_the_network_that_learns_stays_as_it_is():
    model = started()
    average = _Average(model, Recipe(average_decay=0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average.update(model)
    change(average.network)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_saved_average_goes_on_bit_for_bit():
    model = started()
    whole = _Average(model, Recipe(average_decay=0.9))
    for _ in range(3):
        change(model)
        whole.update(model)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = _Average(started(), Recipe(average_decay=0.9))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        change(model)
        whole.update(model)
        resumed.update(model)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_weights_enter_the_mean_at_their_interval_and_at_the_end():
    recipe = Recipe(epochs=2, average_decay=0.9, average_every=4, average_from=0.5)
    assert [
        done for done in range(1, 19) if _is_averaging_step(recipe, done, steps_per_epoch=9)
    ] == [12, 16, 18]
    assert not any(
        _is_averaging_step(Recipe(average_decay=0.0), done, steps_per_epoch=9)
        for done in range(1, 19)
    )
