import importlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import resnets
from resnets import calibrate, evaluate, explain, load, predict
from resnets.cli import main
from resnets.data.sources.opening import open_data
from resnets.errors import ContentError, UsageError
from resnets.evaluation.predict import Prediction
from resnets.evaluation.tta import with_tta
from resnets.images import Preprocessing
from resnets.model_file import Description, Model, architecture_of, save
from resnets.networks import build


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose untrained network knows digits by number."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    network = build("resnet14", width=4)
    preprocessing = Preprocessing(8, 8, (0.3, 0.3, 0.3), (0.4, 0.4, 0.4))
    names = tuple(map(str, range(10)))
    description = Description(network.architecture.to_dict(), names, preprocessing)
    save(folder / "model.safetensors", network, description)
    return folder


def test_importing_the_package_costs_nothing_until_it_is_used() -> None:
    code = "import resnets, sys; assert not {'torch', 'numpy', 'PIL'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"load", "predict", "evaluate", "explain", "calibrate"} <= {*dir(resnets)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        resnets.__getattr__("nothing")


def test_every_way_of_giving_an_image_gets_the_same_answer(run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 3), np.uint8)
    file = tmp_path / "a.png"
    Image.fromarray(pixels).save(file)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    (expected,) = predict(run, file, top=10)
    assert expected.probability is not None
    forms: list[Any] = [str(file), tmp_path, str(tmp_path / "*.png"), file.read_bytes()]
    forms += [Image.fromarray(pixels), pixels, pixels[None], tensor, tensor / 255, tensor[None]]
    for form in [*forms, *([form] for form in forms)]:
        (prediction,) = predict(load(run), form, top=10)
        assert (prediction.prediction, prediction.top) == (expected.prediction, expected.top)
    together = predict(run, forms, top=10, batch_size=3)
    assert [each.prediction for each in together] == [expected.prediction] * len(forms)
    shares = np.array([[share for _, share in each.top] for each in together])
    np.testing.assert_allclose(shares, shares[:1].repeat(len(forms), 0), atol=1e-5)


def test_answer_still_works_for_one_release_with_a_warning(run: Path) -> None:
    """It did not tell a class called "unknown" from a prediction that is not to be relied on."""
    (prediction,) = predict(run, np.zeros((9, 9, 3), np.uint8))
    for status, expected in (
        ("ok", prediction.prediction),
        ("unsure", "unknown"),
        ("unfamiliar", "unknown"),
    ):
        with pytest.warns(DeprecationWarning, match="prediction.*status"):
            assert replace(prediction, status=status).answer == expected
    with pytest.warns(DeprecationWarning, match="status"):
        assert Prediction("a.png", error="broken").answer is None


def test_images_with_labels_are_measured_as_the_data_they_are_from(run: Path) -> None:
    whole = evaluate(run, "digits", split="all")
    splits = open_data("digits", validation=0, test=0)
    pixels, labels = splits.train.stacked(), splits.train.labels
    for images in (pixels, list(pixels), torch.from_numpy(pixels).movedim(3, 1)):
        result = evaluate(run, images, labels, batch_size=100)
        assert result.metrics.confusion == whole.metrics.confusion
        assert result.metrics.loss == pytest.approx(whole.metrics.loss, rel=1e-6)
        assert result.images.startswith("1,797 images; ")
        assert result.exposure == whole.exposure
    by_name = evaluate(run, pixels[:50], [str(label) for label in labels[:50]])
    assert by_name.to_dict() == evaluate(run, pixels[:50], labels[:50]).to_dict()
    assert load_digits().target.tolist() == labels.tolist()


def test_data_that_python_holds_is_measured_as_the_source_it_is_from(run: Path) -> None:
    whole = evaluate(run, "digits", split="all")
    images = open_data("digits", validation=0, test=0).train
    pixels, labels = images.stacked(1), images.labels
    tensors = TensorDataset(torch.from_numpy(pixels[..., 0]), torch.from_numpy(labels))
    for data in ((pixels, labels), tensors):
        result = evaluate(run, data, split="all")
        assert result.metrics.confusion == whole.metrics.confusion
        assert result.exposure == whole.exposure
        assert "1,797" in result.images
    with pytest.raises(UsageError, match="does not know the class 'cat'"):
        evaluate(run, (pixels[:3], ["1", "2", "cat"]))
    with pytest.raises(UsageError, match=r"class '12' .*numbers as labels"):
        evaluate(run, (pixels[:3], [1, 2, 12]))


def test_data_that_python_holds_calibrates_and_is_then_known(run: Path) -> None:
    images = open_data("digits", validation=0, test=0).train
    pixels, labels = images.stacked(1)[:400], images.labels[:400]
    for data, given_labels in (((pixels, labels), None), (pixels, labels)):
        made = calibrate(run, data, given_labels, max_error=0.5)
        assert made.description.calibration["images"].startswith("400 images")
    by_split = {"train": (pixels[:100], labels[:100]), "test": (pixels[100:], labels[100:])}
    calibration = calibrate(run, by_split, max_error=0.5).description.calibration
    assert "300" in calibration["images"]


def test_a_network_of_ones_own_predicts_and_is_measured_and_calibrated(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.mean((2, 3)))

    network = Net()
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([[-9.0, 0, 0], [9.0, 0, 0]]))
        network.head.bias.zero_()
    seen = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
    model = Model(network, Description(architecture_of(network), ("dark", "red"), seen))  # type: ignore[arg-type]
    dark, red = np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), (255, 0, 0), np.uint8)
    assert [each.prediction for each in predict(model, [dark, red])] == ["dark", "red"]
    data = [(dark, "dark"), (red, "red"), (dark + 1, "dark"), (red - 1, "red")]
    assert evaluate(model, data).metrics.top1.count == 4
    assert evaluate(model, [dark, red], [0, 1]).metrics.top1.count == 2
    calibrated = calibrate(model, data, max_error=0.5, output=tmp_path / "own.safetensors")
    assert calibrated.description.calibration["images"].startswith("4 images")
    again = load(tmp_path / "own.safetensors", network=Net())
    assert predict(again, red)[0].probability == predict(calibrated, red)[0].probability
    with pytest.raises(UsageError, match="last stage"):
        explain(model, red)
    with pytest.raises(ContentError, match="network="):
        predict(tmp_path / "own.safetensors", red)


def test_unreadable_images_raise_or_are_left_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    images = [np.zeros((8, 8), np.uint8), tmp_path / "broken.png", np.full((8, 8), 255, np.uint8)]
    with pytest.raises(ContentError, match=r"broken\.png: .*skip_unreadable=True"):
        evaluate(run, images, [0, 1, 2])
    result = evaluate(run, images, [0, 1, 2], skip_unreadable=True)
    assert [row.support for row in result.metrics.classes][:4] == [1, 0, 1, 0]
    assert [each.error is None for each in predict(run, images)] == [True, False, True]
    assert [each.heat is None for each in explain(run, images)] == [False, True, False]


def test_what_python_programs_get_is_shown_in_one_short_line(run: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    labels = np.arange(20) % 10
    loaded = load(run)
    calibrated = calibrate(run, images, labels)
    many = tuple("\x1b[31m" + "n" * 5000 for _ in range(1000))
    hostile = replace(loaded.description, class_names=many, data={"source": "s" * 100_000})
    shown = {
        "model": loaded,
        "description": loaded.description,
        "calibrated": calibrated,
        "hostile": hostile,
        "damaged": replace(loaded.description, architecture={"a": 1}),
        "engine": load(run, engine="torch"),
        "with tta": with_tta(load(run, engine="torch"), True),
        "evaluation": evaluate(run, images, labels),
        "metrics": evaluate(run, images, labels).metrics,
        "explanation": explain(run, images[0])[0],
        "prediction": predict(run, images[0])[0],
    }
    for name, value in shown.items():
        line = repr(value)
        assert len(line) < 500, name
        assert line.isprintable(), name
    assert "10 classes" in repr(loaded)
    assert "accuracy" in repr(evaluate(run, images, labels))


def test_a_heat_map_covers_what_the_network_sees(run: Path) -> None:
    (explanation,) = explain(run, np.zeros((30, 40), np.uint8), target="7", top=2, side=50)
    assert explanation.heat is not None
    assert explanation.heat.shape == (8, 8)
    assert explanation.overlay().shape == (50, 50, 3)
    assert explanation.target == "7"
    assert len(explanation.prediction.top) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: load("nowhere"), "nowhere: no such file; MODEL is"),
        (lambda run: evaluate(run, np.zeros((2, 8, 8, 3), np.uint8)), "needs the labels"),
        (lambda run: evaluate(run, np.zeros((2, 8, 8, 3), np.uint8), [0]), "2 images, but 1 label"),
        (lambda run: evaluate(run, np.zeros((1, 8, 8, 3), np.uint8), [10]), "label 10: .* 0 to 9"),
        (lambda run: evaluate(run, np.zeros((1, 8, 8, 3), np.uint8), ["x"]), "label 'x'"),
        (lambda run: evaluate(run, np.zeros((1, 8, 8, 3), np.uint8), [0.5]), "label 0.5"),
        (lambda run: evaluate(run, [], []), "there is no image"),
        (lambda run: evaluate(run, "nowhere"), "nowhere: no such file or folder"),
        (lambda run: predict(run, np.zeros((8, 8), np.uint8), top=11), "top is 11"),
    ],
)
def test_wrong_use_is_refused_in_words(call: Any, message: str, run: Path) -> None:
    with pytest.raises(UsageError, match=message):
        call(run)


@pytest.mark.parametrize(
    "package",
    ["resnets", "resnets.serving", "resnets.networks", "resnets.deployment.export"],
)
def test_dir_shows_the_public_names_of_a_package_that_loads_them_on_use(package: str) -> None:
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)


@pytest.mark.soak
def test_two_networks_are_compared_as_by_the_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    first = load(run)
    other = build("resnet14", width=4)
    save(tmp_path / "b.safetensors", other, first.description)
    result = resnets.compare(first, tmp_path / "b.safetensors", "digits", split="test")
    figures = [
        evaluate(each, "digits", split="test").metrics.top1
        for each in (run, load(tmp_path / "b.safetensors"))
    ]
    assert list(result.comparison.accuracies) == figures
    words = [run, tmp_path / "b.safetensors", "digits", "--split", "test", "--latency", "0"]
    assert main(["compare", *map(str, words), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["p_value"] == result.comparison.pairs.p_value
    assert [each["image"] for each in printed["differences"]] == [
        each.image for each in result.differences
    ]
    with pytest.raises(UsageError, match=r"compare\(model, data, labels\)|labels of these images"):
        resnets.compare(run, run, np.zeros((2, 8, 8), np.uint8))
    for call in (
        lambda **how: resnets.compare(run, run, "digits", **how),
        lambda **how: evaluate(run, "digits", **how),
        lambda **how: calibrate(run, "digits", **how),
    ):
        with pytest.raises(UsageError, match="auto, train, validation, test or all"):
            call(split="nothing")


def test_the_top_of_the_package_has_every_public_name(tmp_path: Path) -> None:
    names = "train resume load predict evaluate compare fetch explain calibrate ResNet "
    names += "ResNetBottleneck ResidualBlock BottleneckBlock build load_checkpoint from_printed "
    names += "__version__"
    space: dict[str, Any] = {}
    exec("from resnets import *", space)
    for name in (*names.split(), "StopTraining", "Run"):
        assert name in resnets.__all__
        assert name in dir(resnets)
        assert space[name] is getattr(resnets, name)
    assert resnets.__version__ == version("resnets")
    for function in (resnets.train, resnets.predict, resnets.ResNet, resnets.StopTraining):
        assert pickle.loads(pickle.dumps(function)) is function  # noqa: S301  (our own)


def test_each_function_explains_itself() -> None:
    for name in resnets._NAMES["api"].split():
        text = getattr(resnets, name).__doc__
        assert "Args:" in text
        assert "see above" not in text


SCRIPT = """
import resnets

def stop(record: object) -> None:
    if isinstance(record, resnets.Epoch) and record.best:
        raise resnets.StopTraining("enough")

run = resnets.train("digits", epochs=4, callbacks=[stop])
reveal_type(run)
reveal_type(run.metrics)
reveal_type(resnets.predict(run.model, "a.png")[0].probability)
reveal_type(resnets.build("resnet20"))
resnets.train()
"""


@pytest.mark.soak
def test_type_checkers_know_what_the_package_returns(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    script, root = str(tmp_path / "script.py"), Path(resnets.__file__).parents[1]
    cache = f".mypy_cache/{sys.platform}"  # by the settings, and the cache, of make lint
    command = [sys.executable, "-m", "mypy", "--cache-dir", cache, script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    findings = [line.partition(": ")[2] for line in done.stdout.splitlines() if "script.py" in line]
    types = [line.split('"')[1] for line in findings if "Revealed" in line]
    assert types == [
        *("resnets.runs.run.Run", "dict[str, float]", "float | None"),
        "resnets.networks.resnet.ResNet",
    ], done.stdout
    assert [line for line in findings if line.startswith("error")] == [
        line for line in findings if "Missing positional argument" in line
    ]
