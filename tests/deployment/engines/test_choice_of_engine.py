"""One module decides which engine runs a network: `engines.opening`. By its sources, and by what
every command says of a file that its engine cannot run."""

import ast
from pathlib import Path

import pytest
from PIL import Image

from resnets import load
from resnets.cli import main
from resnets.errors import UsageError

PACKAGE = Path(__file__).parents[3] / "resnets"
EXPORTED = PACKAGE / "shipped/resnet14_cifar10.onnx"
OPENING = "deployment/engines/opening.py"
# what makes an engine of a network, and what tells a network from an engine or a file from a file
CHOICES = {"OnnxRuntime", "OpenVino", "open_torch", "Eager", "InferenceSession", "compile_model"}
ALLOWED = {  # no choice is made there: why
    "api.py": {"isinstance of Model"},  # weights in memory or a file of them; nothing computes
    "deployment/converting.py": {"isinstance of Model"},  # likewise
    OPENING: None,
    "deployment/engines/onnx.py": {"InferenceSession"},  # the engine itself
    "deployment/engines/openvino.py": {"compile_model"},  # the engine itself
    "deployment/engines/torch.py": {"Eager"},  # what `open_torch` of the same file returns
    "evaluation/eager.py": {"isinstance of Eager"},  # logits, which no exported file has
    "evaluation/evaluate.py": {"isinstance of Eager"},  # batches on the device of the network
    "runs/result.py": {"Eager"},  # the network that was just trained, in memory
    "deployment/export/int8_onnx.py": {"InferenceSession"},  # a graph that it makes
    "deployment/export/int8_openvino.py": {"compile_model"},  # a graph that it makes
    "deployment/bench/runtimes.py": {"InferenceSession", "compile_model"},  # the bare runtimes
    "serving/explaining.py": {"isinstance of Eager"},  # the network itself, for gradients
}
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def _calls(name: str) -> set[str]:
    """The names of the functions and classes that a module calls."""
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    checks = [
        ast.unparse(node.args[1])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
    ]
    kinds = {f"isinstance of {kind}" for kind in checks if kind in ("Model", "Engine", "Eager")}
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls} | kinds


def test_only_the_opening_makes_engines_and_tells_networks_from_them() -> None:
    for name in MODULES:
        allowed = ALLOWED.get(name, set())
        if allowed is not None:
            calls = {call for call in _calls(name) if call in CHOICES or "isinstance of" in call}
            assert calls == allowed, f"{name}: use open_engine or open_network of {OPENING}"


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "FILE", "IMAGE", "--engine", "torch"],
        ["evaluate", "FILE", "digits", "--engine", "torch"],
    ],
    ids=lambda words: str(words[0]),
)
def test_every_command_refuses_an_engine_that_cannot_run_the_file(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    places = {"FILE": str(EXPORTED), "IMAGE": str(tmp_path)}
    assert main([places.get(word, word) for word in words]) == 2
    assert "onnxruntime or openvino can run it, torch cannot" in capsys.readouterr().err
    with pytest.raises(UsageError, match="torch cannot"):
        load(EXPORTED, engine="torch")
