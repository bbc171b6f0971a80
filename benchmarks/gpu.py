"""What this package does on a GPU: whether it is right, how fast it is, how good networks get.

    python benchmarks/gpu.py --data FOLDER_OF_CIFAR10 --minutes 9

Does one part after the other until the time is over and writes each part's result to a file of its
own below --output. What is there already is not done again, so the next call goes on from there;
a training that is cut off goes on from its checkpoint. First comes what is right, then speed, then
accuracy, with as many seeds as there has been time for: `summary.json` says how many. A part that
fails, or that takes longer than a whole call, is written down with its error, and the next calls do
all others first.

No result of this script is in the repository yet, as no GPU was at hand; a test runs every part on
the CPU (--device cpu --tiny), for seconds and with the tiniest networks.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn

import resnets
from resnets.files.outputs import writable
from resnets.files.writing import write_atomically
from resnets.machine import machine
from resnets.networks import build
from resnets.run_files import CONFIG
from resnets.runs.prepare import on_device
from resnets.training.devices import choose_device, computing, synchronise
from resnets.training.optimisation import make_optimizer
from resnets.training.recipe import Recipe

PAUSE = 20.0  # seconds that a training has to save its state when its time is over
TINY_PAUSE = 0.5
TARGETS = (0.94, 0.95, 0.96)  # of ResNet-18 on CIFAR-10's test images
# anchors of others: images a second of ResNet-50 at 224 in timm's results of inference, by card;
# minutes to 96 % of a true ResNet-18 on one A100
TIMM = {"RTX 4090, eager": 5_088, "RTX 5090, compiled": 12_401}
MINUTES_ON_A100 = {"0.96": 7}
# the largest difference between logits of GPU and CPU, of the largest logit: what is more is a
# fault; rounding to 24, 11, 8 and 11 bits, added up over fifty layers
ALLOWED = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2, "float16": 1e-2}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Settings:
    """What to measure, and where.

    Attributes:
        data: CIFAR-10, as `resnets train` takes it, for the parts that train.
        device: as of `resnets train`.
        output: folder of the results.
        minutes: after which no other part begins, and a training is cut off.
        seeds: runs of each accuracy.
        parts: names of those to do; empty: all.
        tiny: the tiniest networks on embedded digits, to see that every part works.
    """

    data: str = "digits"
    device: str = "auto"
    output: Path = Path("results/gpu")
    minutes: float = 9.0
    seeds: int = 10
    parts: tuple[str, ...] = ()
    tiny: bool = False

    @property
    def pause(self) -> float:
        """Seconds that a training has to save its state."""
        return TINY_PAUSE if self.tiny else PAUSE

    @property
    def flags(self) -> dict[str, Any]:
        """What all trainings have in common."""
        tiny = {"network": "resnet14", "image_size": 8} if self.tiny else {"network": "resnet20"}
        return {**tiny, "device": self.device, "progress": False, "report": False}


def logits(settings: Settings) -> dict[str, Any]:
    """How far the logits of a GPU are from those of the CPU in float32, by precision."""
    device, comparisons = choose_device(settings.device), {}
    networks = {"resnet14": 8} if settings.tiny else {"resnet20": 32, "resnet50": 224}
    for name, side in networks.items():
        torch.manual_seed(0)
        network, images = build(name).eval(), torch.randn(8, 3, side, side)
        with torch.inference_mode():
            expected = network(images)
            for precision, allowed in ALLOWED.items():
                actual = _logits(network.to(device), images.to(device), precision).float().cpu()
                largest = (actual - expected).abs().max() / expected.abs().max()
                comparisons[f"{name}, {precision}"] = {
                    "largest_difference_of_largest_logit": largest.item(),
                    "allowed": allowed,
                    "within": largest.item() <= allowed,
                    "same_predictions": (actual.argmax(1) == expected.argmax(1)).sum().item(),
                    "images": len(images),
                }
            network.cpu()
    return comparisons


def _logits(network: nn.Module, images: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits in a precision of `ALLOWED`."""
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    lower = torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)
    with computing(images.device, Recipe(tf32=precision == "tf32")), lower:
        output: torch.Tensor = network(images)
    return output


def losses(settings: Settings) -> dict[str, Any]:
    """The loss of an epoch on the CPU, and on the device in each precision."""
    length = {"steps": 2} if settings.tiny else {"epochs": 1}
    choices = {"cpu float32": {"device": "cpu"}}
    precisions = ("float32",) if settings.tiny else ("float32", "bf16", "fp16")
    choices |= {f"device {name}": {"precision": name} for name in precisions}
    return {
        name: resnets.train(
            settings.data, output=False, **settings.flags | length | changes
        ).history.epochs[-1]["training"]
        for name, changes in choices.items()
    }


def resume(settings: Settings) -> dict[str, Any]:
    """Whether a run that was stopped and resumed, with --deterministic, has the same bits."""
    steps, place = (4 if settings.tiny else 100), settings.output / "runs"
    flags = settings.flags | {"steps": steps, "deterministic": True, "overwrite": True}

    def stop(record: object) -> None:
        if isinstance(record, resnets.Step) and record.step == steps // 2:
            raise resnets.StopTraining("half")

    unbroken = resnets.train(settings.data, output=place / "unbroken", **flags)
    resnets.train(settings.data, output=place / "stopped", callbacks=[stop], **flags)
    resumed = resnets.resume(place / "stopped", progress=False)
    states = (run.model.network.state_dict() for run in (unbroken, resumed))
    first, second = states
    return {"equal": all(torch.equal(first[name], second[name]) for name in first), "steps": steps}


def waits(settings: Settings) -> dict[str, Any]:
    """How often a step waits for the GPU, as CUDA's debugging mode notices it."""
    device = choose_device(settings.device)
    if device.type != "cuda":
        return {"skipped": f"{device}: torch notices this on CUDA only"}
    counts = {}
    for recipe in ("quick", "strong"):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                resnets.train(
                    settings.data, output=False, recipe=recipe, **settings.flags | {"steps": 30}
                )
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = [f"{Path(each.filename).name}:{each.lineno}" for each in caught]
        counts[recipe] = {place: places.count(place) for place in sorted(set(places))}
    return counts


def processes(settings: Settings) -> dict[str, Any]:
    """Whether two processes reach the loss of one, with synchronised batch norms on GPUs."""
    device = choose_device(settings.device)
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": "there is one GPU"}
    place, words = settings.output / "runs", _words(settings, steps=2 if settings.tiny else 50)
    words += ["--sync-batch-norm"] if device.type == "cuda" else []
    both = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    started = {"one": [sys.executable], "two": both}
    metrics = {}
    for name, launcher in started.items():
        command = [*launcher, "-m", "resnets", *words, "--output", str(place / name), "--overwrite"]
        _run(command)
        metrics[name] = resnets.Run.open(place / name).history.epochs[-1]["training"]
    return metrics


def _run(command: list[str]) -> None:
    """Run a command to its end; where its time is over, it ends its own processes."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if code:
        raise subprocess.CalledProcessError(code, command)


def training_speed(settings: Settings) -> dict[str, Any]:
    """Images a second of ResNet-50's training step on images that lie on the device."""
    return _speeds(settings, _training_step)


def inference_speed(settings: Settings) -> dict[str, Any]:
    """Images a second of ResNet-50's forward pass, beside timm's published ones."""
    return _speeds(settings, _forward) | {"timm": TIMM}


Step = Callable[[], object]


def _training_step(network: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Step:
    optimizer = make_optimizer(network, Recipe())
    scaler = torch.amp.GradScaler(images.device.type, enabled=dtype == torch.float16)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)

    def step() -> None:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def _forward(network: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Step:
    network.eval()

    lower = torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)

    def step() -> object:
        with torch.inference_mode(), lower:
            return network(images)

    return step


def _speeds(settings: Settings, make: Callable[..., Step]) -> dict[str, Any]:
    """Images a second: medians over steps that are each waited for."""
    device = choose_device(settings.device)
    name, side = ("resnet14", 8) if settings.tiny else ("resnet50", 224)
    batch, steps = (4, 2) if settings.tiny else (256, 30)
    speeds: dict[str, Any] = {"network": name, "side": side, "batch_size": batch, "steps": steps}
    modes = (False,) if settings.tiny else (False, True)
    for dtype in DTYPES:
        for compiled in modes:
            network = on_device(build(name), Recipe(), device).train()
            images = torch.randn(batch, 3, side, side, device=device)
            images = images.contiguous(memory_format=torch.channels_last)
            if compiled:
                network.compile()
            with computing(device, Recipe()):
                step = make(network, images, dtype)
                seconds = [*islice(_seconds(step, device), 5, 5 + steps)]
            label = f"{str(dtype).removeprefix('torch.')} {'compiled' if compiled else 'eager'}"
            speeds[label] = batch / statistics.median(seconds)
    return speeds


def _seconds(step: Step, device: torch.device) -> Iterator[float]:
    while True:
        synchronise(device)
        start = time.perf_counter()
        step()
        synchronise(device)
        yield time.perf_counter() - start


def accuracy(settings: Settings, recipe: str, network: str, seed: int) -> dict[str, Any] | None:
    """Test accuracy of a run, and when it first reached each target; None if it is not finished."""
    place = settings.output / "runs" / f"{recipe}-{network}-{seed}"
    words = _words(settings, network=network, recipe=recipe, seed=seed, follow_test=True)
    if (place / CONFIG).is_file():
        words = ["train", "--resume", str(place)]
    else:
        words += ["--output", str(place)]
    command = [sys.executable, "-m", "resnets", *words]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        training.wait(max(1.0, 60 * settings.minutes - settings.pause - _spent()))
    except subprocess.TimeoutExpired:
        training.terminate()  # it saves its state
        training.wait()
        return None
    if training.returncode:
        raise subprocess.CalledProcessError(training.returncode, words)
    run = resnets.Run.open(place)
    reached = {
        str(target): next(
            ({"epoch": epoch["epoch"], "seconds": epoch["seconds"]} for epoch in run.history.epochs
             if _accuracy(epoch["test"]) >= target), None)
        for target in TARGETS
    }  # fmt: skip
    return {
        **{"test_accuracy": run.metrics["test_accuracy"], "reached": reached, "seed": seed},
        **{"training_seconds": run.history.seconds, "minutes_on_a100": MINUTES_ON_A100},
    }


def _accuracy(score: dict[str, Any]) -> float:
    return float(score["accuracy"])


def _words(settings: Settings, **flags: Any) -> list[str]:
    """The words of `resnets train`."""
    flags = {"device": settings.device, "network": settings.flags["network"], **flags}
    if settings.tiny:
        flags |= {"network": "resnet14", "image_size": 8, "epochs": 1, "steps": 2}
    words = ["train", settings.data, "--no-report"]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words


_STARTED = time.monotonic()


def _spent() -> float:
    """Seconds since this script began."""
    return time.monotonic() - _STARTED


Part = Callable[[Settings], dict[str, Any] | None]
_RUNS = (("paper", "resnet20"), ("quick", "resnet20"), ("quick", "resnet18_cifar"))


def parts_of(settings: Settings) -> dict[str, Part]:
    """All parts by name, in their order."""
    parts: dict[str, Part] = {
        "logits": logits,
        "losses": losses,
        "resume": resume,
        "waits": waits,
        "processes": processes,
        "training-speed": training_speed,
        "inference-speed": inference_speed,
    }
    for seed in range(settings.seeds):
        for recipe, network in _RUNS:
            parts[f"accuracy-{recipe}-{network}-{seed}"] = _bound(recipe, network, seed)
    return parts


def _bound(recipe: str, network: str, seed: int) -> Part:
    return lambda settings: accuracy(settings, recipe, network, seed)


def summary(settings: Settings) -> dict[str, Any]:
    """Accuracies by recipe and network, with the number of seeds; and the parts that are done."""
    done = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(settings.output.glob("*.json"))
        if file.stem != "summary"
    }
    rows = {}
    for recipe, network in _RUNS:
        start = f"accuracy-{recipe}-{network}-"
        scores = [part["test_accuracy"] for name, part in done.items() if name.startswith(start)]
        if scores:
            spread = statistics.stdev(scores) if len(scores) > 1 else None
            mean = statistics.mean(scores)
            rows[f"{recipe} {network}"] = {"n": len(scores), "mean": mean, "deviation": spread}
    return {"accuracy": rows, "parts": sorted(done)}


class _TimeIsOver(BaseException):
    """The time of a call is over; no error that what is measured may handle."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise _TimeIsOver in what takes longer, where the system has such an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise _TimeIsOver

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _failures(settings: Settings, name: str) -> list[str]:
    """The errors by which a part has ended so far."""
    file = settings.output / "failed" / f"{name}.json"
    errors: list[str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return errors


def _failed(settings: Settings, name: str, error: str) -> None:
    """Write down that a part has failed, so that the next calls do all others first."""
    file = settings.output / "failed" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    errors = [*_failures(settings, name), error]
    write_atomically(writable(file), (json.dumps(errors, indent=1) + "\n").encode())
    print(f"{name}: failed: {error}", file=sys.stderr, flush=True)


def _result(settings: Settings, name: str, part: Part) -> dict[str, Any] | None:
    """What a part measures; None if it fails or its time is over."""
    left, start = 60 * settings.minutes - _spent(), time.monotonic()
    try:
        with _within(left):
            result = part(settings)
    except _TimeIsOver:
        if left > 30 * settings.minutes:  # it had most of a call, so that it would never end
            _failed(settings, name, f"it takes longer than {left:.0f} s")
            return None
        result = None
    except Exception as error:  # of whatever kind: the other parts are worth as much
        _failed(settings, name, f"{type(error).__name__}: {error}")
        return None
    if result is None:
        print(f"{name}: cut off, comes first in the next call", flush=True)
        return None
    return result | {"seconds_of_part": round(time.monotonic() - start, 1)}


def main(settings: Settings) -> int:
    """Do what there is time for. Returns the exit code: 1 if a part has failed."""
    settings.output.mkdir(parents=True, exist_ok=True)
    about, failed = machine(choose_device(settings.device)) | {"torch": torch.__version__}, False
    parts = parts_of(settings)
    for name in sorted(parts, key=lambda name: len(_failures(settings, name))):
        file = settings.output / f"{name}.json"
        if file.exists() or (settings.parts and name not in settings.parts):
            continue
        if _spent() > 60 * settings.minutes - 2 * settings.pause:
            print("the time is over: call this again to go on", flush=True)
            break
        tries = len(_failures(settings, name))
        result = _result(settings, name, parts[name])
        if result is None:  # after a fault of a GPU, a process can compute nothing else on it
            failed = len(_failures(settings, name)) > tries
            break
        result |= {"machine": about}
        write_atomically(writable(file), (json.dumps(result, indent=1) + "\n").encode())
        print(f"{name}: done in {result['seconds_of_part']:.0f} s", flush=True)
    text = json.dumps(summary(settings), indent=1) + "\n"
    write_atomically(writable(settings.output / "summary.json"), text.encode())
    return int(failed)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1" if "--tiny" in sys.argv else str(os.cpu_count()))
    sys.exit(main(tyro.cli(Settings)))
