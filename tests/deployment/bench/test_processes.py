"""Candidates as real processes, and what happens when one of them cannot go on."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from resnets.deployment.bench import runtimes
from resnets.deployment.bench.processes import _Failure, _Process, measure_in_turns
from resnets.deployment.bench.runtimes import (
    _MIN_CALLS,
    Candidate,
    _on_preprocessed,
    _peak_memory,
    _peer,
    _random_images,
    _time_calls,
)
from resnets.errors import UsageError
from resnets.images import Preprocessing
from resnets.model_file import Description, save
from resnets.networks import build

PEAK = Candidate("peak", "peak", "", 1, (8, 8, 3))
MISSING = Candidate("missing", "bare onnxruntime", "no/such/file.onnx", 1, (8, 8, 3))


def state(process: int) -> str:
    """The letter of a process in /proc: T is stopped, Z has ended."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def wait_for(process: int, letters: str) -> bool:
    """Whether a process gets into one of these states; "-" is that it is gone."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            letter = state(process)
        except FileNotFoundError:
            letter = "-"
        if letter in letters:
            return True
        time.sleep(0.02)
    return False


def test_each_runs_every_batch_size_once_a_round_and_a_failure_has_its_reason() -> None:
    measurements, failed = measure_in_turns([PEAK, MISSING], [1, 4], rounds=3, seconds=0.01)
    assert list(measurements) == [PEAK]
    assert {size: len(turns) for size, turns in measurements[PEAK].turns.items()} == {1: 3, 4: 3}
    assert measurements[PEAK].cold_start > 0
    assert "no/such/file.onnx" in failed[MISSING]


SLEEPER = """
import sys, time
from resnets.deployment.bench import runtimes
runtimes.RUNTIMES["sleeper"] = lambda _: lambda images: lambda: time.sleep(0.01 * len(images))
runtimes.RUNTIMES["slow start"] = lambda _: time.sleep(1000)
runtimes.main()
"""  # a network that takes 10 ms for each image, and one that takes long to start


def test_what_does_not_fit_into_the_limit_is_left_out_the_largest_batches_first() -> None:
    """A turn of 1 image takes about 0.04 s, of 10 about 0.4 s, of 10,000 about 400 s."""
    sleeper = Candidate("sleeper", "sleeper", "", 1, (8, 8, 3))
    sizes, notes = (1, 10, 10_000), list[str]()
    measurements, failed = measure_in_turns(
        [sleeper], sizes, 2, 0.001, ("-c", SLEEPER), limit=100, note=notes.append
    )
    assert not failed
    turns = {size: len(turns) for size, turns in measurements[sleeper].turns.items()}
    assert turns == {1: 2, 10: 2}
    assert any("batch size 10" in note and "sleeper" in note for note in notes)


@pytest.mark.parametrize(("limit", "rounds"), [(0, 1), (600, 3)])
def test_one_round_of_the_smallest_batches_is_made_whatever_the_limit(
    limit: float, rounds: int
) -> None:
    measurements, _ = measure_in_turns([PEAK], [2, 4], 3, 0.01, limit=limit)
    sizes = {2: rounds} if limit == 0 else {2: rounds, 4: rounds}
    turns = measurements[PEAK].turns
    assert {size: len(turns[size]) for size in turns} == sizes


def test_a_start_that_does_not_fit_into_the_limit_is_cut_and_the_next_not_begun() -> None:
    sleeper, slow = (Candidate(name, name, "", 1, (8, 8, 3)) for name in ("sleeper", "slow start"))
    other, notes = replace(sleeper, name="third"), list[str]()
    began = time.monotonic()
    measurements, failed = measure_in_turns(
        [sleeper, slow, other], [1], 1, 0.001, ("-c", SLEEPER), limit=3, note=notes.append
    )
    assert time.monotonic() - began < 300
    assert list(measurements) == [sleeper]
    assert len(measurements[sleeper].turns[1]) == 1
    assert all("--limit" in failed[candidate] for candidate in (slow, other))
    assert not any(note.startswith("starting third") for note in notes)


def test_what_cannot_be_measured_is_not_started() -> None:
    absent = replace(PEAK, name="absent", runtime="sleeper", unavailable="its file is not there")
    _, failed = measure_in_turns([PEAK, absent], [1], 1, 0.001, ("-c", SLEEPER))
    assert failed == {absent: "its file is not there"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_who_is_not_at_turn_is_stopped_and_ends_with_its_master() -> None:
    with _Process(PEAK) as running:
        number = running.process.pid
        assert wait_for(number, "T")
        assert running.turn(1, 0.01).seconds
        assert wait_for(number, "T")
    assert wait_for(number, "Z-")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stopped_process_does_not_outlive_a_master_that_is_killed() -> None:
    """Nobody is left to wake it; the kernel ends a stopped group that has become an orphan."""
    program = (
        "from resnets.deployment.bench.processes import _Process\n"
        "from resnets.deployment.bench.runtimes import Candidate\n"
        "print(_Process(Candidate('peak', 'peak', '', 1, (8, 8, 3))).process.pid, flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as master:
        assert master.stdout is not None
        number = int(master.stdout.readline())
        assert wait_for(number, "T")
        master.kill()
    assert wait_for(number, "Z-")


def test_a_process_that_dies_is_a_failure() -> None:
    with _Process(PEAK) as running:
        running.process.kill()
        with pytest.raises(_Failure, match="ended with exit code"):
            running.turn(1, 0.01)


def test_an_unknown_runtime_is_a_failure() -> None:
    with pytest.raises(_Failure, match="no runtime 'abacus'"):
        _Process(Candidate("abacus", "abacus", "", 1, (8, 8, 3)))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_graph_of_a_file_gets_no_batch_that_takes_gigabytes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        image_bytes = 1 << 31

        def probabilities(self, images: runtimes.Images) -> int:
            return len(images)

    monkeypatch.setattr(runtimes, "open_engine", lambda *_: Engine())
    prepare = runtimes.RUNTIMES[name](PEAK)
    assert prepare(np.zeros((2, 1, 1, 3), np.uint8))() == 2
    with pytest.raises(UsageError, match=r"6\.0 GiB for 3 images .*--batch-sizes"):
        prepare(np.zeros((3, 1, 1, 3), np.uint8))
    Engine.image_bytes = 1 << 33
    assert prepare(np.zeros((1, 1, 1, 3), np.uint8))() == 1


def test_a_turn_lasts_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the calls move."""
    now = 0.0

    def call() -> None:
        nonlocal now
        now += 0.01

    clock = SimpleNamespace(perf_counter=lambda: now)
    monkeypatch.setattr("resnets.deployment.bench.runtimes.time", clock)
    assert len(_time_calls(call, 0)) == _MIN_CALLS
    assert _time_calls(call, 0.095) == pytest.approx([0.01] * 10)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_process_is_its_own() -> None:
    """Not what the process that started it held, which getrusage would say."""
    held = bytearray(400 << 20)
    held[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(held[:: os.sysconf("SC_PAGE_SIZE")])
    mine = _peak_memory()
    assert mine is not None
    assert mine > len(held)
    with _Process(PEAK) as running:
        theirs = running.turn(1, 0.01).peak_memory
    assert theirs is not None
    assert 1 << 20 < theirs < mine / 2


def test_who_cannot_be_stopped_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which has no SIGSTOP."""
    monkeypatch.setattr("resnets.deployment.bench.processes._CAN_STOP", False)
    with _Process(PEAK) as running:
        assert running.turn(1, 0.01).seconds


@pytest.mark.parametrize("project", ["torchvision", "timm"])
def test_a_peer_takes_part_if_it_has_the_network(tmp_path: Path, project: str) -> None:
    """As a real process, where the other project can be imported."""
    pytest.importorskip(project, exc_type=ImportError)
    file = tmp_path / "model.safetensors"
    network = build("resnet18", width=4, num_classes=3)
    preparation = Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    save(file, network, Description(network.architecture.to_dict(), ("a", "b", "c"), preparation))
    known = Candidate(f"{project} eager", project, str(file), 1, (32, 32, 3), "resnet18")
    with _Process(known) as running:
        assert running.turn(2, 0.01).seconds
    with pytest.raises(_Failure, match=f"^{project} has no network resnet20$"):
        _Process(replace(known, network="resnet20"))


def test_a_peer_is_built_with_the_classes_of_the_model_and_runs_on_its_images(
    tmp_path: Path,
) -> None:
    """With this project's own networks in the place of another project's."""
    network = build("resnet14", width=4, num_classes=3)
    preparation = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    file = tmp_path / "model.safetensors"
    save(file, network, Description(network.architecture.to_dict(), ("a", "b", "c"), preparation))
    candidate = Candidate("peer eager", "timm", str(file), 1, (16, 16, 3), "resnet14")
    made = _peer(build, candidate)
    assert made.architecture.num_classes == 3
    logits = _on_preprocessed(made, candidate)(_random_images(2, candidate.shape))()
    assert tuple(logits.shape) == (2, 3)  # type: ignore[attr-defined]
