"""Training from Python: what it gives back, what it writes, and what it leaves as it was."""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import resnets
from resnets.commands.train import main
from resnets.errors import UsageError
from resnets.runs.job import changed_job
from tests.spread import spread

Arrays = tuple[np.ndarray, np.ndarray]
QUICK = {"network": "resnet14", "image_size": 8, "epochs": 2, "batch_size": 16, "report": False}


@pytest.fixture(scope="module")
def shades() -> Arrays:
    """60 noisy images of 8 x 8 pixels, half of them dark."""
    noise = np.random.default_rng(0).integers(0, 120, (60, 8, 8, 3), np.uint8)
    labels = np.arange(60) % 2
    return noise + (120 * labels[:, None, None, None]).astype(np.uint8), labels


@pytest.fixture
def quick(shades: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Trains on them in an empty folder, showing nothing."""
    monkeypatch.chdir(tmp_path)

    def train(**changes: Any) -> resnets.Run:
        return resnets.train(shades, **(QUICK | {"progress": False} | changes))

    return train


def weights(run: resnets.Run) -> dict[str, torch.Tensor]:
    return run.model.network.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_is_a_model_with_plain_metrics_and_a_history(quick: Any, shades: Arrays) -> None:
    run = quick()
    assert run.path is not None
    assert run.path.parts[0] == "runs"
    assert set(run.metrics) == {
        *("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
    }
    assert all(type(value) is float for value in run.metrics.values())
    top1 = run.description.metrics["test"]["top1"]
    assert run.metrics["test_accuracy"] == top1["count"] / top1["total"]
    assert [record["kind"] for record in run.history if record["kind"] != "interval"] == [
        *("start", "epoch", "epoch", "end")
    ]
    assert run.stopped is None
    assert not run.model.network.training
    (prediction,) = resnets.predict(run.model, shades[0][0])
    assert prediction.prediction in run.description.class_names
    saved = resnets.load(run.path)
    assert same(weights(run), saved.network.state_dict())
    assert run.description == saved.description
    again = pickle.loads(pickle.dumps(run))  # noqa: S301  (our own)
    assert same(weights(again), weights(run))
    from_folder = resnets.Run.open(run.path)
    assert (from_folder.metrics, len(from_folder.history)) == (run.metrics, len(run.history))
    assert str(run.path) in repr(run)


def test_without_output_nothing_is_written_and_the_weights_are_the_same(
    quick: Any, tmp_path: Path
) -> None:
    silent = quick(output=False, patience=2)
    assert list(tmp_path.iterdir()) == []
    assert silent.path is None
    written = quick(output=tmp_path / "run", patience=2)
    assert same(weights(silent), weights(written))
    assert silent.metrics == written.metrics
    kinds = [record["kind"] for record in silent.history]
    assert kinds == [record["kind"] for record in written.history]


def test_patience_without_output_keeps_the_best_network_not_the_last(quick: Any) -> None:
    """The witness is what a callback copied after each epoch."""
    plans, epochs = [], []

    def look(record: Any) -> None:
        if isinstance(record, resnets.Plan):
            plans.append(record)
        elif isinstance(record, resnets.Epoch):
            epochs.append((record.best, plans[-1].model().network.state_dict()))

    run = quick(output=False, patience=5, epochs=5, callbacks=[look])
    assert not epochs[-1][0]
    (*_, best) = (kept for better, kept in epochs if better)
    assert same(weights(run), best)
    assert not same(weights(run), epochs[-1][1])


@pytest.mark.parametrize(
    ("changes", "labels", "words"),
    [
        ({}, 9, "the weights after epoch 6, the last"),
        ({"average_decay": 0.9}, 9, "the mean of the weights until epoch 6, the last"),
        ({"epochs": 0, "steps": 14}, 8, "the weights after step 14, the last"),
        ({"patience": 6}, 9, "epoch {best}, the best"),
    ],
)
def test_the_end_says_which_epoch_is_kept_and_which_was_best(
    changes: dict[str, Any], labels: int, words: str, shades: Arrays
) -> None:
    """Labels at random, of a seed with which the last epoch is not the best one."""
    best, accuracies, lines = [], [], []

    def look(record: Any) -> None:
        if isinstance(record, resnets.Epoch):
            accuracies.append(record.validation.accuracy)
            best.extend([record.epoch] if record.best else [])
        elif isinstance(record, resnets.Notice) and record.text.startswith("Kept:"):
            lines.append(record.text)

    data = (shades[0], np.random.default_rng(labels).integers(0, 2, 60))
    settings = QUICK | {"epochs": 6, "output": False, "progress": False} | changes
    resnets.train(data, **settings, callbacks=[look])
    (line,) = lines
    assert words.format(best=best[-1]) in line
    assert accuracies[-1] < max(accuracies)  # so the case is one
    assert f"epoch {best[-1]}" in line


def test_a_finished_run_tells_again_which_epoch_was_better(shades: Arrays, tmp_path: Path) -> None:
    data = (shades[0], np.random.default_rng(9).integers(0, 2, 60))
    lines: list[list[str]] = [[], []]

    def listener(lines: list[str]) -> Callable[[Any], None]:
        def look(record: Any) -> None:
            if isinstance(record, resnets.Notice) and record.text.startswith("Kept:"):
                lines.append(record.text)

        return look

    settings = QUICK | {"epochs": 6, "output": tmp_path / "run", "progress": False}
    resnets.train(data, **settings, callbacks=[listener(lines[0])])
    resnets.resume(tmp_path / "run", data=data, progress=False, callbacks=[listener(lines[1])])
    assert "best after epoch" in lines[0][0]
    assert lines[1] == lines[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 3, "learning_rate": 0.0}, "the weights after epoch 3, the last."),
        ({"epochs": 1, "average_decay": 0.9}, "the mean of the weights until epoch 1, the last."),
    ],
)
def test_an_epoch_that_was_as_good_as_the_best_is_not_called_worse(
    changes: dict[str, Any], words: str, quick: Any
) -> None:
    """Without a step nothing changes; that of one epoch tells that its weights are a mean."""
    lines = []

    def look(record: Any) -> None:
        if isinstance(record, resnets.Notice) and record.text.startswith("Kept:"):
            lines.append(record.text)

    quick(output=False, callbacks=[look], **changes)
    assert lines == [f"Kept: {words}"]


def test_the_command_gives_the_same_weights(tmp_path: Path) -> None:
    words = ["digits", "--network", "resnet14", "--image-size", "8", "--batch-size", "256"]
    words += ["--epochs", "1", "--seed", "3", "--no-report", "--output", str(tmp_path / "a")]
    assert main(words) == 0
    run = resnets.train(
        "digits",
        **(QUICK | {"batch_size": 256, "epochs": 1, "seed": 3}),
        output=tmp_path / "b",
        progress=False,
    )
    assert same(weights(run), resnets.load(tmp_path / "a").network.state_dict())


def test_random_numbers_threads_and_signal_handlers_are_as_before(quick: Any) -> None:
    def draw() -> list[Any]:
        legacy = np.random.random(3).tolist()  # noqa: NPY002  (the state that others draw from)
        return [random.random(), legacy, torch.rand(3).tolist()]

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = draw()
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    try:
        torch.set_num_threads(3)
        seed()
        quick(output=False, threads=1, seed=5)
        assert draw() == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert signal.getsignal(signal.SIGINT) is handler


def test_training_in_another_thread_works(quick: Any) -> None:
    runs = []
    thread = threading.Thread(target=lambda: runs.append(quick(output=False, epochs=1)))
    thread.start()
    thread.join()
    assert runs[0].metrics["test_loss"] > 0


@pytest.mark.own_process
@pytest.mark.parametrize("output", spread([False, None]))
def test_a_stop_button_ends_the_training_with_what_there_is(quick: Any, output: Any) -> None:
    def press(record: Any) -> None:
        if isinstance(record, resnets.Epoch) and record.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    run = quick(output=output, epochs=50, callbacks=[press])
    assert run.stopped == "SIGINT"
    assert run.metrics["validation_accuracy"] >= 0
    assert len(run.history.epochs) == 1
    assert not run.history.finished
    if run.path is not None:
        assert same(weights(run), resnets.load(run.path).network.state_dict())


class Small(torch.nn.Module):
    """A network of a user, who may press the stop button in the midst of it."""

    def __init__(self, press: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.press = torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Linear(4, 2), press

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        self.press()
        return logits


@pytest.mark.parametrize("place", ["callback", "loss", "network"])
def test_an_interrupt_that_the_users_own_code_raises_ends_with_the_network_so_far(
    quick: Any, shades: Arrays, tmp_path: Path, place: str
) -> None:
    """And the run goes on to the weights of an unbroken one."""
    pressed_in = []

    def press(now_in: str) -> None:
        if pressed_in == [now_in]:
            pressed_in.clear()
            raise KeyboardInterrupt

    def callback(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == 4:
            pressed_in.append(place)
            press("callback")

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        press("loss")
        return torch.nn.functional.cross_entropy(logits, targets)

    changes = {"loss": loss, "threads": 1}
    unbroken = quick(output=tmp_path / "unbroken", network=Small(), **changes)
    network = Small(lambda: press("network"))
    broken = quick(output=tmp_path / "broken", network=network, callbacks=[callback], **changes)
    assert broken.stopped == "SIGINT"
    assert broken.metrics["validation_accuracy"] >= 0
    assert not same(weights(broken), weights(unbroken))
    resumed = resnets.resume(
        *(tmp_path / "broken",), data=shades, network=Small(), loss=loss, progress=False
    )
    assert same(weights(resumed), weights(unbroken))
    assert resumed.metrics == unbroken.metrics


def test_an_interrupt_before_the_first_step_is_raised_and_after_the_end_is_none(
    quick: Any,
) -> None:
    def press_at(kind: type) -> Callable[[Any], None]:
        def press(record: Any) -> None:
            if isinstance(record, kind):
                raise KeyboardInterrupt

        return press

    with pytest.raises(KeyboardInterrupt):
        quick(output=False, epochs=1, callbacks=[press_at(resnets.Plan)])
    run = quick(output=False, epochs=1, callbacks=[press_at(resnets.End)])
    assert run.stopped is None
    assert run.metrics["test_accuracy"] >= 0


def test_a_stop_button_while_the_network_is_scored_keeps_the_network(
    quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnets.runs import result

    def pressed(result: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(result, "_ACTIONS", (pressed, result._save))
    run = quick()
    assert run.stopped == "SIGINT"
    assert run.metrics == {}
    assert same(weights(run), resnets.load(run.path).network.state_dict())


@pytest.mark.parametrize("patience", [0, 2])
def test_a_stop_button_during_the_last_estimate_of_statistics_keeps_the_same_network(
    quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    from resnets.runs import active_run

    changes = {"patience": patience, "report": False}
    unbroken = quick(output=tmp_path / "unbroken", **changes)
    last_network, pressed = active_run.final_network, []

    def press_in_second_batch(*arguments: Any) -> torch.nn.Module:
        def press(*_: Any) -> None:
            pressed.append(True)
            if len(pressed) == 2:
                raise KeyboardInterrupt

        hook = torch.nn.modules.module.register_module_forward_hook(press)
        try:
            return last_network(*arguments)
        finally:
            hook.remove()

    monkeypatch.setattr(active_run, "final_network", press_in_second_batch)
    run = quick(output=tmp_path / "broken", **changes)
    assert len(pressed) > 2
    assert run.stopped == "SIGINT"
    assert same(weights(run), weights(unbroken))
    assert run.metrics == unbroken.metrics


@pytest.mark.own_process
def test_a_stopped_run_resumes_to_the_weights_of_an_unbroken_one(
    quick: Any, shades: Arrays, tmp_path: Path
) -> None:
    def press(record: Any) -> None:
        if isinstance(record, resnets.Step) and record.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    unbroken = quick(output=tmp_path / "unbroken")
    broken = quick(output=tmp_path / "broken", callbacks=[press])
    assert broken.stopped == "SIGINT"
    assert not same(weights(broken), weights(unbroken))
    resumed = resnets.resume(tmp_path / "broken", data=shades, progress=False)
    assert same(weights(resumed), weights(unbroken))
    assert resumed.metrics == unbroken.metrics
    with pytest.raises(UsageError, match="from Python"):
        resnets.resume(tmp_path / "broken", progress=False)
    with pytest.raises(UsageError, match="seed"):
        resnets.resume(tmp_path / "broken", data=shades, seed=9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 4}, "epochs"),
        ({"learning_rte": 0.1}, "learning_rate"),
        ({"colour": "blue"}, "batch_size"),
        ({"epochs": "4"}, "epochs is '4'"),
        ({"flip": "always"}, "flip is 'always'"),
        ({"recipe": "fast"}, "quick"),
        ({"network": "resnet15"}, "resnet15"),
        ({"report": 3}, "report is 3"),
        ({"start": "none.safetensors"}, "no such file"),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused_and_leaves_nothing(
    quick: Any, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        quick(**changes)
    assert isinstance(caught.value, TypeError) == (
        set(changes) <= {"epoch", "learning_rte", "colour"}
    )
    assert list(tmp_path.iterdir()) == []


def test_changes_have_the_names_and_effects_of_the_flags(quick: Any) -> None:
    from resnets.runs.job import Job, new_job

    job = new_job("digits", "auto", "quick", {"optimizer": "sgd", "milestones": [0.5], "from": "a"})
    assert (job.recipe.rate, job.recipe.milestones, job.start) == (0.25, (0.5,), "a")
    job = changed_job(Job(), {"mixup": np.float64(0.2), "other": Path("others")})
    assert (job.recipe.augmentation.mixup, job.other) == (0.2, "others")
    assert new_job("digits", "resnet110", "paper", {}).recipe.warmup_steps == 400


def test_a_run_says_how_long_it_has_to_go(quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
    quick(output=False, epochs=1, progress=True)
    shown = capsys.readouterr().out
    assert "epoch 1/1" in shown
    assert "test accuracy" in shown
    quick(output=False, epochs=1, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.own_process
def test_a_second_press_is_a_keyboard_interrupt() -> None:
    from resnets.runs.stop_signals import StopSignals

    with StopSignals((signal.SIGINT,), exits=False) as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


WINDOWS = """
import os, signal

for name in ("fork", "forkpty", "fchmod", "sched_getaffinity", "killpg", "mkfifo"):
    delattr(os, name)
for name in ("O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "statvfs", "getloadavg"):
    delattr(os, name)
for name in ("SIGHUP", "SIGPIPE", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGUSR1", "alarm"):
    delattr(signal, name)
with open(__file__ + ".started", "a", encoding="utf-8") as file:
    file.write(f"{os.getpid()}\\n")
"""
SCRIPT = """
from resnets.data import processes
processes._METHOD = "spawn"  # as on macOS and Windows
import resnets
from resnets.cli import main
print("imported", flush=True)
run = resnets.train({photos!r}, "resnet14", **{changes}, workers=1, output=False, progress=False)
print(sorted(run.metrics))
words = "export resnet20_cifar10 --to onnx --output network.onnx --images 2"
print(main(words.split()))
model = resnets.load("network.onnx", engine="onnxruntime")
print(*[prediction.status for prediction in resnets.predict(model, [{photo!r}] * 2)])
"""


@pytest.mark.soak
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is taken away here")
def test_a_script_trains_exports_and_predicts_without_guard_fork_or_signals_of_posix(
    photos: Path, tmp_path: Path
) -> None:
    """What Windows lacks is taken away in the script's process and in its workers.

    What code looks up by `sys.platform` (`fcntl`, `sysconf`, `register_at_fork`) stays.
    """
    changes = {"image_size": 16, "epochs": 1, "smallest_crop": 0.3, "batch_size": 12}
    photo = next(photos.rglob("*.png"))
    script = SCRIPT.format(
        photos=str(photos), photo=str(photo), changes=changes | {"crop_padding": 0}
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text(WINDOWS, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "script.py"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stderr == ""
    imported, figures, *_, code, statuses = done.stdout.splitlines()
    assert imported == "imported"
    assert "test_accuracy" in figures
    assert code == "0"
    assert len(statuses.split()) == 2
    started = (tmp_path / "sitecustomize.py.started").read_text(encoding="utf-8").split()
    assert len(set(started)) >= 3  # the script and its two workers
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__", "network.onnx"} == {
        "script.py",
        "sitecustomize.py",
        "sitecustomize.py.started",
    }


def test_a_run_stands_for_its_model_in_every_function() -> None:
    run = resnets.train("digits", steps=3, image_size=8, output=False, progress=False, report=False)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    same = resnets.predict(run.model, images)
    assert [each.probability for each in resnets.predict(run, images)] == [
        each.probability for each in same
    ]
    evaluations = [resnets.evaluate(model, "digits") for model in (run, run.model)]
    assert evaluations[0].to_dict() == evaluations[1].to_dict()
    with pytest.raises(UsageError, match="top"):
        resnets.predict(run, images, top=99)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": None}, "data is None"),
        ({"data": ""}, "no data given"),
        ({"data": "digits", "output": True}, "output is True"),
        ({"data": "digits", "callbacks": 5}, "callbacks is 5"),
        ({"data": "digits", "callbacks": [5]}, r"callbacks is \(5,\)"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_by_name(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        resnets.train(progress=False, **arguments)
    assert not list(tmp_path.iterdir())
