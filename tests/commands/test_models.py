"""One network has one name, whichever command tells it."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

from resnets.cli import main
from resnets.deployment.bench.contenders import peers
from resnets.errors import UsageError
from resnets.images import Preprocessing
from resnets.model_file import Description, read_description, save
from resnets.networks import build

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


def test_compare_and_inspect_name_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "compare",
                str(model),
                str(model),
                "digits",
                "--latency",
                "0",
                "--compared",
                "0",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["a"]["network"] == "resnet14"
    assert main(["inspect", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "resnet14"


def test_a_run_that_starts_from_it_and_its_report_name_it(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--from", str(model), "--steps", "1", "--epochs", "0", "--output", str(run)]
    assert main(["train", "digits", *words]) == 0
    config = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    assert config["recipe"]["network"] == "resnet14"
    assert read_description(run / "model.safetensors").recipe["network"] == "resnet14"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.search("--network resnet14.{0,200}--from", page, re.DOTALL)


def test_another_project_s_network_of_that_name_is_measured_beside_it(model: Path) -> None:
    about = read_description(model)
    assert {each.network for each in peers("timm", model, about)} == {"resnet14"}


@pytest.mark.parametrize("changes", [{"width": 4}, {"norm": "group"}])
def test_without_a_name_nothing_is_measured_beside_it(
    changes: dict[str, object], tmp_path: Path
) -> None:
    model = written(tmp_path / "a.safetensors", "resnet14", **changes)
    with pytest.raises(UsageError, match="named networks"):
        peers("timm", model, read_description(model))
