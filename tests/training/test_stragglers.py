"""How long a process waits for the others, and who is told of the slowest."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from resnets.runs import supervision
from resnets.training.recipe import Recipe
from resnets.training.stragglers import WaitClock, Waits
from tests.training.test_trainer import PLAIN, trainer_of

EXCHANGE = 0.05  # seconds


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_follows_the_last_gradient_of_a_step_is_waiting(accumulate: int) -> None:
    """With pieces, only the last of them exchanges gradients."""
    trainer = trainer_of(Recipe(**vars(PLAIN) | {"accumulate": accumulate}))
    trainer.waits = WaitClock(trainer.network)
    first = next(trainer.network.parameters())
    first.register_hook(lambda _: time.sleep(EXCHANGE))
    batches = trainer.batches.epoch(0)
    for steps in (1, 2):
        trainer.update(next(batches), 0.1)
        assert steps * EXCHANGE <= trainer.waits.seconds
    assert trainer.waits.so_far().elapsed >= 2 * accumulate * EXCHANGE
    trainer.waits.restart()
    assert trainer.waits.so_far().seconds == 0


@pytest.mark.parametrize(("waited", "is_told"), [(3.0, True), (0.3, False)])
def test_the_screen_names_a_process_for_which_the_others_wait_long(
    monkeypatch: pytest.MonkeyPatch, waited: float, is_told: bool
) -> None:
    records: list[dict[str, Any]] = []
    lines: list[str] = []
    others = [Waits(waited, 10.0, "node1"), Waits(waited, 10.0, "node1")]
    slowest = Waits(0.0, 10.0, "node2")
    monkeypatch.setattr(supervision, "from_all", lambda _: [*others, slowest])
    checkpointer: Any = SimpleNamespace(
        trainer=SimpleNamespace(epoch=3, step=9),
        logbook=SimpleNamespace(lines=SimpleNamespace(write=records.append)),
    )
    callback_list: Any = SimpleNamespace(notify=lines.append)
    supervision._tell_straggler(checkpointer, WaitClock(nn.Linear(1, 1)), callback_list)
    (record,) = records
    assert (record["kind"], record["epoch"], record["rank"]) == ("straggler", 3, 2)
    assert (record["machine"], record["others_waited"]) == ("node2", waited)
    assert [("Process 2 on node2" in line) for line in lines] == [True] * is_told
