import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import resnets
from resnets import evaluate, load, predict
from resnets.cli import main
from resnets.deployment.engines.opening import EngineName, open_engine, why_torch
from resnets.deployment.exported.reading import is_exported
from resnets.errors import ContentError, UsageError
from resnets.evaluation.familiarity import Familiarity, class_directions
from resnets.evaluation.proportion import Proportion
from resnets.integrity import DIGEST
from resnets.model_file import _FORMAT, update
from tests.spread import spread

pytestmark = pytest.mark.slow  # exporting takes ten seconds, once

Change = Callable[[Any], None]


@pytest.fixture(autouse=True)
def _no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured where nothing can be remembered."""
    (tmp_path / "cache").write_bytes(b"a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize(
    ("images", "message"),
    spread(
        [
            (
                np.zeros((2, 20, 20, 1), np.uint8),
                r"\(2, 20, 20, 1\) and type uint8; expected \(B, H,",
            ),
            (np.zeros((20, 20, 3), np.uint8), r"shape \(20, 20, 3\)"),
            (np.zeros((2, 3, 20, 20), np.uint8), r"expected \(B, H, W, 3\) of uint8"),
            (np.zeros((1, 20, 20, 3), np.float32), "type float32"),
            (np.zeros((0, 20, 20, 3), np.uint8), "there is no image, or no pixel"),
            (np.zeros((1, 0, 20, 3), np.uint8), "there is no image, or no pixel"),
            ([[[[0]]]], "images is list"),
        ]
    ),
)
def test_what_is_no_batch_of_images_is_refused_in_one_way_by_all(
    name: EngineName, images: Any, message: str, model_path: Path
) -> None:
    engine = opened(model_path, name)
    for call in (engine.probabilities, engine.features, engine.graph):
        with pytest.raises(UsageError, match=message):
            call(images)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_an_engine_is_shown_in_one_short_line(model_path: Path, name: EngineName) -> None:
    line = repr(opened(model_path, name))
    assert name in line
    assert len(line) < 500


CACHE: dict[str, Any] = {}


def opened(path: Path, name: EngineName) -> Any:
    """Each engine once."""
    if name not in CACHE:
        CACHE[name] = open_engine(path, name, threads=1)
    return CACHE[name]


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def absurd(model: Any) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([1 << 40, 1 << 20])


def foreign(model: Any) -> None:
    model.graph.node[0].domain = "org.evil"


def nested(model: Any) -> None:
    branch = onnx.helper.make_graph([], "branch", [], [])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", branch))


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Explode"


def unnamed(model: Any) -> None:
    del model.metadata_props[:]


def says(key: str, value: str) -> Change:
    def change(model: Any) -> None:
        (entry,) = [each for each in model.metadata_props if each.key == key]
        entry.value = value

    return change


def undigested(model: Any) -> bytes:
    """The bytes of a file that carries no digest, as those of earlier versions."""
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    content: bytes = model.SerializeToString()
    return content


BAD = [
    (external, "values in another file, which is never opened"),
    (absurd, "1099511627776 x 1048576, but"),
    (foreign, "needs an operator of 'org.evil'"),
    (nested, "holds a graph"),
    (unknown_operator, "'Explode'"),
    (unnamed, "not exported by resnets"),
    (says("format", f"resnets/{_FORMAT + 1}"), f"written in format {_FORMAT + 1}; .*--upgrade"),
    (says("class_names", '["ant", "bee"]'), "2 class names .* for a network of 5 classes"),
    (says("class_names", "[1"), "the header is damaged"),
    (says("calibration", '{"temperature": -1}'), r"calibration\.threshold"),
    (
        says("preprocessing", '{"size": 16, "resize": 20, "mean": [0.5], "std": [0.2]}'),
        "images of 1 channels, for a network of .* 3 channels",
    ),
    (
        says("preprocessing", '{"size": 99999, "resize": 99999, "mean": [0.5], "std": [0.2]}'),
        "size is 99999",
    ),
]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "message"), BAD, ids=lambda value: getattr(value, "__name__", "")
)
def test_hostile_and_lying_files_get_one_clear_error(
    name: EngineName, change: Change, message: str, exported: Path, tmp_path: Path
) -> None:
    model = onnx.load(exported)
    change(model)
    path = tmp_path / "bad.onnx"
    path.write_bytes(undigested(model))
    with pytest.raises(ContentError, match=message) as error:
        open_engine(path, name, threads=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_graph_that_hides_how_many_classes_it_has_is_found_out_by_the_first_image(
    name: EngineName, exported: Path, tmp_path: Path
) -> None:
    """It has 5, its metadata name 2, and there is room for 2."""
    model = onnx.load(exported)
    says("class_names", '["ant", "bee"]')(model)
    model.graph.output[0].type.tensor_type.shape.dim[-1].dim_param = "any"
    path = tmp_path / "bad.onnx"
    path.write_bytes(undigested(model))
    with pytest.raises(ContentError):
        open_engine(path, name, threads=1).probabilities(np.zeros((1, 20, 20, 3), np.uint8))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_threads_may_share_an_engine(name: EngineName, model_path: Path) -> None:
    """Each gets the answers to its own images, in batches of any size."""
    engine = opened(model_path, name)
    images = np.random.default_rng(0).integers(0, 256, (64, 20, 20, 3), np.uint8)
    alone = np.concatenate([engine.probabilities(image[None]) for image in images])
    with ThreadPoolExecutor(8) as pool:
        for size in (1, 1, 1, 2, 4, 2, 1):
            batches = [images[start : start + size] for start in range(0, 64, size)]
            probabilities = np.concatenate(list(pool.map(engine.probabilities, batches * 4)))
            np.testing.assert_allclose(probabilities, np.tile(alone, (4, 1)), atol=1e-5)


def test_an_onnx_file_cut_off_anywhere_is_refused(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    path = tmp_path / "cut.onnx"
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ContentError, match=r"cut\.onnx: "):
            open_engine(path, "onnxruntime")


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_an_onnx_file_of_others_is_told_from_ours(graph: bytes, tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(graph)
    with pytest.raises(ContentError, match=r"not exported by resnets: .*resnets export MODEL"):
        open_engine(path)


@pytest.mark.parametrize("ending", [".xml", ".safetensors"])
def test_files_that_only_have_the_name_are_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"fake{ending}"
    path.write_bytes(b"PK\x03\x04 or whatever")
    with pytest.raises(ContentError, match=r"fake"):
        open_engine(path)


def test_engines_and_files_that_do_not_go_together_are_named(
    model_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_engine(tmp_path / "nothing.onnx")
    with pytest.raises(UsageError, match=r"onnxruntime or openvino .*torch"):
        open_engine(model_path.with_suffix(".onnx"), "torch")
    program = tmp_path / "any.pt2"
    program.write_bytes(b"")
    with pytest.raises(UsageError, match=r"can run any code while they are loaded"):
        open_engine(program)
    alone = Path(shutil.copy(model_path, tmp_path))
    with pytest.raises(UsageError, match=r"torch .*openvino .* \(`resnets export .* first"):
        open_engine(alone, "openvino")
    with pytest.raises(UsageError, match="threads is -1"):
        open_engine(model_path, threads=-1)


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
def test_a_model_file_runs_as_its_own_export_and_never_as_anothers(
    model_path: Path, tmp_path: Path
) -> None:
    assert open_engine(model_path).name == "onnxruntime"
    changed = Path(shutil.copy(model_path, tmp_path))
    shutil.copy(model_path.with_suffix(".onnx"), tmp_path)
    assert open_engine(changed).name == "onnxruntime"
    update(changed, metrics={"n": 1})
    assert open_engine(changed).name == "torch"
    assert not is_exported(changed)


@pytest.mark.filterwarnings("ignore:the cache:resnets.errors.CacheWarning")
@pytest.mark.parametrize("beside", spread(["nothing", "stale", "damaged"]))
def test_why_torch_computes_a_copy_is_told_with_a_command_that_changes_it(
    model_path: Path, tmp_path: Path, beside: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, image = Path(shutil.copy(model_path, tmp_path / "a copy.safetensors")), tmp_path / "a.png"
    Image.new("RGB", (20, 20)).save(image)
    export = copy.with_suffix(".onnx")
    if beside == "stale":
        shutil.copy(model_path.with_suffix(".onnx"), export)
        update(copy, metrics={"n": 2})
    elif beside == "damaged":
        export.write_bytes(b"no ONNX")
    words = ["predict", str(copy), str(image)]
    assert main(words) == 0
    quiet = capsys.readouterr().err
    assert main([*words, "--verbose"]) == 0
    loud = capsys.readouterr().err
    assert "resnets export" not in quiet
    command = shlex.split(loud.split("`")[1])
    assert main(["inspect", str(copy)]) == 0
    assert export.name in capsys.readouterr().out
    assert main([*words, "--verbose", "--engine", "torch"]) == 0  # as asked for
    assert "resnets export" not in capsys.readouterr().err

    assert main(command[1:]) == 0
    capsys.readouterr()
    assert main([*words, "--verbose"]) == 0
    after = capsys.readouterr().err
    assert f"from {export}" in after
    assert "resnets export" not in after
    assert why_torch(copy) == why_torch(export) == ""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_without_torch(name: str, exported: Path, tmp_path: Path) -> None:
    """The engine and what answers with it import no torch."""
    code = """
import json, sys
import numpy as np
from resnets import load, predict
engine = load(sys.argv[1], engine=sys.argv[2], threads=1)
(found,) = predict(engine, np.zeros((30, 40, 3), np.uint8))
assert "torch" not in sys.modules
shape = engine.features(np.zeros((1, 9, 9, 3), np.uint8)).shape
print(json.dumps([found.prediction, found.status, found.probability, shape]))
"""
    command = [sys.executable, "-c", code, str(exported), name]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    prediction, status, probability, shape = json.loads(done.stdout)
    assert prediction in ("ant", "bee", "cat", "dog", "eel")
    assert status in ("ok", "unsure")
    assert 0.2 <= probability <= 1
    assert shape == [1, 16]


def test_python_programs_use_an_engine_as_they_use_a_network(model_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 25, 31, 3), np.uint8)
    labels = ["ant", "bee", "cat", "dog", "eel", "ant"]
    network, engine = load(model_path), load(model_path, engine="onnxruntime", threads=1)
    by_torch, by_engine = (predict(model, pixels, top=5) for model in (network, engine))
    for one, other in zip(by_torch, by_engine, strict=True):
        assert (one.prediction, one.status) == (other.prediction, other.status)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)
    (alone,) = predict(engine, pixels[0], top=5)
    assert (alone.prediction, alone.image) == (by_engine[0].prediction, "image")
    figures = [evaluate(model, pixels, labels).metrics for model in (network, engine)]
    assert figures[0].loss == pytest.approx(figures[1].loss, rel=1e-4)
    with pytest.raises(UsageError, match='engine="auto"'):
        load(model_path.with_suffix(".onnx"))
    with pytest.raises(UsageError, match="float64; it must be uint8"):
        predict(engine, pixels[0].astype(np.float64))


def test_running_a_network_tells_nobody_of_it(exported: Path, tmp_path: Path) -> None:
    """Neither runtime makes the files by which its maker would know this machine again."""
    code = """
import sys
from resnets.deployment.engines.opening import open_engine
for name in ("onnxruntime", "openvino"):
    open_engine(sys.argv[1], name, threads=1)
"""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", code, str(exported)]
    done = subprocess.run(command, capture_output=True, check=True, env=kept | {"HOME": str(home)})
    assert done.stderr == b""
    assert [*home.rglob("*")] == []


@pytest.fixture(scope="module")
def in_8_bits(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with its own export in 8 bits beside it."""
    import torch

    from resnets.data.labelled import LabelledImages
    from resnets.data.storage import PixelStorage
    from resnets.deployment.export.int8 import quantise

    folder = tmp_path_factory.mktemp("in_8_bits")
    model = Path(shutil.copy(model_path, folder))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 20, 20, 3), np.uint8)
    torch.manual_seed(0)
    some = LabelledImages(PixelStorage(pixels, str), np.arange(64) % 5, tuple("abcde"))
    target = model.with_suffix(".onnx")
    quantise(model_path.with_suffix(".onnx"), target, some, (some, "64 images"), max_loss=100)
    return model


def test_a_file_in_8_bits_beside_a_model_never_runs_in_its_place(
    in_8_bits: Path, model_path: Path
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 20, 20, 3), np.uint8)
    assert open_engine(in_8_bits).name == "torch"
    by_name = predict(in_8_bits, pixels, top=5)
    float32 = predict(load(in_8_bits), pixels, top=5)
    int8 = predict(in_8_bits.with_suffix(".onnx"), pixels, top=5)
    for one, other, rounded in zip(by_name, float32, int8, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        assert one.probability != pytest.approx(rounded.probability, abs=1e-6)
    with pytest.raises(UsageError, match=r"torch .*onnxruntime"):
        open_engine(in_8_bits, "onnxruntime")


def test_a_file_in_8_bits_runs_unasked_only_in_the_engine_that_it_was_checked_by(
    in_8_bits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where another one was found to be faster."""
    from resnets.deployment.engines import selection

    monkeypatch.setattr(selection, "_rate_of", lambda name, *_: float(name == "openvino"))
    file = in_8_bits.with_suffix(".onnx")
    assert open_engine(file).name == "onnxruntime"
    assert open_engine(file, "openvino").name == "openvino"


def test_commands_say_which_file_and_engine_ran(
    in_8_bits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / name / "0.png")
    export = in_8_bits.with_suffix(".onnx")
    for file, text in (
        (in_8_bits, f"torch in float32 from {in_8_bits}"),
        (export, f"onnxruntime in int8 from {export}"),
    ):
        assert main(["predict", str(file), str(tmp_path)]) == 0
        assert text in capsys.readouterr().err
        assert main(["evaluate", str(file), str(tmp_path), "--split", "all"]) == 0
        assert text in capsys.readouterr().err
    assert main(["evaluate", str(export), str(tmp_path), "--split", "all", "--json"]) == 0
    computed = json.loads(capsys.readouterr().out)["computed"]
    assert computed == {"file": str(export), "engine": "onnxruntime", "precision": "int8"}


def test_every_engine_gives_the_same_status_to_the_same_image(
    model_path: Path, images: Callable[[int], Any], tmp_path: Path
) -> None:
    """The score needs features alone, so files exported before it was known have it too."""
    network, pixels = load(model_path), images(12)
    by_torch = open_engine(model_path, "torch")
    features = by_torch.features(pixels)
    directions = class_directions(features[:3], [0, 1, 1])
    scores = np.sort(Familiarity(directions, 0.0, 3, Proportion(0, 3)).scores(features))
    gap = int(np.diff(scores[2:-2]).argmax()) + 2
    threshold = float(scores[gap : gap + 2].mean())
    known = Familiarity(directions, threshold, 3, Proportion(0, 3))
    description = replace(network.description, familiarity=known.to_dict())
    wanted = ["unfamiliar" if not each else "" for each in known.familiar(features)]
    assert set(wanted) == {"unfamiliar", ""}
    statuses = {}
    for name in ("onnxruntime", "openvino", "torch"):
        engine = open_engine(model_path, name, threads=1)
        engine.description = description
        probabilities, features = engine.outputs(pixels)
        np.testing.assert_allclose(probabilities, engine.probabilities(pixels), atol=1e-6)
        np.testing.assert_allclose(features, engine.features(pixels), rtol=1e-3, atol=1e-5)
        predicted_statuses = [each.status for each in predict(engine, pixels)]
        assert predicted_statuses == [predict(engine, image)[0].status for image in pixels]
        assert [each if each == "unfamiliar" else "" for each in predicted_statuses] == wanted
        statuses[name] = predicted_statuses
        counted = evaluate(engine, pixels, [0] * len(pixels)).statuses
        assert counted is not None
        assert counted.unfamiliar.count == wanted.count("unfamiliar")
    assert len({*map(tuple, statuses.values())}) == 1


_CLOSED_IN_ORDER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from resnets.deployment.bench.runtimes import RUNTIMES, Candidate
from resnets.deployment.engines.openvino import OpenVino

def opened(batch):
    images = np.zeros((batch, 32, 32, 3), np.uint8)
    if sys.argv[2] == "engine":
        engine = OpenVino(Path(sys.argv[1]))
        engine.probabilities(images)
        return engine
    candidate = Candidate("bare", "bare openvino", sys.argv[1], 1, images.shape[1:])
    call = RUNTIMES["bare openvino"](candidate)(images)
    call()
    return call

first, second = opened(1), opened(2)
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1")
@pytest.mark.parametrize("kind", ["engine", "bare runtime of bench"])
def test_a_signal_is_handled_after_networks_were_closed_in_the_order_of_their_opening(
    kind: str,
) -> None:
    """OpenVINO's alternate stack for signal handlers was then one that was freed."""
    pytest.importorskip("openvino")
    network = Path(resnets.__file__).parent / "shipped" / "resnet14_cifar10.onnx"
    command = [sys.executable, "-c", _CLOSED_IN_ORDER, str(network), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
