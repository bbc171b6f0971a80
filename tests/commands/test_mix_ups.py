"""A model where data belong and the reverse; two flags that ask for two networks."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import resnets
from resnets.cli import main
from resnets.errors import UsageError
from resnets.model_file import read_description
from resnets.networks import build
from tests.in_process import call
from tests.spread import spread

Write = Callable[..., Path]
QUICK = ("--epochs", "0", "--steps", "1", "--image-size", "16", "--no-report")
DIGITS = tuple("0123456789")


@pytest.fixture
def model(untrained: Write) -> str:
    return str(untrained(DIGITS))


@pytest.mark.parametrize(
    "words",
    [
        "evaluate digits MODEL",
        "evaluate FOLDER MODEL",
        "report digits MODEL",
        "calibrate digits MODEL",
        "compare digits MODEL MODEL",
        "compare MODEL FOLDER MODEL",
        "predict PHOTO MODEL",
        "predict FOLDER resnet20_cifar10",
        "explain PHOTO MODEL",
        "explain FOLDER MODEL",
    ],
)
def test_swapped_model_and_data_are_told_in_a_line_of_every_command(
    words: str,
    model: str,
    tmp_path: Path,
    draw_noise: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_noise(tmp_path / "photos/a/1.png")
    meant = {"MODEL": model, "FOLDER": "photos", "PHOTO": "photos/a/1.png"}
    done = call(*(meant.get(word, word) for word in words.split()))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert re.search(r"(digits|photos\S*) is data, and \S+ a model: swap them", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_python_says_the_same_of_swapped_arguments(model: str) -> None:
    for function in (resnets.evaluate, resnets.predict, resnets.explain, resnets.calibrate):
        with pytest.raises(UsageError, match="swap them"):
            function("digits", model)  # type: ignore[operator]


@pytest.mark.parametrize("words", ["train X", "find-lr X", "doctor X", "evaluate MODEL X"])
@pytest.mark.parametrize("kind", ["file", "run"])
def test_a_model_is_no_data(
    words: str, kind: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(model)
    if kind == "run":
        path = tmp_path / "run"
        path.mkdir()
        for name in ("config.toml", "log.jsonl"):
            (path / name).touch()
    done = call(*({"X": path, "MODEL": model}.get(word, word) for word in words.split()))
    assert done.returncode == 2
    assert f"--from {path}" in done.stderr


def test_explain_says_that_it_takes_images_not_a_data_set(model: str, tmp_path: Path) -> None:
    done = call("explain", model, "digits", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "takes images" in done.stderr


@pytest.mark.parametrize(
    "words", [("train", "--output", "run"), ("find-lr",)], ids=["train", "find-lr"]
)
def test_two_networks_that_differ_are_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *more = words
    done = call(name, "digits", "--from", "resnet14_cifar10", "--network", "resnet20", *more)
    assert done.returncode == 2
    assert re.search("--network resnet20.*--from resnet14_cifar10.*resnet14", done.stderr)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"network.*resnet20"):
        resnets.train("digits", "resnet20", output=False, start="resnet14_cifar10", progress=False)


@pytest.mark.parametrize(
    "more", spread([("--network", "resnet14"), ("--recipe", "paper"), ()], one_value=True)
)
def test_the_network_of_the_weights_is_trained_where_no_other_is_asked_for(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    """The recipe `paper` has a network of its own, which nobody typed."""
    run = tmp_path / "run"
    words = ("train", "digits", "--from", "resnet14_cifar10", *more, *QUICK, "--output", run)
    done = call(*words)
    assert done.returncode == 0, done.stderr
    assert read_description(run / "model.safetensors").recipe["network"] == "resnet14"
    assert "classifier is replaced" in done.stdout  # of CIFAR-10's classes, which are ten as well


@pytest.mark.parametrize(
    ("classes", "kept"), spread([(10, True), (12, False), (None, False)], every=2)
)
def test_a_classifier_is_called_kept_only_where_it_is(
    classes: int | None, kept: bool, tmp_path: Path
) -> None:
    """Of a foreign checkpoint for as many classes, for others, and without any."""
    torch.manual_seed(0)
    weights = build("resnet14", width=4, num_classes=classes or 10).state_dict()
    if classes is None:
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    torch.save(weights, tmp_path / "theirs.pth")
    run = tmp_path / "run"
    words = ("train", "digits", "--from", tmp_path / "theirs.pth", *QUICK, "--learning-rate", "0")
    done = call(*words, "--output", run)
    assert done.returncode == 0, done.stderr
    assert ("classifier is kept" in done.stdout) == kept
    assert ("classifier is replaced" in done.stdout) != kept
    after = resnets.load(run).network.state_dict()["fc.weight"]
    assert (classes == 10 and torch.allclose(after, weights["fc.weight"])) == kept
    history = read_description(run / "model.safetensors").trained_on
    assert history["generations"][0].get("keeps_classifier", False) == kept


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--max-error", "2"), "--max-error 2"),
        (("--max-error", "0"), "max_error 0"),
        (("--budget", "soon"), "--budget 'soon'"),
        (("--checkpoint-every", "now"), "--checkpoint-every 'now'"),
        (("--keep", "0"), "--keep 0"),
        (("--log-every", "-1"), "--log-every -1"),
        (("--class-level", "2"), "class-level"),
        (("--train-folder", "x"), "folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_would_fail_in_the_end_is_refused_before_the_first_step(
    flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = call("train", "digits", *flags, "--output", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.soak
def test_a_finished_run_says_that_it_is_and_other_images_are_wrong_usage(
    tmp_path: Path, draw_noise: Callable[..., None]
) -> None:
    for seed in range(12):
        draw_noise(tmp_path / f"photos/{'ab'[seed % 2]}/{seed}.png", 8, 8, seed)
    run = tmp_path / "run"
    start = ("train", "digits", "--network", "resnet14", *QUICK, "--output", run)
    assert call(*start).returncode == 0
    again = call("train", "--resume", run)
    assert again.returncode == 0
    assert re.search(r"finished.*1 of 1 step.*--from \S+run", again.stdout)
    before = (run / "config.toml").read_bytes()
    other = call("train", "--resume", run, tmp_path / "photos")
    assert other.returncode == 2
    assert "not the images" in other.stderr
    assert (run / "config.toml").read_bytes() == before
    assert main(["evaluate", str(run), "digits", "--json"]) == 0
