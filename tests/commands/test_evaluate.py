import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from resnets import cli, predict
from resnets.commands.evaluate import _first_classes, _show_classes
from resnets.data.sources.opening import open_data
from resnets.evaluation.metrics import ClassScores
from resnets.images import Preprocessing
from resnets.model_file import Description, load, save
from resnets.networks import build
from tests.calibration import calibration_at
from tests.in_process import call as run
from tests.processes import several

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for digits, which answers badly but always the same."""
    torch.manual_seed(0)
    network = build("resnet14", width=4)
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    names = tuple(map(str, range(10)))
    preprocessing = Preprocessing(8, 8, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    save(path, network, Description(network.architecture.to_dict(), names, preprocessing))
    return path


def figures(*words: str | Path, by: Callable[..., CompletedProcess[str]] = run) -> dict[str, Any]:
    """What evaluate says, in this process or in several."""
    done = by("evaluate", *words, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.soak
def test_the_published_resnet20_gets_its_published_accuracy(
    shared: Callable[[str], Path], tmp_path: Path
) -> None:
    """91.73 % of CIFAR-10's test images, as the README of its authors says."""
    names, converted = tmp_path / "names.txt", tmp_path / "resnet20.safetensors"
    names.write_text("\n".join(CIFAR10), encoding="utf-8")
    means = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]
    source = shared("weights/akamaster_resnet20.th")
    done = run(
        "convert", source, "--to", "resnets", "--output", converted, "--class-names", names, *means
    )
    assert done.returncode == 0, done.stderr
    result = figures(converted, shared("data/cifar10"))
    assert (result["top1"]["count"], result["top1"]["total"]) == (9173, 10000)
    assert result["images"].startswith("10,000 images, the test split of ")


@pytest.mark.slow
def test_the_figures_depend_neither_on_the_batch_size_nor_on_the_processes(model: Path) -> None:
    whole = figures(model, "digits")
    assert whole["top1"]["total"] == 1797  # all: the network has not learnt from them
    small = figures(model, "digits", "--batch-size", "50")
    shared_out = figures(model, "digits", "--device", "cpu", by=several)
    for other in (small, shared_out):
        assert other["confusion"] == whole["confusion"]
        assert other["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_each_class_is_a_line_of_csv_that_adds_up(model: Path) -> None:
    done = run("evaluate", model.parent, "digits", "--split", "test", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["name"] for row in rows] == list(map(str, range(10)))
    assert sum(int(row["support"]) for row in rows) == 179
    done = run("evaluate", model.parent, "digits", "--split", "test")
    assert "179 images, the test split of digits" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "digits"], 2, "nowhere: no such file; MODEL is a model file"),
        (["MODEL", "nowhere"], 2, "nowhere: no such file or folder"),
        (["MODEL", "digits", "--json", "--csv"], 2, "--json and --csv: choose one"),
        (["MODEL", "digits", "--batch-size", "0"], 2, "batch size 0"),
        ([__file__, "digits"], 1, "not a safetensors file"),
    ],
)
def test_wrong_use_and_bad_files_are_told_apart(
    words: list[str], code: int, message: str, model: Path
) -> None:
    done = run("evaluate", *[str(model) if word == "MODEL" else word for word in words])
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_threshold_leaves_and_the_reliability_are_told(
    model: Path, tmp_path: Path
) -> None:
    """Checked by going through the images one by one."""
    images = open_data("digits").test
    assert images is not None
    calibration = calibration_at(0.0, promised=False)
    old = load(model)
    calibrated = tmp_path / "calibrated.safetensors"
    save(calibrated, old.network, replace(old.description, calibration=calibration))
    shares = sorted(each.probability or 0.0 for each in predict(calibrated, images.stacked()))
    calibration["threshold"] = (shares[89] + shares[90]) / 2
    save(calibrated, old.network, replace(old.description, calibration=calibration))
    diagram = tmp_path / "reliability.svg"
    result = figures(calibrated, "digits", "--split", "test", "--diagram", diagram)
    predictions = predict(calibrated, images.stacked())
    assert [each.status for each in predictions].count("ok") == 89
    counted = result["status"]
    assert [counted[name]["count"] for name in ("ok", "unsure", "unfamiliar")] == [89, 90, 0]
    wrong = sum(
        each.status == "ok" and each.prediction != str(label)
        for each, label in zip(predictions, images.labels, strict=True)
    )
    assert (counted["wrong"]["count"], counted["wrong"]["total"]) == (wrong, 89)
    assert result["calibration"]["error_before"] != result["calibration"]["error_after"]
    assert ElementTree.parse(diagram).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "calibrated" in diagram.read_text(encoding="utf-8")
    again = run("evaluate", calibrated, "digits", "--diagram", diagram)
    assert again.returncode == 2
    assert "exists; give another --diagram" in again.stderr


def test_the_confusion_matrix_is_a_table(model: Path) -> None:
    done = run("evaluate", model, "digits", "--split", "test")
    _, matrix = done.stdout.split("Confusion matrix")
    rows = [line.replace("·", "0").split() for line in matrix.splitlines()[2:]]
    assert [row[0] for row in rows] == list(map(str, range(10)))
    assert sum(int(cell) for row in rows for cell in row[1:]) == 179


def test_classes_that_the_network_does_not_know_are_named(model: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("0", "zebra"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    done = run("evaluate", model, tmp_path)
    assert done.returncode == 2
    assert "does not know the class 'zebra' (unknown: 1 of 2 classes" in done.stderr


def test_of_a_network_at_chance_it_is_said_and_no_confusions_are_listed(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(model), "digits", "--split", "test"]) == 0
    output = capsys.readouterr().out
    assert "not shown to be better" in output
    assert "Most confused" not in output
    assert cli.main(["evaluate", str(model), "digits", "--split", "test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better_than_chance"] is False


@pytest.mark.parametrize("command", ["evaluate", "compare", "report", "calibrate"])
def test_a_folder_with_test_and_validation_images_but_no_training_images_is_measured(
    command: str, untrained: Callable[..., Path], draw_noise: Callable[..., None], tmp_path: Path
) -> None:
    for split, count in (("test", 3), ("val", 2)):
        for label in ("a", "b"):
            for index in range(count):
                seed = 100 * count + 10 * "ab".index(label) + index
                draw_noise(tmp_path / "data" / split / label / f"{index}.png", seed=seed)
    network, data = str(untrained(("a", "b"))), str(tmp_path / "data")
    words = {
        "evaluate": [network, data],
        "compare": [network, network, data, "--latency", "0"],
        "report": [network, data, "--output", str(tmp_path / "page.html")],
        "calibrate": [network, data, "--output", str(tmp_path / "new.safetensors")],
    }
    assert cli.main([command, *words[command]]) == 0


def test_of_a_folder_without_training_images_that_split_cannot_be_measured(
    untrained: Callable[..., Path], draw_noise: Callable[..., None], tmp_path: Path, capsys: Any
) -> None:
    for split in ("test", "val"):
        for label in ("a", "b"):
            draw_noise(tmp_path / split / label / "0.png", seed=len(split + label))
    words = ["evaluate", str(untrained(("a", "b"))), str(tmp_path)]
    assert cli.main([*words, "--split", "train"]) == 2
    assert "no train split" in capsys.readouterr().err
    assert cli.main([*words, "--split", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"]["total"] == 4


def test_a_promise_that_the_images_contradict_is_not_repeated(
    untrained: Callable[..., Path], draw_noise: Callable[..., None], tmp_path: Path, capsys: Any
) -> None:
    for label in ("a", "b"):
        for index in range(12):
            draw_noise(tmp_path / "data" / label / f"{index}.png", seed=index + 50 * (label == "a"))
    promised = {"max_error": 0.02, "promised": True, "threshold": 0.5, "temperature": 1.0}
    measured = {"errors": None, "total": 300, "error_before": 0.0, "error_after": 0.0}
    network = untrained(("a", "b"), calibration=promised | measured)
    assert cli.main(["evaluate", str(network), str(tmp_path / "data")]) == 0
    output = capsys.readouterr().out
    assert "not kept on these images" in output
    assert "promised for new images" not in output


def test_of_many_classes_those_with_images_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    many = [ClassScores(str(number), None, None, None, number % 2) for number in range(40)]
    shown = [int(each.name) for each in _first_classes(many)]
    assert shown == [*range(1, 40, 2)]
    assert _first_classes(many[:12]) == many[:12]  # in the order of the confusion matrix
    for support, rest in ((0, "39 more classes without images"), (1, "10 more classes")):
        classes = [ClassScores(str(n), None, None, None, int(n == 0) or support) for n in range(40)]
        _show_classes(SimpleNamespace(classes=classes))  # type: ignore[arg-type]
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == f"... and {rest} (--csv)"
