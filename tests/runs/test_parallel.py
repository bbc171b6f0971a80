"""Several real processes against one."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from resnets import model_file
from resnets.errors import UsageError
from resnets.images import Preprocessing
from resnets.model_file import Description
from resnets.networks import ResNet
from resnets.runs.checkpoint import Checkpoints, read
from resnets.training.devices import choose_device
from resnets.training.parallel import (
    _must_share_buffers,
    any_process,
    batch_norm_notice,
    distribute,
    from_all,
    total,
)
from resnets.training.recipe import Recipe
from tests.in_process import call
from tests.processes import by_torchrun, several
from tests.spread import spread

STEPS = 6
SEEN = 1457 * STEPS // 23  # images: an epoch has 23 batches of 63 or 64
TRAIN = ["--steps", str(STEPS), "--batch-size", "64", "--accumulate", "2"]
TRAIN += ["--learning-rate", "0.05", "--average-decay", "0.9", "--checkpoint-every", "4"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with group norms, whose result does not depend on what else is in a batch."""
    torch.manual_seed(0)
    network = ResNet("residual", (1, 1), width=8, norm="group")
    names = tuple(map(str, range(10)))
    description = Description(
        network.architecture.to_dict(), names, Preprocessing(8, 8, (0.3,) * 3, (0.4,) * 3)
    )
    path = tmp_path_factory.mktemp("start") / "group_norm.safetensors"
    model_file.save(path, network, description)
    return path


def by_two(*words: Any, script: Path | None = None, processes: int = 2) -> str:
    """Train by two processes, or more; what they printed."""
    done = several("train", *words, "--no-report", script=script, processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def trained(path: Path) -> torch.Tensor:
    state = model_file.load(path / "model.safetensors").network.state_dict()
    return torch.cat([value.flatten() for value in state.values()])


def epochs(path: Path) -> list[dict[str, Any]]:
    lines = [
        json.loads(line) for line in (path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return [line for line in lines if line["kind"] == "epoch"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes with batch norms, and dropping by random states of their own, in bf16."""
    folder = tmp_path_factory.mktemp("two") / "run"
    words = ["digits", "--network", "resnet14", "--image-size", "8", "--dropout", "0.2", *TRAIN]
    words += ["--gradient-exchange", "bf16", "--bucket-mb", "1"]
    by_two(*words, "--keep", "9", "--output", folder)
    return folder


@pytest.mark.soak
def test_processes_share_the_statistics_that_they_estimate(two: Path) -> None:
    """Each scores half of the validation images: as one process with the saved statistics does."""
    (epoch,) = epochs(two)
    scores = model_file.load(two / "model.safetensors").description.metrics
    assert epoch["validation"]["loss"] == pytest.approx(scores["validation"]["loss"], rel=1e-5)
    done = call("evaluate", two, "digits", "--split", "validation", "--json")
    assert json.loads(done.stdout)["top1"]["count"] == epoch["validation"]["correct"]


@pytest.mark.soak
def test_a_finished_run_is_scored_again_alike_by_one_process(two: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(two, again)
    done = call("train", "--resume", again, "--no-report")
    assert done.returncode == 0, done.stderr
    assert "only scored again" in done.stdout
    assert "goes on" not in done.stdout
    assert trained(again).numpy() == pytest.approx(trained(two).numpy(), rel=1e-4, abs=1e-5)
    before, after = (
        model_file.load(path / "model.safetensors").description.metrics for path in (two, again)
    )
    for split in ("validation", "test"):
        assert after[split]["top1"]["count"] == before[split]["top1"]["count"]
        assert after[split]["loss"] == pytest.approx(before[split]["loss"], rel=1e-4)


@pytest.mark.soak
@pytest.mark.parametrize("processes", [2, 3])  # of 64 images, three get 21, 21 and 22
def test_several_processes_learn_what_one_learns(
    processes: int, start: Path, tmp_path: Path
) -> None:
    """Same samples, same order, same mean gradient: only the order of a sum differs.

    By SGD, as Muon brings every direction of a gradient to the same length, its rounding too.
    """
    one, two = tmp_path / "one", tmp_path / "several"
    words = ["digits", "--from", start, *TRAIN, "--optimizer", "sgd"]
    assert call("train", *words, "--no-report", "--output", one).returncode == 0
    output = by_two(*words, "--output", two, processes=processes)
    before = model_file.load(start).network.state_dict().values()
    moved = trained(one) - torch.cat([value.flatten() for value in before])
    assert (trained(two) - trained(one)).norm() < 1e-4 * moved.norm()
    for ours, theirs in zip(epochs(two), epochs(one), strict=True):
        assert ours["training"]["images"] == theirs["training"]["images"] == SEEN
        assert ours["order"] == theirs["order"]
        assert ours["validation"]["images"] == theirs["validation"]["images"] == 161
        assert ours["training"]["loss"] == pytest.approx(theirs["training"]["loss"], rel=1e-3)
    assert len(re.findall(r"^epoch \d", output, re.MULTILINE)) == 1  # only the first one speaks
    assert re.search(r"test accuracy .*/179", output)
    assert "Batch norm takes" not in output  # it has group norms


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit(two: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(two, broken)
    for path in Checkpoints(broken / "checkpoints").paths():
        if not path.name.startswith("step-00000004"):
            path.unlink()
    by_two("--resume", broken)
    newest = [Checkpoints(path / "checkpoints").newest() for path in (two, broken)]
    states = [loaded[0]["trainer"] for loaded in newest if loaded is not None]
    assert [state["done"] for state in states] == [[1, STEPS]] * 2
    for name, value in states[0]["network"].items():
        assert torch.equal(value, states[1]["network"][name]), name
    assert torch.equal(trained(two), trained(broken))
    log = (broken / "log.jsonl").read_text(encoding="utf-8").splitlines()
    begun = [line for line in map(json.loads, log) if line["kind"] in ("start", "resume")]
    exchanges = [(line["gradient_exchange"], line["bucket_mb"]) for line in begun]
    assert exchanges == [("bf16", 1)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("processes", spread([2, 1, 3]))
def test_an_epoch_counts_each_image_once_whatever_goes_on_with_it(
    processes: int, two: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(two, broken)
    for path in Checkpoints(broken / "checkpoints").paths():
        if not path.name.startswith("step-00000004"):
            path.unlink()
    if processes == 1:
        assert call("train", "--resume", broken, "--no-report").returncode == 0
    else:
        by_two("--resume", broken, processes=processes)
    (ours,), (theirs,) = epochs(broken), epochs(two)
    assert ours["training"]["images"] == theirs["training"]["images"] == SEEN
    assert ours["training"]["loss"] == pytest.approx(theirs["training"]["loss"], rel=0.05)
    if processes == 2:
        assert ours["training"] == pytest.approx(theirs["training"], rel=1e-12)


GRADIENTS = """
import torch
from torch import nn
from resnets.training import parallel
from resnets.training.recipe import Recipe

with parallel.processes(torch.device("cpu")) as process:
    for exchange in ("float32", "bf16"):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 8))
        wrapped = parallel.distribute(
            network, torch.device("cpu"), Recipe(gradient_exchange=exchange, bucket_mb=1)
        )
        images = torch.randn(16, 64, generator=torch.Generator().manual_seed(1 + process.rank))
        with parallel.gradient_exchange(wrapped, last=False):
            wrapped(images).square().mean().backward()
        own = [weight.grad.clone() for weight in network.parameters()]
        wrapped(images).square().mean().backward()
        by_rank = parallel.from_all(own)
        for weight, *parts in zip(network.parameters(), *by_rank):
            mean = sum(parts)  # over two processes, of a gradient that was accumulated twice
            error = (weight.grad - mean).abs()
            assert not torch.equal(*parts)
            if exchange == "float32":
                assert torch.allclose(weight.grad, mean, rtol=1e-5, atol=1e-7)
            else:  # each of three roundings is by at most 2**-8
                assert (error <= 3 * 2**-8 * sum(part.abs() for part in parts) + 1e-9).all()
                assert torch.equal(weight.grad, weight.grad.bfloat16().float())
        torch.optim.SGD(network.parameters(), 0.1).step()
        weights = [weight.detach() for weight in network.parameters()]
        for one, other in zip(*parallel.from_all(weights)):
            assert torch.equal(one, other)
        means = parallel.from_all(network[1].running_mean)
        assert not torch.equal(*means)  # until they are scored, processes keep their own
        parallel.share_buffers(network)
        assert torch.equal(network[1].running_mean, means[0])
"""


@pytest.mark.soak
def test_gradients_exchanged_in_bf16_are_their_mean_within_its_rounding(tmp_path: Path) -> None:
    (tmp_path / "gradients.py").write_text(GRADIENTS, encoding="utf-8")
    done = several(script=tmp_path / "gradients.py")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("network", "shares"),
    [
        (ResNet("residual", (1, 1)), False),
        (ResNet("residual", (1, 1), norm="frozen"), False),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), True),
    ],
    ids=["batch norms", "frozen norms", "spectral norm"],
)
def test_buffers_are_shared_in_each_step_only_if_steps_depend_on_them(
    network: nn.Module, shares: bool
) -> None:
    """Spectral norm divides weights by a norm that its buffers estimate: arXiv:1802.05957."""
    assert _must_share_buffers(network) == shares


UNEQUAL = """
import os, sys
from resnets.cli import main
from resnets.runs import budget, length

seconds = 0.1 + 0.1 * int(os.environ["RANK"])
budget.measure = lambda *_: budget.Speed(step=seconds, validation=seconds, final=seconds)
measured = length._measure_speed
length._measure_speed = lambda *words: (*measured(*words)[:2], 0.1)  # however busy the machine is
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.soak
def test_two_processes_under_a_budget_take_the_same_decisions(tmp_path: Path) -> None:
    """Another number of steps in one of them would leave the other waiting for it."""
    words = ["digits", "--network", "resnet14", "--image-size", "8", "--budget", "3s"]
    (tmp_path / "unequal.py").write_text(UNEQUAL, encoding="utf-8")
    output = by_two(*words, "--output", tmp_path / "run", script=tmp_path / "unequal.py")
    lines = [
        json.loads(x)
        for x in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    plans = [line["steps"] for line in lines if line["kind"] in ("start", "plan")]
    assert lines[-1]["kind"] == "end"
    assert lines[-1]["step"] == plans[-1]
    about_budget = [line for line in output.splitlines() if "--budget 3s:" in line]
    assert about_budget
    assert len(about_budget) == len({*about_budget})  # by one of the processes only
    assert output.count("over the 31 or 32 images of each process") == 1  # batches of 63 or 64


@pytest.mark.parametrize(
    ("norm", "batch", "processes", "accumulate", "synchronised", "seen"),
    [
        ("batch", 64, 1, 1, False, None),  # one process
        ("batch", 64, 2, 1, False, 32),
        ("batch", 64, 2, 1, True, None),  # over all processes
        ("group", 64, 2, 4, False, None),  # no batch norm
        ("frozen", 64, 2, 1, False, None),
        ("batch", 64, 1, 4, False, 16),
        ("batch", 64, 2, 4, True, 16),
        ("batch", 64, 8, 2, False, 4),
        ("batch", 10, 1, 4, False, 3),  # pieces of 3, 3, 3 and 1
        ("batch", 64, 3, 1, False, 21),
    ],
)
def test_batch_norm_over_a_part_of_the_batch_is_told(
    norm: str, batch: int, processes: int, accumulate: int, synchronised: bool, seen: int | None
) -> None:
    network = ResNet("residual", (1, 1), norm=norm)
    notice = batch_norm_notice(network, batch, processes, accumulate, synchronised)
    if seen is None:
        assert notice is None
        return
    assert notice is not None
    assert f"over the {seen} " in notice
    assert ("or 22 images of each" in notice) == (processes == 3)
    assert f"all {batch} images" in notice
    assert ("process" in notice.split(",")[0]) == (processes > 1 and not synchronised)
    assert ("--sync-batch-norm" in notice) == (processes > 1 and not synchronised)
    assert ("--accumulate" in notice) == (accumulate > 1)
    assert ("--batch-size" in notice) == (seen < 16)


def test_frozen_batch_norms_are_no_matter() -> None:
    """They stay in evaluation mode; with all stages frozen, none takes statistics of a batch."""
    network = ResNet("residual", (1, 1)).freeze(2)
    assert batch_norm_notice(network.train(), 64, 2, 1, synchronised=False) is None
    network = ResNet("residual", (1, 1)).freeze(1)
    assert batch_norm_notice(network.train(), 64, 2, 1, synchronised=False) is not None


def test_statistics_of_pieces_are_others_than_of_the_whole() -> None:
    """Why it is told: two halves of a batch are normalised otherwise than the batch."""
    torch.manual_seed(0)
    norm, images = torch.nn.BatchNorm2d(3), torch.randn(8, 3, 4, 4)
    halves = torch.cat([norm(images[:4]), norm(images[4:])])
    assert not torch.allclose(halves, norm(images), atol=1e-3)


EXCHANGE = """
import torch
from resnets.training import parallel

with parallel.processes(torch.device("cpu")) as process:
    values = parallel.from_all({"rank": process.rank, "text": "x" * (1 + 1000 * process.rank)})
    assert [value["rank"] for value in values] == [0, 1], values
    assert [len(value["text"]) for value in values] == [1, 1001], values
    assert parallel.from_first(["first"] if process.rank == 0 else None) == ["first"]
    assert parallel.any_process(process.rank == 1, False) == (True, False)
    assert parallel.total(torch.ones(2) + process.rank).tolist() == [3, 3]
    assert len(parallel._recent) >= 5  # a thread of gloo that frees them could end the process
"""


@pytest.mark.soak
def test_two_processes_exchange_values_of_any_size(tmp_path: Path) -> None:
    (tmp_path / "exchange.py").write_text(EXCHANGE, encoding="utf-8")
    done = by_torchrun(script=tmp_path / "exchange.py")
    assert done.returncode == 0, done.stderr


ONE_REFUSES = """
import os, sys
from resnets.cli import main

sys.exit(main(["train", "digits", "--epochs", "0"]) if os.environ["RANK"] == "1" else 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", spread(["the data", "the words", "one process"]))
def test_torchrun_ends_with_the_reason_that_was_printed_once(tmp_path: Path, by: str) -> None:
    """Its own traceback stays; the reason is the last that it prints, as of any first failure."""
    (tmp_path / "one.py").write_text(ONE_REFUSES, encoding="utf-8")
    for number, label in enumerate(["cat", "dog"] * 6):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / f"{number}.png").write_bytes(b"\x89PNG\r\n")
    if by == "one process":
        done = by_torchrun(script=tmp_path / "one.py")
    else:
        words = {"the words": ("digits", "--epochs", "0"), "the data": (tmp_path / "photos",)}[by]
        done = by_torchrun("train", *words)
    lines = done.stderr.splitlines()
    (reason,) = [line for line in lines if line.startswith("resnets train: ")]
    last = [line for line in lines if line.lstrip().startswith("traceback :")][-1]
    assert last.split(" : ")[1] == reason
    assert done.returncode == 1  # that of torchrun


READS = """
import os, sys
from pathlib import Path
from resnets.cli import main
from resnets.data.storage import FileStorage

digests, read = FileStorage.digests, []
FileStorage.digests = lambda self, index: (read.append(index), digests(self, index))[1]
code = main(sys.argv[1:])
Path("reads." + os.environ["RANK"]).write_text(str(len(read)))
sys.exit(code)
"""


@pytest.mark.soak
def test_the_first_of_four_processes_reads_the_images_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(READS, encoding="utf-8")
    for number in range(1000):
        path = Path("photos", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(path)
        os.utime(path, (10**9, 10**9))
    words = ["photos", "--network", "resnet14", "--image-size", "8", *TRAIN, "--output", "run"]
    by_two(*words, script=Path("train.py"), processes=4)
    reads = [int(Path(f"reads.{rank}").read_text(encoding="utf-8")) for rank in range(4)]
    assert reads == [1000, 0, 0, 0]


SIGNALLED = """
import os, signal, sys
from resnets.cli import main
from resnets.training.trainer import Trainer

update = Trainer.update

def signalled(self, batch, rate):
    update(self, batch, rate)
    rank = self.batches.process.rank
    with open(f"steps.{rank}", "a") as file:
        file.write(f"{self.step + 1}\\n")
    if rank == 1 and self.step == 2:
        os.kill(os.getpid(), signal.SIGTERM)

Trainer.update = signalled
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them_at_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that goes on would wait for the other in vain."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(SIGNALLED, encoding="utf-8")
    words = ["digits", "--network", "resnet14", "--image-size", "8", *TRAIN, "--no-report"]
    words += ["--wait-for-processes", "60s"]
    done = several("train", *words, "--output", "run", script=Path("train.py"), processes=3)
    assert done.returncode != 0
    assert "saved after step 3" in done.stdout + done.stderr
    steps = [Path(f"steps.{rank}").read_text(encoding="utf-8") for rank in range(3)]
    assert steps == ["1\n2\n3\n"] * 3
    loaded = Checkpoints(Path("run", "checkpoints")).newest()
    assert loaded is not None
    assert loaded[0]["trainer"]["done"] == [0, 3]


WRITES = """
import os, sys
from pathlib import Path
from resnets.cli import main

run, writers = str(Path("run").absolute()), Path(f"writes.{os.environ['RANK']}")
writers.touch()

def note(event, words):
    changes = event in ("os.rename", "os.remove", "os.mkdir")
    if event == "open":  # by its path, or once more by its number
        flags = words[2]
        changes = bool(flags & (os.O_WRONLY | os.O_RDWR)) and not isinstance(words[0], int)
    if changes and os.path.abspath(os.fsdecode(words[0])).startswith(run):
        with writers.open("a") as file:
            file.write(f"{event} {words[0]}\\n")

sys.addaudithook(note)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.soak
def test_of_sixteen_processes_only_the_first_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python tells each file below the run's folder that is opened to write, renamed or removed."""
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(WRITES, encoding="utf-8")
    words = ["digits", "--network", "resnet14", "--image-size", "8", "--steps", "2"]
    words += ["--batch-size", "64", "--checkpoint-every", "1", "--output", "run"]
    by_two(*words, script=Path("train.py"), processes=16)
    writes = [Path(f"writes.{rank}").read_text(encoding="utf-8") for rank in range(16)]
    assert "step-00000001" in writes[0]
    assert "model.safetensors" in writes[0]
    assert writes[1:] == [""] * 15
    for path in Checkpoints(Path("run", "checkpoints")).paths():
        read(path)  # what its name says
    (epoch,) = epochs(Path("run"))
    assert epoch["training"]["images"] == 1457 * 2 // 23


HANGS = """
import time
from functools import partial
import torch
from resnets.training import parallel

parallel.Heartbeat = partial(parallel.Heartbeat, every=0.1)
try:
    with parallel.processes(torch.device("cpu"), timeout=1) as process:
        parallel.any_process(True)
        time.sleep(3 * process.rank)
        parallel.any_process(True)
except ChildProcessError as error:
    assert process.rank or "process 1 on" in str(error) and "waited" in str(error), error
    print(process.rank, "waited in vain")
"""


HANGS_WHILE_IT_OPENS = """
import time
from functools import partial
import torch
from resnets.training import parallel

parallel.Heartbeat = partial(parallel.Heartbeat, every=0.5)
try:
    with parallel.processes(torch.device("cpu"), timeout=2) as process:
        with parallel.first_of_machine_first(print):
            began = time.monotonic()
            while process.rank == 0 and time.monotonic() < began + 4:
                sum(range(100_000))  # at work
            time.sleep(12 * process.rank)
except ChildProcessError as error:
    assert process.rank or "process 1 on" in str(error) and "done nothing" in str(error), error
    print(process.rank, "waited in vain")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", spread([HANGS, HANGS_WHILE_IT_OPENS]), ids=["exchange", "opening"]
)
def test_a_process_that_hangs_is_named_by_the_one_that_waits_for_it(
    script: str, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text(script, encoding="utf-8")
    done = several(script=tmp_path / "hangs.py")
    assert done.returncode == 0, done.stderr
    assert "0 waited in vain" in done.stdout


def test_alone_every_exchange_is_the_identity() -> None:
    values = torch.tensor([1.0, 2.0])
    assert total(values) is values
    assert any_process(True, False) == (True, False)
    assert from_all("state") == ["state"]


def test_synchronised_batch_norms_without_a_gpu_are_refused() -> None:
    with pytest.raises(UsageError, match="needs GPUs"):
        distribute(ResNet("residual", (1, 1)), torch.device("cpu"), Recipe(sync_batch_norm=True))


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda:x", "tpu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        choose_device(name)
