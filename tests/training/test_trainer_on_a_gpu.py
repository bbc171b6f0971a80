"""What a trainer does where a GPU computes: one that is simulated, with a clock of its own."""

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from resnets.data.batches import Batch, TrainingBatches
from resnets.runs.budget import Bottleneck, measure
from resnets.runs.progress import _Pace
from resnets.training import trainer as module
from resnets.training.optimisation import load_optimizer, make_optimizer
from resnets.training.recipe import Recipe
from resnets.training.trainer import Interval, Step, Trainer, _Average, copied
from tests.training.test_trainer import PLAIN, small_network, trainer_of, weights
from tests.training.without_float64 import WithoutFloat64

READING, COMPUTING = 0.01, 0.1  # seconds a batch and a step; the host launches a step in none


class SimulatedGpu:
    """A device that computes while the host goes on, until the host waits for it."""

    type = "cuda"

    def __init__(self) -> None:
        self.clock = self.busy_until = 0.0

    def launch(self, *_: object) -> None:
        """A step's work, behind what was launched before."""
        self.busy_until = max(self.clock, self.busy_until) + COMPUTING

    def wait(self, *_: object) -> None:
        """As a copy to the host, or a synchronisation, does."""
        self.clock = max(self.clock, self.busy_until)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimulatedGpu:
    """A simulated GPU on which every trainer computes."""
    gpu = SimulatedGpu()
    add_up, epoch = module._add_up, TrainingBatches.epoch

    def copy_to_host(*arguments: Any) -> None:
        gpu.wait()
        add_up(*arguments)

    def slow_epoch(*arguments: Any) -> Iterator[Batch]:
        for batch in epoch(*arguments):
            gpu.clock += READING
            yield batch

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: gpu.clock))
    monkeypatch.setattr(module, "synchronise", gpu.wait)
    monkeypatch.setattr(module, "_add_up", copy_to_host)
    monkeypatch.setattr(TrainingBatches, "epoch", slow_epoch)
    return gpu


def on_gpu(gpu: SimulatedGpu, log_every: int = 1000, epochs: int = 15) -> Trainer:
    trainer = trainer_of(Recipe(**{**vars(PLAIN), "epochs": epochs}), validation=False)
    trainer.device, trainer.log_every = gpu, log_every  # type: ignore[assignment]
    trainer.network.register_forward_pre_hook(gpu.launch)
    return trainer


def steps_of(trainer: Trainer) -> list[Step]:
    return [record for record in trainer.run() if isinstance(record, Step)]


def test_the_work_of_a_gpu_is_not_counted_as_waiting_for_images(gpu: SimulatedGpu) -> None:
    trainer = on_gpu(gpu)
    bottleneck = Bottleneck(trainer.recipe, trainer.batches)
    messages = [text for step in steps_of(trainer) if (text := bottleneck.note(step))]
    assert messages[0].startswith("Bound by compute: 91 %")


def test_steps_are_timed_at_first_and_then_overlap_with_reading(gpu: SimulatedGpu) -> None:
    trainer = on_gpu(gpu)
    trainer.timed = 8
    steps = steps_of(trainer)
    assert [step.waiting for step in steps[:8]] == pytest.approx([READING] * 8)
    assert [step.seconds for step in steps[:8]] == pytest.approx([READING + COMPUTING] * 8)
    later = sum(step.seconds for step in steps[8:])
    assert later == pytest.approx(COMPUTING * len(steps[8:]), rel=0.05)


@pytest.mark.parametrize("log_every", [1, 5, 1000])
def test_images_a_second_do_not_depend_on_how_often_is_logged(
    gpu: SimulatedGpu, log_every: int
) -> None:
    trainer, pace = on_gpu(gpu, log_every), _Pace()
    trainer.timed = 0
    for step in steps_of(trainer):
        pace.note(step)
    slowest, fastest = 8 / (COMPUTING + READING), 8 / COMPUTING
    assert 0.8 * slowest < pace.images_per_second < 1.2 * fastest


def test_a_budget_is_planned_by_whole_steps(gpu: SimulatedGpu) -> None:
    speed = measure(on_gpu(gpu), 1.0, validation_images=80, clock=lambda: gpu.clock)
    assert speed.step == pytest.approx(READING + COMPUTING, rel=0.1)
    assert speed.validation == pytest.approx(10 * (READING + 0.4 * COMPUTING), rel=0.1)


def test_scores_are_the_same_wherever_they_are_added_up(gpu: SimulatedGpu) -> None:
    plain = trainer_of(PLAIN, validation=False)
    plain.log_every = 5
    there, here = ([*trainer.run()] for trainer in (on_gpu(gpu, 5, epochs=2), plain))
    scores = [
        [record.training for record in records if not isinstance(record, Step)]
        for records in (there, here)
    ]
    assert scores[0] == scores[1]
    assert any(isinstance(record, Interval) for record in here)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("fused_there", [True, False])
def test_a_state_of_another_device_does_not_bring_its_kernels(
    optimizer: Any, fused_there: bool
) -> None:
    here = make_optimizer(small_network(), Recipe(optimizer=optimizer))
    kernels = [(group.get("fused"), group.get("foreach")) for group in here.param_groups]
    state = copy.deepcopy(here.state_dict())
    for group in state["param_groups"]:
        group |= {"fused": fused_there, "foreach": not fused_there, "lr": 0.125}
    load_optimizer(here, state)
    loaded = [(group.get("fused"), group.get("foreach")) for group in here.param_groups]
    assert {group["lr"] for group in here.param_groups} == {0.125}
    assert loaded == kernels if optimizer != "muon" else True


def test_copies_of_a_compiled_network_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda network: compiled.append(network))
    network, recipe = small_network(), Recipe(compile=True, average_decay=0.9)
    copies = [copied(network, recipe), _Average(network, recipe).network]
    assert [*map(id, compiled)] == [*map(id, copies)]
    copied(network, Recipe())
    assert len(compiled) == 2


def test_fp16_goes_on_where_a_scaler_without_a_gpu_began() -> None:
    recipe = Recipe(**{**vars(PLAIN), "precision": "fp16"})
    first, second = trainer_of(recipe), trainer_of(recipe)
    for _ in first.train():
        pass
    state = first.state()
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = True  # as a GPU would have saved it
    second.load_state(state)
    assert torch.equal(*(next(each.network.parameters()) for each in (first, second)))
    assert [step.step for step in second.train() if isinstance(step, Step)] == []


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_step_and_a_score_compute_nothing_in_float64(optimizer: Any) -> None:
    """Apple's GPUs have none; a tally is in float64 on the host alone."""
    choices = {"optimizer": optimizer, "average_decay": 0.9, "clip_norm": 1.0, "accumulate": 2}
    trainer = trainer_of(Recipe(**vars(PLAIN) | choices))
    trainer.device = SimpleNamespace(type="cuda")  # type: ignore[assignment]
    batch, held_out = next(trainer.batches.epoch(0)), [*(trainer.measured.validation or ())]
    with WithoutFloat64(torch.device("cpu")) as device:
        trainer.update(batch, 0.1)
        tallies = [*module._batch_tallies(trainer.evaluation_network.eval(), held_out)]
    assert device.results
    assert {tally.dtype for tally in tallies} == {torch.float32}
    assert len(trainer.pending) == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_clipped_by_their_own_length_not_by_the_scaled_one(accumulate: int) -> None:
    """In fp16 the loss is scaled up; a gradient that is clipped so would hardly move a weight."""
    moved = []
    for precision in ("float32", "fp16"):
        choices = {"precision": precision, "clip_norm": 0.01, "accumulate": accumulate}
        recipe = Recipe(**vars(PLAIN) | choices | {"momentum": 0.0, "weight_decay": 0.0})
        trainer = trainer_of(recipe)
        trainer.scaler = torch.amp.GradScaler("cpu", 256.0, enabled=precision == "fp16")
        before = weights(trainer.network)
        trainer.update(next(trainer.batches.epoch(0)), 1.0)
        moved.append((weights(trainer.network) - before).norm().item())
    assert moved[0] == pytest.approx(0.01, rel=0.01)
    assert moved[1] == pytest.approx(0.01, rel=0.01)


@pytest.mark.slow
def test_a_compiled_network_goes_on_from_its_state_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By torch.compile's own front end, without a compiler; a state has no trace of it."""
    compiles = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiles(self, backend="eager"))

    def trainer() -> Trainer:
        network = small_network()
        network.compile()
        return trainer_of(Recipe(**vars(PLAIN) | {"compile": True}), network)

    unbroken, begun, resumed = trainer(), trainer(), trainer()
    for _ in unbroken.run():
        pass
    for _ in begun.train():
        pass
    for _ in begun.validate():
        pass
    state = copy.deepcopy(begun.state())
    assert state["network"].keys() == small_network().state_dict().keys()
    resumed.load_state(state)
    for _ in resumed.run():
        pass
    assert torch.equal(weights(resumed.network), weights(unbroken.network))
