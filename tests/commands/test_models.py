"""MODEL means the same in every command, and a network has one name in all of them."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from resnets import explain, load, predict
from resnets.cli import main
from resnets.deployment.bench.runtimes import _peers
from resnets.deployment.engines.opening import open_engine, open_network
from resnets.errors import UsageError
from resnets.evaluation.eager import Eager
from resnets.images import Preprocessing
from resnets.model_file import Description, read_description, save
from resnets.model_path import find_model
from resnets.networks import build
from resnets.shipped import shipped

DIGITS = tuple(map(str, range(10)))


def written(path: Path, name: str, **changes: object) -> Path:
    """The model file of an untrained network for the embedded digits."""
    torch.manual_seed(0)
    network = build(name, num_classes=10, **changes)
    preprocessing = Preprocessing(16, 16, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    save(path, network, Description(network.architecture.to_dict(), DIGITS, preprocessing))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resnet14 with stochastic depth and dropout, in a file whose name says nothing."""
    folder = tmp_path_factory.mktemp("models")
    return written(folder / "a.safetensors", "resnet14", stochastic_depth=0.2, dropout=0.1)


def test_compare_inspect_and_show_name_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--latency", "0", "--compared", "0", "--json"]
    assert main(["compare", str(model), str(model), "digits", *quick]) == 0
    assert json.loads(capsys.readouterr().out)["a"]["network"] == "resnet14"
    assert main(["inspect", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "resnet14"
    assert main(["show", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "resnet14"


def test_a_run_that_starts_from_it_and_its_report_name_it(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--from", str(model), "--steps", "1", "--epochs", "0", "--output", str(run)]
    assert main(["train", "digits", *words]) == 0
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert config["recipe"]["network"] == "resnet14"
    assert read_description(run / "model.safetensors").recipe["network"] == "resnet14"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.search("--network resnet14.{0,600}--from", page, re.DOTALL)


def test_another_project_s_network_of_that_name_is_measured_beside_it(model: Path) -> None:
    about = read_description(model)
    assert {each.network for each in _peers("timm", model, about)} == {"resnet14"}


@pytest.mark.parametrize("changes", [{"width": 4}, {"norm": "group"}])
def test_without_a_name_nothing_is_measured_beside_it(
    changes: dict[str, object], tmp_path: Path
) -> None:
    model = written(tmp_path / "a.safetensors", "resnet14", **changes)
    with pytest.raises(UsageError, match="named networks"):
        _peers("timm", model, read_description(model))


# What MODEL may be. Every command that takes one, with the least else that it needs.

COMMANDS = {
    "predict": ["PHOTO"],
    "evaluate": ["digits"],
    "explain": ["PHOTO"],
    "calibrate": ["digits"],
    "compare": ["resnet14_cifar10", "digits"],
    "report": ["digits"],
    "export": ["--to", "onnx"],
    "bench": [],
}
WEIGHTS = {"inspect": [], "convert": ["--to", "timm"], "show": []}  # these take checkpoints too


def fault(command: str, model: object, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says when it refuses its MODEL as wrong usage."""
    photo = str(Path(__file__).parents[2] / "resnets" / "cli.py")  # refused before it is read
    words = [photo if word == "PHOTO" else word for word in words]
    assert main([command, str(model), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that was stopped."""
    run = tmp_path_factory.mktemp("unfinished")
    (run / "config.toml").write_text('data = "digits"\n', encoding="utf-8")
    (run / "checkpoints").mkdir()
    torch.save({"step": 1}, run / "checkpoints" / "step-00000001-0123456789abcdef.pt")
    return run


def test_the_record_of_a_finished_run_is_not_called_unfinished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which only the weights are elsewhere, as in `results`: to go on with it leads nowhere."""
    run = tmp_path / "published"
    run.mkdir()
    (run / "config.toml").write_text('data = "digits"\n', encoding="utf-8")
    records = [{"kind": "start"}, {"kind": "epoch", "step": 4}, {"kind": "end", "step": 4}]
    log = run / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    message = fault("evaluate", run, ["digits"], capsys)
    assert "finished run" in message
    assert "unfinished" not in message
    assert "--resume" not in message
    assert f"--recipe {run / 'config.toml'}" in message
    log.write_text(json.dumps(records[0]), encoding="utf-8")
    assert "--resume" in fault("evaluate", run, ["digits"], capsys)


@pytest.mark.parametrize(("command", "words"), (COMMANDS | WEIGHTS).items())
def test_an_unfinished_run_is_no_model_and_can_be_resumed(
    command: str, words: list[str], unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fault(command, unfinished, words, capsys)
    assert "unfinished run" in message
    assert f"resnets train --resume {unfinished}" in message


@pytest.mark.parametrize(("command", "words"), COMMANDS.items())
def test_a_checkpoint_of_a_run_is_no_model_and_the_run_can_be_resumed(
    command: str, words: list[str], unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (state,) = (unfinished / "checkpoints").iterdir()
    assert f"resnets train --resume {unfinished}" in fault(command, state, words, capsys)


@pytest.mark.parametrize(("command", "words"), COMMANDS.items())
def test_a_foreign_checkpoint_is_no_model_and_can_be_converted(
    command: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build("resnet14", width=4).state_dict(), tmp_path / "theirs.pth")
    message = fault(command, tmp_path / "theirs.pth", words, capsys)
    assert f"resnets convert {tmp_path / 'theirs.pth'} --to resnets" in message


@pytest.mark.parametrize(("command", "words"), (COMMANDS | WEIGHTS).items())
def test_the_name_of_an_architecture_has_no_weights(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if command != "show":  # which shows just that
        message = fault(command, "resnet14", words, capsys)
        assert "--network resnet14" in message
        assert "resnet14_cifar10" in message


NEEDS_WEIGHTS = ("explain", "calibrate", "report", "export", "convert")


@pytest.mark.parametrize("command", NEEDS_WEIGHTS)
def test_an_exported_file_is_refused_in_one_wording_where_the_network_is_needed(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = shipped().with_suffix(".onnx")
    message = fault(command, exported, (COMMANDS | WEIGHTS)[command], capsys)
    assert "an exported file holds a graph for an engine, not the network" in message
    assert f"{command} " in message


def test_show_inspect_and_convert_take_a_run_and_a_name_of_the_package(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(model.read_bytes())
    monkeypatch.chdir(tmp_path)
    for source, name in ((str(run), "resnet14"), ("resnet20_cifar10", "resnet20")):
        assert main(["show", source, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == name
        assert main(["inspect", source, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["network"] == name
        assert main(["convert", source, "--to", "resnets"]) == 0
        capsys.readouterr()
    assert (run / "model-resnets.safetensors").is_file()
    assert (tmp_path / "resnet20_cifar10-resnets.safetensors").is_file()


def test_show_sees_images_as_the_model_does(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == 16
    assert main(["show", str(shipped().with_suffix(".onnx")), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["size"]) == ("resnet20", 32)


def test_a_file_of_this_project_s_is_one_whatever_its_ending(model: Path, tmp_path: Path) -> None:
    """Its content decides."""
    renamed = tmp_path / "a.bin"
    renamed.write_bytes(model.read_bytes())
    assert find_model(renamed) == renamed


def test_python_opens_what_the_commands_open_and_says_the_same(
    model: Path, unfinished: Path
) -> None:
    assert load(model).description == read_description(model)
    for call in (load, lambda run: predict(run, np.zeros((8, 8, 3), np.uint8))):
        with pytest.raises(UsageError, match="unfinished run"):
            call(unfinished)
    with pytest.raises(UsageError, match="holds a graph for an engine"):
        load(shipped().with_suffix(".onnx"))
    with pytest.raises(UsageError, match="gradients"):
        explain(load(model, engine="torch"), np.zeros((8, 8, 3), np.uint8))


def test_a_loaded_network_is_an_engine_where_it_is(model: Path) -> None:
    loaded = load(model)
    engine = open_engine(loaded)
    assert isinstance(engine, Eager)
    assert engine.network is loaded.network
    assert open_engine(engine) is engine
    assert open_network(loaded) is loaded
