"""Published weights for photos whose user named none, by a hub on this machine."""

import hashlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnets.cli import main
from resnets.data.batches import ProcessRank
from resnets.data.membership import Generation, TrainedOn
from resnets.errors import ContentError, UsageError
from resnets.evaluation.next_steps import _to_download
from resnets.format import byte_size
from resnets.pretrained.table import find_recommended
from resnets.runs.job import Job, new_job
from resnets.runs.prepare import prepare
from resnets.runs.published_start import ask_at_terminal, published_start
from resnets.runs.setup import Setup
from resnets.training.recipe import Recipe
from tests.hub_server import HubServer
from tests.pretrained.conftest import ID, published, safetensors_file, weights

__all__ = ["published", "safetensors_file", "weights"]  # fixtures
NETWORK = "resnet10t"  # whose recommended weights are those of the hub here


@pytest.fixture
def photos(tmp_path: Path, draw_noise: Callable[..., None]) -> Path:
    """A folder with a few photos of two classes."""
    for number in range(16):
        draw_noise(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", 72, 72, seed=number)
    return tmp_path / "photos"


def begun(job: Job) -> tuple[Setup, str]:
    """What is decided before the first step, and what was told."""
    notices: list[str] = []
    setup = prepare(job, None, torch.device("cpu"), ProcessRank(), notices.append)
    return setup, "\n".join(notices)


def test_a_fit_without_weights_is_refused_before_training_from_scratch_is_announced(
    photos: Path,
) -> None:
    lines: list[str] = []
    job = new_job(str(photos), NETWORK, None, {"freeze": "all"})
    with pytest.raises(UsageError, match="resnet20_cifar10"):
        prepare(job, None, torch.device("cpu"), ProcessRank(), lines.append)
    assert "scratch" not in "".join(lines)


def test_photos_start_from_weights_in_the_cache(published: HubServer, photos: Path) -> None:
    assert main(["fetch", NETWORK]) == 0
    setup, text = begun(new_job(str(photos), NETWORK, None, {}))
    origin, commit = setup.ancestors.origin, published.repositories[f"models/{ID}"].refs["main"]
    assert origin["commit"] == commit
    assert ID in text
    assert "none" in text
    written = Job.from_toml(setup.job.to_toml())
    assert (written.start, written.start_sha256) == (f"{ID}@{commit}", origin["sha256"])
    with pytest.raises(ContentError, match="replaced"):
        begun(replace(written, start_sha256="0" * 64))


def test_the_next_step_says_what_is_to_be_downloaded_for_it(published: HubServer) -> None:
    row = find_recommended(NETWORK)
    assert row is not None
    assert byte_size(row.bytes) in _to_download(NETWORK)
    assert main(["fetch", NETWORK]) == 0
    assert not _to_download(NETWORK)


def test_a_model_file_on_the_hub_is_pinned_itself_and_not_what_it_was_made_of(
    published: HubServer, untrained: Callable[..., Path], photos: Path
) -> None:
    """Whether it was made of published weights or trained: the commit is found again."""
    made = Generation("ImageNet-1k", unknown="no list", origin={"id": ID, "commit": "c0ffee"})
    for name, generation in (("ann/made", made), ("ann/own", Generation("pets", unknown="old"))):
        file = untrained(("a", "b"), trained_on=TrainedOn((generation,)).to_dict())
        commit = published.add(name, {"model.safetensors": file.read_bytes()})
        setup, _ = begun(new_job(str(photos), "auto", None, {"start": f"hf-hub:{name}"}))
        assert setup.job.start == f"hf-hub:{name}@{commit}"
        assert setup.job.start_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert begun(setup.job)[0].job == setup.job


def test_a_run_from_scratch_stays_one_when_weights_come_into_the_cache(
    published: HubServer, photos: Path
) -> None:
    setup, text = begun(new_job(str(photos), NETWORK, None, {}))
    assert not setup.ancestors
    assert f"resnets fetch {NETWORK}" in text
    assert not published.asked  # nobody agreed
    assert main(["fetch", NETWORK]) == 0
    again, _ = begun(Job.from_toml(setup.job.to_toml()))
    assert not again.ancestors


@pytest.mark.parametrize(
    ("recipe", "changes", "start"),
    [
        (None, {}, "auto"),
        (None, {"start": "none"}, None),
        (None, {"from_": "none"}, None),
        (None, {"from": "resnet18"}, "resnet18"),
        ("quick", {}, None),
        (Recipe(), {}, None),
    ],
)
def test_a_recipe_that_is_named_trains_from_scratch(
    recipe: str | Recipe | None, changes: dict[str, str], start: str | None
) -> None:
    assert new_job("photos", "auto", recipe, changes).start == start


def test_what_a_user_sets_is_kept_where_photos_start_from_weights(
    published: HubServer, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the weights and the recipe for them had been named, also where it is quick's value."""
    assert main(["fetch", NETWORK]) == 0
    jobs: list[Job] = []
    monkeypatch.setattr(
        "resnets.commands.train._run_training", lambda job, *_, **__: jobs.append(job)
    )
    words = ["train", str(photos), "--network", NETWORK, "--opt=muon", "--weight-decay", "0.05"]
    main([*words, "--no-fit-head-first", "--flip", "random"])
    changes = {"optimizer": "muon", "weight_decay": 0.05, "fit_head_first": False, "flip": "random"}
    jobs.append(new_job(str(photos), NETWORK, None, changes))
    explicit_job = new_job(str(photos), NETWORK, "transfer", {**changes, "start": NETWORK})
    wanted = begun(explicit_job)[0].job
    assert wanted.recipe.optimizer == "muon"
    assert [replace(begun(job)[0].job, asked=None) for job in jobs] == [wanted, wanted]


def test_small_images_and_networks_without_weights_start_from_scratch(
    published: HubServer,
) -> None:
    assert main(["fetch", NETWORK]) == 0
    notices: list[str] = []
    assert published_start("resnet20", notices.append, lambda _: True) is None
    assert notices == []
    recipe = Recipe(network=NETWORK, image_size=32)
    job = Job(data="digits", start="auto", recipe=recipe)
    setup, _ = begun(job)
    assert not setup.ancestors
    assert setup.job.start is None


def test_a_download_needs_consent(published: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    assert published_start(NETWORK, notices.append, lambda _: False) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert published_start(NETWORK, notices.append, lambda _: pytest.fail("asked")) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert published_start(NETWORK, notices.append, lambda _: True) is None
    assert not published.asked
    assert len(notices) == 3
    monkeypatch.setenv("HF_ENDPOINT", published.address)
    assert published_start(NETWORK, notices.append, lambda question: ID in question) == ID


@pytest.mark.parametrize(("typed", "agreed"), [(b"y\n", True), (b"\n", False), (b"\x04", False)])
def test_only_a_user_at_a_terminal_is_asked(
    typed: bytes, agreed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal as the system makes it; Ctrl-D, 0x04, ends its input."""
    ours, theirs = pytest.importorskip("pty").openpty()
    with (
        io.FileIO(ours, "r+") as user,
        os.fdopen(theirs, encoding="utf-8") as stdin,
        os.fdopen(os.dup(theirs), "w", encoding="utf-8") as stderr,
    ):
        user.write(typed)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert not ask_at_terminal("really?")
        monkeypatch.setattr(sys, "stderr", stderr)
        assert ask_at_terminal("really?") == agreed
        screen = b""
        while b"really?" not in screen:  # what was typed is on the screen, too
            screen += user.read(1000)
