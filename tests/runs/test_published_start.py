"""Published weights for photos whose user named none, by a hub on this machine."""

import io
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import resnets
from resnets.cli import main
from resnets.data.membership import TrainedOn
from resnets.errors import ContentError
from resnets.runs.callbacks import Notice, Record
from resnets.runs.job import Job
from resnets.runs.published_start import ask_at_terminal, published_start
from resnets.runs.run import Run
from resnets.runs.train import train as run_job
from tests.hub_server import HubServer
from tests.pretrained.conftest import ID, published, safetensors_file, weights

__all__ = ["published", "safetensors_file", "weights"]  # fixtures
NETWORK = "resnet10t"  # whose recommended weights are those of the hub here
Train = Callable[..., tuple[Run, str]]


@pytest.fixture
def train(tmp_path: Path, draw_noise: Callable[..., None]) -> Train:
    """Trains briefly on a few photos; returns the run and what was told."""
    for number in range(16):
        file = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        draw_noise(file, 72, 72, seed=number)

    def call(**changes: Any) -> tuple[Run, str]:
        told: list[str] = []

        def listen(record: Record) -> None:
            if isinstance(record, Notice):
                told.append(record.text)

        usual = {"network": NETWORK, "image_size": 32, "epochs": 1, "output": False}
        given = usual | {"report": False, "progress": False} | changes
        run = resnets.train(str(tmp_path / "photos"), callbacks=[listen], **given)
        return run, "\n".join(told)

    return call


def commit_of(run: Run) -> str | None:
    """That of the weights that a run started from."""
    return TrainedOn.from_dict(run.description.trained_on).origin.get("commit")


def test_photos_start_from_weights_in_the_cache(
    published: HubServer, train: Train, tmp_path: Path
) -> None:
    assert main(["fetch", NETWORK]) == 0
    run, told = train(output=tmp_path / "run")
    commit = published.repositories[f"models/{ID}"].refs["main"]
    assert commit_of(run) == commit
    assert ID in told
    assert "none" in told
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    assert config["start"] == f"{ID}@{commit}"
    again = replace(Job.of_run(tmp_path / "run"), start_sha256="0" * 64)
    with pytest.raises(ContentError, match="replaced"):
        run_job(again, False)
    for changes in ({"start": "none"}, {"from_": "none"}, {"recipe": "quick"}):
        assert commit_of(train(**changes)[0]) is None


def test_a_run_from_scratch_stays_one_when_weights_come_into_the_cache(
    published: HubServer, train: Train, tmp_path: Path
) -> None:
    run, told = train(output=tmp_path / "run")
    assert commit_of(run) is None
    assert f"resnets fetch {NETWORK}" in told
    assert not published.asked  # nobody agreed
    assert main(["fetch", NETWORK]) == 0
    for state in (tmp_path / "run" / "checkpoints").iterdir():
        state.unlink()
    assert commit_of(resnets.resume(tmp_path / "run", progress=False)) is None


def test_small_images_and_networks_without_weights_are_no_matter(
    published: HubServer, train: Train
) -> None:
    told: list[str] = []
    assert published_start("resnet20", told.append, lambda _: True) is None
    assert told == []
    run = resnets.train("digits", "resnet10t", output=False, steps=1, report=False, progress=False)
    assert commit_of(run) is None


def test_a_download_needs_consent(published: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    assert published_start(NETWORK, told.append, lambda _: False) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert published_start(NETWORK, told.append, lambda _: pytest.fail("asked")) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert published_start(NETWORK, told.append, lambda _: True) is None
    assert not published.asked
    assert len(told) == 3
    monkeypatch.setenv("HF_ENDPOINT", published.address)
    assert published_start(NETWORK, told.append, lambda question: ID in question) == ID


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("line", "agreed"), [("y\n", True), ("\n", False), ("", False)])
def test_only_a_user_at_a_terminal_is_asked(
    line: str, agreed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(line))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not ask_at_terminal("really?")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert ask_at_terminal("really?") == agreed
