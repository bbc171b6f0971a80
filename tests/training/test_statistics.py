"""Statistics of batch norms, estimated afresh, against torch's own pass for averaged weights."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import TrainingBatches, evaluation_batches
from resnets.images import Preprocessing
from resnets.networks import ResNet
from resnets.training.optimisation import make_loss
from resnets.training.recipe import Recipe
from resnets.training.statistics import estimate_statistics, lags
from resnets.training.trainer import Epoch, Measured, Trainer
from tests.training.ramps import ramps


def small_network(**choices: Any) -> ResNet:
    torch.manual_seed(0)
    return ResNet("residual", (1, 1), **{"width": 8, "num_classes": 2} | choices)


def batches(count: int = 3, size: int = 6, side: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, side, side, generator=generator) + 0.5 for _ in range(count)]


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers() if "running" in name}


def train_a_little(network: nn.Module) -> None:
    network.train()
    for batch in batches():
        network(batch)


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], msg=name)


def test_the_estimate_is_that_of_torchs_update_bn():
    ours = small_network()
    train_a_little(ours)
    theirs = copy.deepcopy(ours)
    estimate_statistics(ours, batches())
    update_bn(batches(), theirs)
    assert_equal(statistics(ours), statistics(theirs))


def test_it_depends_on_weights_and_images_alone():
    """Not on earlier statistics, and not on chance: nothing is dropped, as in evaluation."""
    fresh = small_network(dropout=0.3, stochastic_depth=0.5)
    trained = copy.deepcopy(fresh)
    train_a_little(trained)
    for network in (fresh, trained):
        estimate_statistics(network, batches())
    assert_equal(statistics(fresh), statistics(trained))


def test_synchronised_norms_do_not_wait_for_batches_that_another_process_lacks():
    """Torch's own forward of them exchanges statistics in each batch, on GPUs only."""
    plain = small_network()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="GPU"):
            synchronised.train()(batches()[0])
        estimate_statistics(synchronised, batches())
    finally:
        dist.destroy_process_group()
    estimate_statistics(plain, batches())
    assert_equal(statistics(synchronised), statistics(plain))
    norms = [norm for norm in synchronised.modules() if isinstance(norm, nn.SyncBatchNorm)]
    assert norms
    assert not any("forward" in vars(norm) for norm in norms)


def test_all_else_stays_as_it_is():
    network = small_network()
    train_a_little(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    estimate_statistics(network, batches())
    changed = [
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed
    assert all("running_" in name for name in changed)
    assert not any(module.training for module in network.modules())
    assert {norm.momentum for norm in network.modules() if isinstance(norm, nn.BatchNorm2d)} == {
        0.1
    }


def test_an_interrupt_leaves_the_earlier_statistics():
    network = small_network()
    train_a_little(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def stopped_after_one() -> Iterator[Tensor]:
        yield batches()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        estimate_statistics(network, stopped_after_one())
    assert_equal(dict(network.state_dict()), before)
    assert not any(module.training for module in network.modules())


def test_frozen_parts_keep_their_statistics():
    network = small_network()
    train_a_little(network)
    network.freeze(1)
    before = statistics(network)
    estimate_statistics(network, batches())
    for name, value in statistics(network).items():
        frozen = name.startswith(("bn.", "layer1."))
        assert torch.equal(value, before[name]) == frozen, name


def test_modules_of_ones_own_have_theirs_estimated_too():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5, momentum=None))
    train_a_little(network)
    theirs = copy.deepcopy(network)
    assert lags(network, steps=10**6)  # a mean over all steps never forgets the first ones
    estimate_statistics(network, batches())
    update_bn(batches(), theirs)
    assert_equal(statistics(network), statistics(theirs))


def test_a_network_without_batch_norms_is_left_alone():
    network = small_network(norm="group")
    assert not lags(network, steps=0)
    estimate_statistics(network, [])  # not even a batch is needed


@pytest.mark.parametrize(("steps", "behind"), [(0, True), (999, True), (1000, False)])
def test_the_average_lags_for_a_hundred_times_its_memory(steps, behind):
    assert lags(small_network(), steps) == behind


SEEN = Preprocessing(size=8, resize=8, mean=(0.5,) * 3, std=(0.25,) * 3)
FAST = Recipe(
    **{"network": "resnet14", "epochs": 3, "batch_size": 16, "optimizer": "sgd"},
    **{"learning_rate": 0.1, "momentum": 0.9, "schedule": "constant", "weight_decay": 0.0},
    augmentation=Augmentation(),
)


def trainer_of(recipe: Recipe, estimated: bool) -> Trainer:
    data = ramps(64, seed=0)
    training = TrainingBatches(data, SEEN, recipe.augmentation, batch_size=recipe.batch_size)
    measured = Measured(
        evaluation_batches(ramps(40, seed=1), SEEN, 16),
        statistics=evaluation_batches(data, SEEN, 32) if estimated else None,
    )
    return Trainer(small_network(), recipe, training, make_loss(recipe, data.labels, 2), measured)


def run(trainer: Trainer) -> list[Epoch]:
    return [record for record in trainer.run() if isinstance(record, Epoch)]


def test_a_short_run_is_measured_by_the_statistics_of_its_weights():
    lagging, estimated = trainer_of(FAST, estimated=False), trainer_of(FAST, estimated=True)
    without, with_them = run(lagging)[0].validation, run(estimated)[0].validation
    assert without is not None
    assert with_them is not None
    assert with_them.loss < 0.7 * without.loss
    for ours, theirs in zip(
        estimated.network.parameters(), lagging.network.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)  # training itself does not use them


@pytest.mark.parametrize("decay", [0.9, 1.0])
def test_the_mean_of_the_weights_gets_statistics_of_its_own(decay):
    trainer = trainer_of(replace(FAST, average_decay=decay), estimated=True)
    last = run(trainer)[-1]
    network = trainer.evaluation_network
    assert network is not trainer.network
    theirs = copy.deepcopy(network)
    update_bn([batch.images for batch in trainer.measured.statistics or []], theirs)
    assert_equal(statistics(network), statistics(theirs))
    assert last.validation is not None
    assert last.validation.accuracy == 1.0
