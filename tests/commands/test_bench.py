import errno
import json
import math
import pickle
import traceback
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from resnets.deployment.bench import candidates
from resnets.deployment.bench.exporting import Exports, _export, _pickled
from resnets.errors import ContentError, MissingExtra
from resnets.images import Preprocessing
from resnets.model_file import Description, save
from resnets.networks import build
from resnets.shipped import FOLDER
from tests.in_process import call

SHORT = ("--rounds", "1", "--seconds", "0.02", "--threads", "1")


def bench(*words: str | Path) -> CompletedProcess[str]:
    return call("bench", *words)


def saved(path: Path, side: int = 16) -> Path:
    torch.manual_seed(0)
    network = build("resnet14", width=4, num_classes=3)
    preparation = Preprocessing(side, side, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    names = ("ant", "bee", "cat")
    save(path, network, Description(network.architecture.to_dict(), names, preparation))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.mark.soak
def test_engines_are_compared_with_plain_pytorch(model: Path, tmp_path: Path) -> None:
    """All forms of the answer from one run: the table, the JSON and the plot."""
    pytest.importorskip("onnxruntime")
    words = ("--engines", "eager", "torch", "onnxruntime", "--batch-sizes", "1", "2")
    plot = tmp_path / "speed.svg"
    done = bench(model, *words, *SHORT, "--limit", "30m", "--json", "--plot", plot)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    rows = result["rows"]
    assert [(row["name"], row["batch_size"]) for row in rows] == [
        (name, size) for name in ("eager", "torch", "onnxruntime") for size in (1, 2)
    ]
    assert [row["ratio"] for row in rows[:2]] == [1, 1]
    assert result["shape"] == [16, 16, 3]
    assert (result["rounds"], result["left_out"]) == (1, [])
    # 3x3 of stem and stages at 16, 8 and 4 pixels, as counted by hand for width 4 and 3 classes
    stages = 4 * 144 * 256, 64 * (288 + 3 * 576), 16 * (1152 + 3 * 2304)
    shortcuts = 64 * 288 + 16 * 1152
    assert result["multiply_adds"] == 256 * 108 + sum(stages) + shortcuts + 48
    for row in rows:
        expected = result["multiply_adds"] * row["images_per_second"]
        assert row["multiply_adds_per_second"] == pytest.approx(expected)
        assert row["share_of_peak"] == pytest.approx(expected / result["peaks"]["1"])
        assert row["peak_memory"] > 1 << 20
    picture = plot.read_text(encoding="utf-8")
    assert "<svg" in picture
    assert result["failed"] == {}


@pytest.mark.slow
def test_a_table_names_what_was_measured_and_what_was_not(model: Path) -> None:
    done = bench(model, "--engines", "eager", "--batch-sizes", "1", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "16 x 16 pixels, 3 channels" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("eager"))
    assert line.split()[1:3] == ["1", "1"]
    assert line.split()[4] == "1.00"


@pytest.mark.slow
def test_what_the_limit_leaves_out_is_told(model: Path) -> None:
    words = ("--engines", "eager", "--batch-sizes", "1", "4", "--seconds", "0.02", "--threads", "1")
    done = bench(model, *words, "--limit", "0.01s")
    assert done.returncode == 0, done.stderr
    assert "1 round of 5" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("eager"))
    assert line.split()[1:3] == ["1", "1"]
    assert "batches of 4" in done.stderr


@pytest.mark.soak
def test_an_export_that_does_not_fit_into_the_limit_is_told(model: Path) -> None:
    """Half of the time is less than Python needs to start the export; what it wrote is gone."""
    pytest.importorskip("onnxruntime")
    words = ("--engines", "eager", "onnxruntime", "--batch-sizes", "1", "--limit", "0.2s")
    done = bench(model, *words, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["rows"]] == ["eager"]
    (why,) = result["failed"].values()
    assert "export to onnx" in why
    assert "--limit" in why


@pytest.mark.soak
def test_a_model_that_cannot_be_exported_is_told_as_by_export(model: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ContentError, match="damaged"):
        Exports(tmp_path, limit=600).exported(damaged, "onnx")


@pytest.mark.soak
def test_the_first_engine_is_exported_for_however_little_time_there_is(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    for number, engines in enumerate((["onnxruntime", "eager"], ["eager", "onnxruntime"])):
        (folder := tmp_path / str(number)).mkdir()
        measured, _ = candidates([model], engines, [1], None, folder, limit=0)
        unavailable = {one.runtime: bool(one.unavailable) for one in measured}
        assert unavailable == {"eager": False, "onnxruntime": number == 1}


class _Unlike(Exception):  # noqa: N818
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.onnx"),
        ModuleNotFoundError("No module named 'onnx'", name="onnx"),
        MissingExtra("not installed"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_an_export_is_raised_as_it_was_there(error: Exception) -> None:
    again = pickle.loads(_pickled(error))  # noqa: S301
    assert (type(again), str(again)) == (type(error), str(error))
    assert getattr(again, "filename", None) == getattr(error, "filename", None)
    unlike = pickle.loads(_pickled(_Unlike("no ", "space")))  # noqa: S301
    assert str(unlike) == "_Unlike: no space"


@pytest.mark.soak
def test_an_export_that_cannot_be_written_is_told_in_one_line(model: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-folder") as raised:
        _export(model, "onnx", tmp_path / "no-folder" / "model.onnx", math.inf)
    assert "Traceback" not in str(raised.value)
    assert "Traceback" in "".join(traceback.format_exception(raised.value))[100:]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "nothing to measure"),
        (["MODEL", "--limit", "soon"], 2, "'soon': not a duration"),
        (["nowhere"], 2, "nowhere: no such file"),
        (["MODEL", "--batch-sizes", "4", "0"], 2, "--batch-sizes 4 0"),
        (["MODEL", "--threads", "0"], 2, "--threads 0"),
        (["MODEL", "--seconds", "inf"], 2, "--seconds inf"),
        (["MODEL", "--size", "8"], 2, "--size 8"),
        (["MODEL", "--plot", "speed.txt"], 2, "speed.txt: the ending of a plot is"),
        (["MODEL", "--plot", "no/speed.svg"], 2, "no folder no"),
        ([__file__], 1, "not a safetensors file"),
    ],
)
def test_wrong_use_and_bad_files_are_told_apart(
    words: list[str], code: int, message: str, model: Path
) -> None:
    done = bench(*[str(model) if word == "MODEL" else word for word in words], "--engines", "eager")
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("engines", [("torch",), ("onnxruntime", "eager")])
def test_an_engine_that_cannot_run_an_exported_file_is_named(engines: tuple[str, ...]) -> None:
    pytest.importorskip("onnxruntime")
    done = bench(FOLDER / "resnet20_cifar10.onnx", "--engines", *engines)
    assert done.returncode == 2
    assert "onnxruntime or openvino can run" in done.stderr
    assert f"{engines[-1]} cannot" in done.stderr


def test_an_engine_that_runs_one_of_several_models_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    models = [FOLDER / "resnet20_cifar10.onnx", FOLDER / "resnet20_cifar10.safetensors"]
    engines, _ = candidates(models, ["eager"], [1], None, tmp_path)
    assert [each.runtime for each in engines] == ["eager"]


def test_a_project_that_is_not_installed_is_named_before_anything_is_measured(model: Path) -> None:
    try:
        import timm  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        done = bench(model, "--against", "timm")
        assert done.returncode == 1
        assert "timm is not installed: pip install timm" in done.stderr
        assert done.stdout == ""
    else:
        pytest.skip("timm is installed")


def test_models_that_see_other_sizes_are_not_compared(model: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "other.safetensors", side=20)
    done = bench(model, other, "--engines", "eager")
    assert done.returncode == 2
    assert "images of different sizes: measure them one by one" in done.stderr


def test_training_is_measured_by_images_per_second_for_each_batch_size() -> None:
    words = (
        "resnet14",
        "--training",
        "--size",
        "8",
        "--batch-sizes",
        "2",
        "4",
        "--seconds",
        "0.01",
    )
    done = call("bench", *words, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["batch_size"] for row in rows] == [2, 4]
    assert all(row["images_per_second"] > 0 and row["steps"] >= 1 for row in rows)
    assert all((row["size"], row["precision"]) == (8, "fp32") for row in rows)
    done = call("bench", *words)
    head, first, *_ = done.stdout.splitlines()
    assert {"pixels": "8", "precision": "fp32", "batch": "2"}.items() <= dict(
        zip(head.split(), first.split(), strict=True)
    ).items()


def test_training_takes_a_network_of_the_package_and_its_own_size() -> None:
    words = ("--training", "--batch-sizes", "2", "--seconds", "0.01", "--json")
    done = call("bench", "resnet14_cifar10", "resnet14", *words)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["network"], row["size"]) for row in rows] == [
        ("resnet14_cifar10", 32),
        ("resnet14", 32),
    ]


def test_training_too_leaves_out_batches_for_which_there_is_no_time() -> None:
    words = ("resnet14", "--training", "--size", "8", "--batch-sizes", "2", "4")
    done = call("bench", *words, "--seconds", "0.01", "--limit", "0.001s", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["batch_size"] for row in json.loads(done.stdout)] == [2]
    assert "resnet14: batches of 4" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet51",), "resnet51"),
        (("resnet14", "--batch-sizes", "0"), "--batch-sizes 0"),
        (("resnet14", "--batch-sizes", str(10**18)), "--batch-sizes 1000"),
        (("resnet14", "--size", "0"), "--size 0"),
        (("resnet14", "--seconds", "-1"), "--seconds -1"),
        (("resnet14", "--seconds", "nan"), "--seconds nan"),
        (("resnet14", "--engines", "eager"), "--engines"),
        (("resnet14", "--threads", "1"), "--threads"),
        (("resnet14", "--against", "timm"), "--against"),
        ((), "--training"),
    ],
)
def test_training_refuses_what_it_cannot_measure(words: tuple[str, ...], message: str) -> None:
    done = call("bench", *words, "--training")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_training_tells_of_full_memory_after_what_it_measured() -> None:
    """A million images of 4,000 pixels are 192 TB."""
    words = ("resnet14", "--training", "--size", "4000", "--seconds", "0.01")
    done = call("bench", *words, "--batch-sizes", "1000000")
    assert (done.returncode, "--batch-sizes" in done.stderr) == (1, True), done.stderr
    words = ("resnet14", "--training", "--size", "400", "--seconds", "0.01", "--limit", "365d")
    done = call("bench", *words, "--batch-sizes", "1", "1000000", "--json")
    assert [row["batch_size"] for row in json.loads(done.stdout)] == [1]
    assert (done.returncode, "1,000,000 images" in done.stderr) == (1, True), done.stderr
