"""The training loop, on a few digits and in this process."""

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from resnets.data.augmentation.augmentation import Augmentation
from resnets.data.batches import Batch, ProcessRank, TrainingBatches, evaluation_batches
from resnets.data.labelled import LabelledImages
from resnets.errors import UsageError
from resnets.images import Preprocessing
from resnets.networks import ResNet
from resnets.runs.callbacks import Plan
from resnets.runs.checkpoint import random_state, set_random_state
from resnets.training.optimisation import make_loss
from resnets.training.recipe import Recipe
from resnets.training.trainer import (
    Epoch,
    Interval,
    Measured,
    NotFiniteError,
    Step,
    Trainer,
    TrainerRecord,
    Validating,
)
from tests.training.ramps import ramps

SEEN = Preprocessing(size=8, resize=8, mean=(0.5,) * 3, std=(0.25,) * 3)
PLAIN = Recipe(
    network="resnet14",
    epochs=2,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="constant",
    augmentation=Augmentation(),
)


def small_network(**choices: Any) -> ResNet:
    torch.manual_seed(0)
    return ResNet("residual", (1, 1), **{"width": 8, "num_classes": 2, "norm": "group"} | choices)


def trainer_of(
    recipe: Recipe, network: nn.Module | None = None, count: int = 36, validation: bool = True
) -> Trainer:
    network = network or small_network()
    data = ramps(count)
    batches = TrainingBatches(
        data,
        SEEN,
        recipe.augmentation,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        even=recipe.even_batches,
        carry_over=recipe.carry_over,
    )
    held_out = evaluation_batches(ramps(20, seed=1), SEEN, 8) if validation else None
    return Trainer(
        network, recipe, batches, make_loss(recipe, data.labels, 2), Measured(held_out), 3
    )


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in network.state_dict().values()])


def test_the_records_come_in_the_order_of_a_run() -> None:
    """36 images in batches of 7 and 8: five an epoch, an interval every three, 20 to validate."""
    records = list(trainer_of(PLAIN).run())
    assert "".join(type(record).__name__[0] for record in records) == "SSISSSVVVEISSSISSVVVE"
    steps = [(record.step, record.images) for record in records if isinstance(record, Step)]
    assert steps == list(enumerate([7, 7, 7, 7, 8] * 2, 1))
    epochs = [record for record in records if isinstance(record, Epoch)]
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(1, 5), (2, 10)]
    assert [epoch.training.images for epoch in epochs] == [36, 36]
    assert all(epoch.validation and epoch.validation.images == 20 for epoch in epochs)
    intervals = [record for record in records if isinstance(record, Interval)]
    assert [interval.training.images for interval in intervals] == [21, 22, 21]


def test_a_run_is_the_loop_that_a_tutorial_would_write() -> None:
    recipe = replace(PLAIN, label_smoothing=0.1, weight_decay=0.01, decay_norms_and_biases=True)
    trainer = trainer_of(recipe)
    network = copy.deepcopy(trainer.network)
    for _ in trainer.run():
        pass
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    )
    network.train()
    for epoch in range(2):
        for batch in trainer.batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(network(batch.images), batch.targets, label_smoothing=0.1).backward()
            optimizer.step()
    torch.testing.assert_close(weights(trainer.network), weights(network), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pieces", [2, 3, 8])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_pieces_add_up_to_the_whole_batch(pieces: int, class_weights: Any) -> None:
    recipe = replace(PLAIN, class_weights=class_weights, clip_norm=0.5)
    whole, parts = trainer_of(recipe), trainer_of(replace(recipe, accumulate=pieces))
    for trainer in (whole, parts):
        for _ in trainer.run():
            pass
    torch.testing.assert_close(weights(parts.network), weights(whole.network), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "accumulate", "pieces"),
    [(8, 4, [3, 2, 2]), (8, 1, [7]), (8, 8, [1] * 7), (8, 3, [3, 2, 2]), (9, 4, [3, 2, 2])],
)
def test_pieces_of_batches_that_are_not_full_leave_no_image_alone(
    batch: int, accumulate: int, pieces: list[int]
) -> None:
    """Thirteen images, in batches of 6 and 7, of which batch norm needs two in each piece."""
    trainer = trainer_of(replace(PLAIN, batch_size=batch, accumulate=accumulate), count=13)
    *_, last = trainer.batches.epoch(0)
    assert [len(piece) for piece in trainer.pieces(last.images)] == pieces
    assert torch.equal(torch.cat(trainer.pieces(last.images)), last.images)


def test_it_learns() -> None:
    trainer = trainer_of(replace(PLAIN, epochs=6))
    *_, last = trainer.run()
    assert isinstance(last, Epoch)
    assert last.validation is not None
    assert last.validation.accuracy == 1
    assert trainer.best_accuracy == 1


def step_of(trainer: Trainer, records: Iterator[TrainerRecord], step: int) -> None:
    """Go on until a step is done."""
    for record in records:
        if isinstance(record, Step) and record.step == step:
            return
    assert trainer.step == step


FULL = replace(
    PLAIN,
    epochs=3,
    steps=10,
    training_size=8,
    progressive_resizing_scale=0.5,
    accumulate=2,
    average_decay=0.9,
    average_from=0.3,
    optimizer="muon",
    schedule="one-cycle",
    augmentation=Augmentation(crop_padding=2, flip="random", mixup=0.2, cutmix=1.0, erase=0.5),
)


@settings(max_examples=8)
@given(stop=st.integers(1, 10), optimizer=st.sampled_from(["sgd", "adamw", "muon"]))
def test_a_state_that_was_on_disk_goes_on_bit_for_bit(stop: int, optimizer: Any) -> None:
    recipe = replace(FULL, optimizer=optimizer, patience=5)
    unbroken = trainer_of(recipe, small_network(norm="batch", dropout=0.3))
    torch.manual_seed(1)
    for record in unbroken.run():
        if isinstance(record, Step) and record.step == stop:
            file = io.BytesIO()
            torch.save({"state": unbroken.state(), "random": random_state()}, file)
    torch.manual_seed(2)
    resumed = trainer_of(recipe, small_network(norm="batch", dropout=0.3))
    checkpoint = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed.load_state(checkpoint["state"])
    set_random_state(checkpoint["random"])
    rest = list(resumed.run())
    assert resumed.step == 10
    assert isinstance(rest[-1], Epoch)
    for ours, theirs in (
        (resumed.network, unbroken.network),
        (resumed.evaluation_network, unbroken.evaluation_network),
    ):
        assert torch.equal(weights(ours), weights(theirs))
    assert resumed.best_step == unbroken.best_step


def test_a_state_keeps_what_the_order_of_its_epoch_began_with() -> None:
    recipe = replace(PLAIN, even_batches=False)
    trainer, resumed = trainer_of(recipe, count=35), trainer_of(recipe, count=35)
    for record in trainer.run():
        if isinstance(record, Step) and record.epoch == 2:
            break
    state = trainer.state()
    carried = state["carried"]["samples"]
    assert carried.tolist() == trainer.batches.order(1)[:3].tolist()  # of 35 images, 8 a step
    state["carried"]["samples"] = carried.flip(0)
    resumed.load_state(state)
    assert resumed.batches.order(1)[:3].tolist() == carried.flip(0).tolist()


def test_a_loss_that_is_no_number_stops_it_at_once_and_names_the_step() -> None:
    trainer = trainer_of(replace(PLAIN, learning_rate=0.0))
    records = trainer.run()
    step_of(trainer, records, 3)
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(float("nan"))
    with pytest.raises(
        NotFiniteError, match=r"step 4: the loss is nan; try a lower --learning-rate"
    ):
        list(records)


def test_weights_that_are_no_numbers_are_never_saved() -> None:
    trainer = trainer_of(PLAIN)
    with torch.no_grad():
        list(trainer.network.parameters())[2][0] = float("inf")
    with pytest.raises(NotFiniteError, match=r"step 0: .* is no longer finite"):
        trainer.state()


def test_patience_ends_the_run_and_the_best_epoch_is_known() -> None:
    """With a rate of zero nothing improves after the first epoch."""
    trainer = trainer_of(replace(PLAIN, epochs=50, learning_rate=0.0, patience=3))
    epochs = [record for record in trainer.run() if isinstance(record, Epoch)]
    assert [epoch.best for epoch in epochs] == [True, False, False, False]
    assert (trainer.best_epoch, trainer.best_step) == (1, 5)


def test_steps_end_the_run_within_an_epoch_with_a_validation() -> None:
    records = list(trainer_of(replace(PLAIN, epochs=0, steps=7)).run())
    last = records[-1]
    assert isinstance(last, Epoch)
    assert (last.epoch, last.step, last.training.images) == (2, 7, 14)


def test_without_validation_images_it_trains_to_the_end() -> None:
    records = list(trainer_of(PLAIN, validation=False).run())
    assert not any(isinstance(record, Validating) for record in records)
    assert isinstance(records[-1], Epoch)
    assert records[-1].validation is None


def test_test_images_that_are_followed_choose_nothing() -> None:
    """Those here are validation's with other labels: best is when validation is, test worst."""
    trainer = trainer_of(replace(PLAIN, epochs=4))
    held_out = ramps(20, seed=1)
    flipped = LabelledImages(held_out.storage, 1 - held_out.labels, ["left", "right"])
    trainer.measured = replace(trainer.measured, test=evaluation_batches(flipped, SEEN, 8))
    epochs = [record for record in trainer.run() if isinstance(record, Epoch)]
    without = trainer_of(replace(PLAIN, epochs=4))
    plainly = [record for record in without.run() if isinstance(record, Epoch)]
    for epoch, plain in zip(epochs, plainly, strict=True):
        assert epoch.test is not None
        assert epoch.validation is not None
        assert epoch.test.correct == 20 - epoch.validation.correct
        assert replace(epoch, test=None) == plain
    assert trainer.best_step == without.best_step
    assert torch.equal(weights(trainer.network), weights(without.network))


def test_training_images_grow_until_a_fraction_of_the_run() -> None:
    recipe = replace(
        PLAIN,
        epochs=4,
        training_size=8,
        progressive_resizing_scale=0.5,
        progressive_resizing_until=0.75,
    )
    trainer = trainer_of(recipe)
    sides: list[int] = []
    trainer.network.register_forward_pre_hook(
        lambda network, inputs: sides.append(inputs[0].shape[-1]) if network.training else None
    )
    records = list(trainer.run())
    steps = trainer.batches.steps_per_epoch
    assert sides == [4] * 3 * steps + [8] * steps  # 4, 5.3 and 6.7, in multiples of 4; then 8
    assert sum(isinstance(record, Epoch) for record in records) == 4


def test_the_mean_of_the_weights_is_what_is_validated() -> None:
    trainer = trainer_of(replace(PLAIN, average_decay=1.0))
    seen = []
    for record in trainer.run():
        if isinstance(record, Step):
            seen.append(weights(trainer.network).clone())
    torch.testing.assert_close(weights(trainer.evaluation_network), torch.stack(seen).mean(0))
    assert isinstance(record, Epoch)
    batches = list(trainer.measured.validation or [])
    with torch.no_grad():
        logits = torch.cat([trainer.evaluation_network(batch.images) for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    assert record.validation is not None
    assert record.validation.correct == (logits.argmax(1) == targets).sum()
    assert record.validation.loss == pytest.approx(F.cross_entropy(logits, targets).item())


def test_frozen_stages_keep_weights_and_statistics() -> None:
    network = small_network(norm="batch").freeze(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for _ in trainer_of(PLAIN, network).run():
        pass
    changed = {n.split(".")[0] for n, v in network.state_dict().items() if not v.equal(before[n])}
    assert changed == {"layer2", "fc"}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_the_same_task_with_weights_in_float32(precision: Any) -> None:
    trainer = trainer_of(replace(PLAIN, epochs=6, precision=precision))
    *_, last = trainer.run()
    assert isinstance(last, Epoch)
    assert last.validation is not None
    assert last.validation.accuracy >= 0.9
    assert {weight.dtype for weight in trainer.network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_layers_learn_in_the_precision_asked_for_and_losses_and_scores_are_in_float32(
    precision: Any, dtype: torch.dtype
) -> None:
    trainer = trainer_of(replace(PLAIN, precision=precision))
    loss, layers, losses = trainer.loss, list[torch.dtype](), list[torch.dtype]()

    def noted_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses.append(logits.dtype)
        return loss(logits, targets)

    trainer.loss = noted_loss
    convolution = next(part for part in trainer.network.modules() if isinstance(part, nn.Conv2d))
    convolution.register_forward_hook(lambda *words: layers.append(words[2].dtype))
    trainer.update(next(trainer.batches.epoch(0)), 0.05)
    assert (layers, losses) == ([dtype], [torch.float32])
    layers.clear()
    for _ in trainer.score(trainer.measured.validation):
        pass
    assert {*layers} == {torch.float32}


def test_processes_see_the_parts_of_the_same_batches() -> None:
    """What torchrun's processes see is tested with real ones in test_parallel.py."""
    whole = TrainingBatches(ramps(64), SEEN, Augmentation(flip="random"), batch_size=16)
    parts = [
        TrainingBatches(
            ramps(64),
            SEEN,
            Augmentation(flip="random"),
            batch_size=16,
            process=ProcessRank(rank, 2),
        )
        for rank in range(2)
    ]
    for one, *two in zip(whole.epoch(3), *(part.epoch(3) for part in parts), strict=True):
        assert torch.equal(one.images, torch.cat([batch.images for batch in two]))
        assert isinstance(one, Batch)


def test_time_left_is_reckoned_by_pixels() -> None:
    """Of 4 epochs at 4, 4, 4 and 8 pixels, a small one is a quarter of the large one."""
    trainer = trainer_of(
        replace(
            PLAIN,
            epochs=4,
            training_size=8,
            progressive_resizing_scale=0.5,
            progressive_resizing_until=0.75,
        )
    )
    steps = trainer.batches.steps_per_epoch
    plan = Plan(0, steps, trainer.recipe, NotImplemented)
    assert plan.ahead(1) == pytest.approx(3 * steps - 1 + 4 * steps)
    assert plan.ahead(3 * steps + 1) == steps - 1
    assert plan.ahead(4 * steps) == 0


def test_patience_without_validation_images_ends_nothing() -> None:
    trainer = trainer_of(replace(PLAIN, epochs=4, patience=1), validation=False)
    list(trainer.run())
    assert (trainer.epoch, trainer.best_step) == (4, 0)


def test_a_validation_loss_that_is_not_a_number_ends_training_and_is_never_the_best() -> None:
    trainer = trainer_of(PLAIN)
    records: list[object] = []

    def follow() -> None:
        for record in trainer.run():
            records.append(record)
            if isinstance(record, Step) and record.step == 5:  # the last before the validation
                with torch.no_grad():
                    next(trainer.network.parameters()).fill_(float("nan"))

    with pytest.raises(NotFiniteError, match=r"step 5: the validation loss is nan; .*--learning"):
        follow()
    assert not [record for record in records if isinstance(record, Epoch)]
    assert trainer.best_step == 0


def test_batch_norm_over_a_single_value_is_told_with_what_to_do() -> None:
    network = ResNet("residual", (1, 1), width=8, num_classes=2, stem="imagenet")
    recipe = replace(PLAIN, batch_size=1)
    with pytest.raises(UsageError, match=r"--batch-size.*--image-size"):
        list(trainer_of(recipe, network, count=4).run())
    step_by_step = trainer_of(recipe, network.train(), count=4)  # as the learning-rate range test
    with pytest.raises(UsageError, match=r"--batch-size.*--image-size"):
        step_by_step.update(next(step_by_step.batches.epoch(0)), 0.1)


@pytest.mark.parametrize(("every", "validated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_a_validation_follows_every_so_many_epochs_and_the_last(
    every: int, validated: list[int]
) -> None:
    records = list(trainer_of(replace(PLAIN, epochs=5, validation_every=every)).run())
    epochs = [record for record in records if isinstance(record, Epoch)]
    assert [record.epoch for record in epochs] == [1, 2, 3, 4, 5]
    assert [record.epoch for record in epochs if record.validation] == validated
