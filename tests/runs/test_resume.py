"""A run that was killed and resumed ends as the unbroken one, bit for bit."""

import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from resnets import model_file
from resnets.commands.train import main
from resnets.errors import ContentError, UsageError
from resnets.runs.checkpoint import Checkpoints, State
from tests.in_process import call

# Everything that could go astray: random crops of images that are read by workers, mixing, erasing,
# pieces of batches, dropped values, a mean of weights, and a validation in between.
RECIPE = shlex.split(
    "--network resnet14 --image-size 16 --epochs 3 --batch-size 12 --accumulate 2 --dropout 0.2 "
    "--stochastic-depth 0.2 --average-decay 0.9 --crop-padding 0 --smallest-crop 0.3 --mixup 0.2 "
    "--flip random --cutmix 1 --erase 0.3 --policy trivialaugment --workers 2 --clip-norm 5 "
    "--log-every 1 --checkpoint-every 3 --threads 1 --no-report"
)
STEPS = 15  # 60 images to train on, of 75

VARYING = {"seconds", "images_per_second", "waiting_share", "time"}


@pytest.fixture(scope="module")
def unbroken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    done = call("train", photos, *RECIPE, "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder


def newest(folder: Path) -> State:
    loaded = Checkpoints(folder / "checkpoints").newest()
    assert loaded is not None
    state, damaged = loaded
    assert damaged == []
    return {key: value for key, value in state.items() if key not in ("log", "seconds")}


def records(folder: Path) -> list[dict[str, Any]]:
    lines = [
        json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kept = [line for line in lines if line["kind"] != "resume"]
    return [{k: v for k, v in line.items() if k not in VARYING} for line in kept]


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two states differ, tensors compared bit for bit."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        return [d for key in ours for d in differences(ours[key], theirs[key], f"{where}/{key}")]
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{where}/{i}")]
    same = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    return [] if same else [where]


def reached(log: Path, resumed: int, step: int) -> bool:
    """Whether a process that resumed the run for the nth time has trained to this step."""
    whole = log.read_bytes().rpartition(b"\n")[0] if log.exists() else b""
    lines = [json.loads(line) for line in whole.splitlines()]
    times = sum(line["kind"] == "resume" for line in lines)
    return (
        times == resumed
        and any(line["kind"] == "interval" for line in lines[-1:])
        and (lines[-1]["step"] >= step)
    )


def interrupt(
    process: "subprocess.Popen[str]", folder: Path, *, resumed: int, step: int, number: int
) -> str:
    """Send a signal once a step is reached and a moment has passed; what the process printed."""
    deadline = time.monotonic() + 300
    while not reached(folder / "log.jsonl", resumed, step):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.Random(step).uniform(0, 0.03))
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    expected = -number if number == signal.SIGKILL else 128 + number
    assert process.returncode == expected, output
    return output


@pytest.mark.slow
def test_killed_stopped_and_resumed_it_ends_bit_for_bit_as_the_unbroken(
    train: Any, photos: Path, unbroken: Path, tmp_path: Path
) -> None:
    """Of the signals that stop, `test_services` sends the third, Ctrl-C."""
    folder = tmp_path / "broken"
    first = train(photos, *RECIPE, "--output", folder)
    interrupt(first, folder, resumed=0, step=4, number=signal.SIGKILL)
    second = train("--output", folder, "--resume")
    assert "saved after step" in interrupt(second, folder, resumed=1, step=8, number=signal.SIGTERM)
    assert call("train", "--resume", folder).returncode == 0
    state = newest(folder)
    assert state["trainer"]["done"] == [3, STEPS]
    assert differences(state, newest(unbroken)) == []
    assert records(folder) == records(unbroken)
    ours, theirs = (model_file.load(path / "model.safetensors") for path in (folder, unbroken))
    assert differences(ours.network.state_dict(), theirs.network.state_dict()) == []
    assert ours.description == theirs.description


@pytest.mark.slow
def test_without_the_random_state_it_ends_otherwise(unbroken: Path, tmp_path: Path) -> None:
    """The control of the test above: it would see a state that was not restored."""
    folder = tmp_path / "forgetful"
    shutil.copytree(unbroken, folder)
    checkpoints = Checkpoints(folder / "checkpoints", keep=9)
    paths = checkpoints.paths()
    state = torch.load(paths[-2], weights_only=True)  # of the epoch before the last
    for path in paths:
        path.unlink()
    state["random"][0]["torch"] = torch.Generator().manual_seed(1).get_state()
    checkpoints.save(state, state["trainer"]["done"][1])
    assert call("train", "--resume", folder).returncode == 0
    assert "/trainer/network/conv.weight" in differences(newest(folder), newest(unbroken))


def test_a_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import time\n"
        "from resnets.runs.stop_signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        signals.received and print(signals.received, flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"{int(signal.SIGTERM)}\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 128 + signal.SIGINT


@pytest.mark.slow
def test_other_images_than_before_are_refused(photos: Path, unbroken: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(unbroken, folder)
    shutil.copytree(photos, data)
    (data / "level" / "0.png").unlink()
    with pytest.raises(ContentError, match="not the images that the run began with"):
        main([str(data), "--resume", str(folder)])


def test_what_is_wrong_is_told_before_images_are_read(photos: Path, tmp_path: Path) -> None:
    """First that the run is finished, or that the images are not its own; then broken images."""
    words = ["--network", "resnet14", "--image-size", "8", "--epochs", "1", "--no-report"]
    folder, data = tmp_path / "run", tmp_path / "data"
    assert call("train", photos, *words, "--output", folder).returncode == 0
    shutil.copytree(photos, data)
    (data / "level" / "0.png").write_bytes(b"")
    same_number = call("train", data, "--resume", folder)
    (data / "level" / "broken.png").write_bytes(b"")
    one_more = call("train", data, "--resume", folder)
    (data / "level" / "broken.png").unlink()
    (data / "level").rename(data / "flat")
    other_classes = call("train", data, "--resume", folder)
    for done, code, message in (
        (same_number, 1, "0.png"),
        (one_more, 2, "76 images, and it began with 75"),
        (other_classes, 2, "'flat', 'slanted', 'upright'"),
    ):
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "broken.png" not in done.stderr
        assert f"--resume {folder}` without DATA" in done.stderr
        assert done.stdout.count("This run is finished (4 of 4 steps done)") == 1


def test_a_broken_image_more_is_no_other_image_where_these_are_left_out(
    photos: Path, tmp_path: Path
) -> None:
    words = ["--network", "resnet14", "--image-size", "8", "--epochs", "1", "--no-report"]
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    words += ["--skip-unreadable", "--output", str(tmp_path / "run")]
    assert call("train", data, *words).returncode == 0
    (data / "level" / "broken.png").write_bytes(b"")
    done = call("train", "--resume", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("This run is finished") == 1


@pytest.mark.slow
def test_a_change_in_the_middle_of_a_large_file_is_noticed(tmp_path: Path) -> None:
    for name in ("bright", "dark"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            shade = 200 * (name == "bright") + number
            Image.new("RGB", (160, 160), (shade, shade, number)).save(
                tmp_path / "data" / name / f"{number}.bmp"
            )
    words = ["--network", "resnet14", "--image-size", "16", "--epochs", "1", "--no-report"]
    assert main([str(tmp_path / "data"), *words, "--output", str(tmp_path / "run")]) == 0
    assert main(["--resume", str(tmp_path / "run")]) == 0
    file = tmp_path / "data/dark/2.bmp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ContentError, match="not the images that the run began with"):
        main(["--resume", str(tmp_path / "run")])


@pytest.mark.slow
def test_another_recipe_than_before_is_refused(unbroken: Path) -> None:
    with pytest.raises(UsageError, match=r"learning_rate is 0\.00612, not 0\.3"):
        main(["--resume", str(unbroken), "--learning-rate", "0.3"])
