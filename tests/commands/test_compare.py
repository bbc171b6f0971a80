import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from resnets import evaluate
from resnets.images import Preprocessing, decode
from resnets.model_file import Description, load, save
from resnets.networks import build
from tests.in_process import call as run

Shared = Callable[[str], Path]
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def answered(*words: str | Path) -> dict[str, Any]:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for digits."""
    torch.manual_seed(0)
    network = build("resnet14", width=4)
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    preprocessing = Preprocessing(8, 8, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    names = tuple(map(str, range(10)))
    save(path, network, Description(network.architecture.to_dict(), names, preprocessing))
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def turned_round(path: Path, to: Path) -> Path:
    """The same network with its classes the other way round."""
    old = load(path)
    for parameter in old.network.get_submodule("fc").parameters():
        parameter.data = parameter.data.flip(0)
    names = old.description.class_names[::-1]
    save(to, old.network, replace(old.description, class_names=names))
    return to


def test_the_same_network_with_its_classes_in_another_order_is_no_other(
    model: Path, tmp_path: Path
) -> None:
    other = turned_round(model, tmp_path / "other.safetensors")
    result = answered("compare", model.parent, other, "digits", "--json", "--latency", "0")
    assert result["images"].startswith("1,797 images, all of digits; ")
    assert result["differences"] == []
    assert result["p_value"] == 1
    assert result["accuracy_a"] == result["accuracy_b"]
    assert result["a"]["latency"] is None


@pytest.mark.soak
def test_a_published_network_and_its_pruned_copy_differ_as_evaluate_says(
    shared: Shared, tmp_path: Path
) -> None:
    """On the first 500 of CIFAR-10's test images; 70 % of the copy's weights are zero."""
    (tmp_path / "data").mkdir()
    table = pq.read_table(shared("data/cifar10/test-00000-of-00001.parquet"))
    pq.write_table(table.slice(0, 500), tmp_path / "data" / "images.parquet")
    names, whole, pruned = (tmp_path / name for name in ("names.txt", "whole", "pruned"))
    names.write_text("\n".join(CIFAR10), encoding="utf-8")
    source = shared("weights/akamaster_resnet20.th")
    run("convert", source, "--to", "resnets", "--output", whole, "--class-names", names)
    copy = load(whole)
    for parameter in copy.network.parameters():
        if parameter.ndim == 4:
            cutoff = parameter.abs().flatten().quantile(0.7)
            parameter.data[parameter.abs() <= cutoff] = 0
    save(pruned, copy.network, copy.description)
    output = tmp_path / "out"
    result = answered("compare", whole, pruned, tmp_path / "data", "--output", output, "--json")
    for name, file in (("accuracy_a", whole), ("accuracy_b", pruned)):
        assert result[name] == evaluate(file, tmp_path / "data").metrics.top1.to_dict()
    assert result["difference"] < 0
    assert result["real"]
    pairs, rows = result["pairs"], read_csv(output / "differences.csv")
    assert len(result["differences"]) == len(rows)
    for right, count in (("a", pairs["only_a"]), ("b", pairs["only_b"])):
        assert sum(row["right"] == right for row in rows) == count
    assert all(row["a"] != row["b"] for row in rows)
    assert result["a"]["latency"]["median"] > 0
    for sheet in ("only-a-is-right.png", "only-b-is-right.png", "both-are-wrong.png"):
        assert decode(output / sheet).shape[0] > 176


def test_nothing_is_written_over(model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    done = run("compare", model, model, "digits", "--output", tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path} exists; give another --output" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["MODEL", "FOREIGN", "digits"],
            2,
            "does not know the class '0' (unknown: 1 of the 10 classes",
        ),
        (["MODEL", "nowhere", "digits"], 2, "nowhere: no such file; MODEL is"),
        (["MODEL", __file__, "digits"], 1, "not a safetensors file"),
        (["MODEL", "MODEL", "digits", "--latency", "-1"], 2, "latency -1.0"),
    ],
)
def test_wrong_use_and_networks_that_do_not_fit_are_told(
    words: list[str], code: int, message: str, model: Path, tmp_path: Path
) -> None:
    old = load(model)
    names = ("zero", *old.description.class_names[1:])
    save(tmp_path / "foreign", old.network, replace(old.description, class_names=names))
    files = {"MODEL": str(model), "FOREIGN": str(tmp_path / "foreign")}
    done = run("compare", *(files.get(word, word) for word in words))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_beside_itself_or_its_copy_is_remarked_on(model: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.safetensors").write_bytes(model.read_bytes())
    quick = ("digits", "--latency", "0", "--compared", "0")
    for other, word in ((model, "same file"), (tmp_path / "copy.safetensors", "copies")):
        done = run("compare", model, other, *quick)
        assert done.returncode == 0, done.stderr
        assert re.search(f"warning: A and B are .*{word}.*with itself", done.stdout)
    torch.manual_seed(1)
    save(tmp_path / "b", build("resnet14", width=4), load(model).description)
    assert "A and B are " not in run("compare", model, tmp_path / "b", *quick).stdout


def test_a_table_tells_the_verdict_and_the_costs(model: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build("resnet14", width=4)
    save(tmp_path / "b", network, load(model).description)
    done = run("compare", model, tmp_path / "b", "digits", "--latency", "0.01")
    assert done.returncode == 0, done.stderr
    head, verdict, *_ = done.stdout.splitlines()
    assert head.startswith("1,797 images, all of digits; ")
    assert "95 % interval" in verdict
    for what in ("network", "accuracy", "right alone", "parameters", "multiply-adds", "latency"):
        assert f"\n{what} " in done.stdout
    assert "only A right" in done.stdout
