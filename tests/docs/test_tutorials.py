"""Every command in the tutorials runs, on tiny images."""

import contextlib
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnets.cli import COMMANDS, main
from resnets.networks import build
from tests.docs.pages import DOCS, Block, blocks
from tests.pretrained.conftest import know_address, published, safetensors_file, weights

__all__ = ["published", "safetensors_file", "weights"]  # fixtures

TUTORIALS = sorted(path.stem for path in (DOCS / "tutorials").glob("*.md"))
# 20 to 60 s each; other tests have their commands
LONG = ("export", "gpus", "machines", "photos", "resume", "trust")
CLASSES = ("church", "golf ball", "parachute")


def draw(folder: Path, count: int, seed: int) -> None:
    """Photos of noise in a colour of their own, which any network can tell apart."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    colour = np.eye(3)[seed % 3] * 150
    for number in range(count):
        pixels = colour + random.integers(0, 100, (24, 32, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")


def prepare(folder: Path) -> None:
    """What a reader has: photos, images of other things, and somebody's checkpoint."""
    for seed, name in enumerate(CLASSES):
        draw(folder / "photos" / name, 16, seed)
    draw(folder / "new-photos", 3, 3)
    draw(folder / "other-things", 8, 4)
    torch.manual_seed(0)
    weights = {f"module.{k}": v for k, v in build("resnet20").state_dict().items()}
    torch.save({"state_dict": weights}, folder / "weights.pth")
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "names.txt").write_text(names.replace(" ", "\n"), encoding="utf-8")


def free_port() -> str:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def run(command: str) -> int:
    """Run a command: ours in this process, torchrun and what becomes it in its own."""
    words = shlex.split(command)
    if words[0] == "curl":
        done = subprocess.run([*words, "--fail", "-sS"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return 0
    started_by = {"torchrun": ["torch.distributed.run", "--standalone"]}
    if "--rehearse" in words:  # which becomes torchrun in place of its process
        started_by["resnets"] = ["resnets"]
    if words[0] in started_by:
        words[0:1] = [sys.executable, "-m", *started_by[words[0]]]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return 0
    assert words[0] == "resnets", f"no test knows how to run {command}"
    return main(words[1:])


def started(command: str) -> "subprocess.Popen[bytes]":
    """A server in a process of its own, which takes requests."""
    words = shlex.split(command)
    port = words[words.index("--port") + 1]
    process = subprocess.Popen([sys.executable, "-m", *words])
    for _ in range(600):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=10).close()
            return process
        time.sleep(0.1)
    process.kill()
    pytest.fail(f"{command}: does not answer")


def follow(
    block: Block, names: dict[str, object], servers: "list[subprocess.Popen[bytes]]"
) -> None:
    """Do what a block says."""
    if block.not_run:
        return
    if block.language == "python":
        exec(compile(block.code(), "tutorial", "exec"), names)
        return
    for command in block.commands():
        if command.endswith(" &"):
            servers.append(started(command.removesuffix(" &")))
        else:
            assert run(command) == 0, command


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of httpx: huggingface_hub
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] * (name in LONG)) for name in TUTORIALS],
)
def test_every_command_of_a_tutorial_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "photos":  # the hub that it uses is on this machine
        know_address(request.getfixturevalue("published"), monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
    replaced = {}
    if name == "serve":
        for needed in ("uvicorn", "tritonclient.http", "httpx2", "onnxruntime"):
            pytest.importorskip(needed)
        replaced = {"8000": free_port()}
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks(DOCS / "tutorials" / f"{name}.md", replaced):
            if not block.only_soak:
                follow(block, names, servers)
    finally:
        for server in servers:
            server.kill()
            server.wait(30)


@pytest.mark.slow
@pytest.mark.soak
def test_the_tutorial_on_machines_runs_with_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="ray[data] is not installed")
    for variable, value in (("RAY_TMPDIR", "/tmp"), ("RAY_AUTH_MODE", "disabled")):
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(DOCS / "tutorials" / "machines.md"):
        follow(block, names, [])


def test_no_command_is_left_out_without_a_reason() -> None:
    """A fence of another kind would not be run."""
    for page in (DOCS / "tutorials").glob("*.md"):
        text = re.sub(
            r"<!-- figure: .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.S
        )
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
            assert language in ("console", "python") or "$ resnets" not in block, page.name


def test_flags_on_every_page_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    flags = {}
    for name in COMMANDS:
        assert main([name, "--help-all"]) == 0
        flags[name] = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out))
    flags["launch"] |= flags["train"]  # which it takes, too
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"))
        for name, rest in re.findall(r"\bresnets ([a-z-]+)((?: [^`\n|]*)?)", text):
            used = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", rest))
            assert used <= flags.get(name, used) | {"--help", "--debug"}, f"{page}: {name} {rest}"
