"""Files of strangers: refused before a runtime sees them, in one line that names what is wrong."""

import contextlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnets import predict
from resnets.deployment.engines.opening import open_engine
from resnets.deployment.export.float16 import _float16_graph
from resnets.deployment.exported.graph_cost import RULES, Step, Tensor, refuse_costly
from resnets.deployment.exported.reading import (
    digest_of_members,
    read_onnx,
    read_openvino,
    read_torch,
)
from resnets.errors import ContentError
from resnets.evaluation.engine import batch_size_of
from resnets.evaluation.tta import with_tta
from resnets.images import Preprocessing
from resnets.integrity import DIGEST, UNSTAMPED, stamped
from resnets.model_file import Description

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

FIXTURES = Path(__file__).parents[2] / "fixtures" / "before_trust"
SHIPPED = Path(__file__).parents[3] / "resnets" / "shipped"
ONNX = [*sorted(FIXTURES.glob("*.onnx")), *sorted(SHIPPED.glob("*.onnx"))]
FLOAT, INT64 = 1, 7
Change = Callable[[Any], object]


def tensor(array: Any, name: str = "evil") -> Any:
    return onnx.numpy_helper.from_array(np.asarray(array), name)


def node(operator: str, inputs: list[str], **options: Any) -> Any:
    return onnx.helper.make_node(operator, inputs, ["evil"], **options)


def external() -> Any:
    weight = tensor(np.zeros(4, np.float32))
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret.bin")
    return weight


def graph() -> Any:
    return onnx.helper.make_graph([], "inner", [], [])


def sparse(size: int = 8) -> Any:
    values, places = tensor(np.ones(2, np.float32), "values"), tensor(np.array([0, 1]), "indices")
    return onnx.helper.make_sparse_tensor(values, places, [size])


def first(*nodes: Any, **tensors: Any) -> Change:
    """Puts nodes before all others, and tensors of these values beside the others."""

    def change(model: Any) -> None:
        kept = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *kept])
        model.graph.initializer.extend(tensor(v, name) for name, v in tensors.items())

    return change


def option(**fields: Any) -> Change:
    """Gives the first node an attribute with these fields."""

    def change(model: Any) -> None:
        made = model.graph.node[0].attribute.add(name="evil")
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(made, name).extend(value)
            elif hasattr(value, "CopyFrom"):
                getattr(made, name).CopyFrom(value)
            else:
                setattr(made, name, value)

    return change


def of_weight(work: Change) -> Change:
    """Changes a weight with some values."""
    return lambda model: work(max(model.graph.initializer, key=lambda t: len(t.raw_data)))


def claims(*sizes: int) -> Change:
    def change(weight: Any) -> None:
        del weight.dims[:]
        weight.dims.extend(sizes)

    return of_weight(change)


def says_nan(weight: Any) -> None:
    values = np.frombuffer(weight.raw_data, np.float32).copy()
    values[3] = np.nan
    weight.raw_data = values.tobytes()


LONG = np.arange(200_000, dtype=np.float32)
DOUBLE = [onnx.helper.make_node("Concat", [f"d{i}"] * 2, [f"d{i + 1}"], axis=0) for i in range(40)]
SQUARE = [onnx.helper.make_node("Mul", [f"d{i}"] * 2, [f"d{i + 1}"]) for i in range(40)]
STRANGE: dict[str, tuple[Change, str]] = {
    # tensors and graphs in places that can hold some
    "external weight": (lambda m: m.graph.initializer.append(external()), "'evil'.*another file"),
    "external in Constant": (first(node("Constant", [], value=external())), "evil.*another file"),
    "sparse in Constant": (first(node("Constant", [], sparse_value=sparse())), "evil.*sparse"),
    "huge sparse": (first(node("Constant", [], sparse_value=sparse(1 << 34))), "evil.*sparse"),
    "sparse weight": (lambda m: m.graph.sparse_initializer.append(sparse()), "sparse"),
    "graph": (option(g=graph(), type=5), "Shape.*a graph"),
    "graphs": (option(graphs=[graph()], type=10), "Shape.*graphs"),
    "tensors": (option(tensors=[external()], type=9), "Shape.*tensors"),
    "sparse tensors": (option(sparse_tensors=[sparse()], type=12), "Shape.*sparse"),
    "texts": (option(strings=[b"/etc/passwd"], type=8), "Shape.*texts"),
    "reference": (option(ref_attr_name="x", type=2), "Shape.*reference"),
    "type": (option(tp=onnx.TypeProto(), type=13), "Shape.*type"),
    "function": (lambda m: m.functions.add(name="f", domain="d"), "functions"),
    "training": (
        lambda m: m.training_info.add().algorithm.initializer.append(external()),
        "training",
    ),
    "annotation": (
        lambda m: m.graph.quantization_annotation.add(tensor_name="evil"),
        "quantisation",
    ),
    # tensors that are not what they say
    "texts as tensor": (lambda m: m.graph.initializer.append(tensor(["a"])), "'evil' holds texts"),
    "float64": (lambda m: m.graph.initializer.append(tensor(np.zeros(2))), "'evil'.*type"),
    "segment": (of_weight(lambda t: setattr(t.segment, "end", 9)), "a segment"),
    "too large": (claims(1 << 40, 1 << 20), "1099511627776 x 1048576, but"),
    "too small": (claims(1), "shape 1, but"),
    "negative": (claims(-1, -144), "type or shape"),
    "another type": (of_weight(lambda t: setattr(t, "data_type", 10)), "has the shape"),
    "both raw and listed": (of_weight(lambda t: t.float_data.extend([1.0])), "has the shape"),
    "twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "two tensors"),
    "nan": (of_weight(says_nan), "1 of .* not finite"),
    # operators
    "unknown operator": (first(node("Explode", ["images"])), "'Explode'.*'evil'"),
    "loop": (first(node("Loop", ["", ""], body=graph())), "'Loop'.*'evil'"),
    "resize": (first(node("Resize", ["images"])), "'Resize'.*'evil'"),
    "tile": (first(node("Tile", ["images", "x"]), x=np.array([9])), "'Tile'.*'evil'"),
    "expand": (first(node("Expand", ["images", "x"]), x=np.array([9])), "'Expand'.*'evil'"),
    "foreign": (first(onnx.helper.make_node("Add", [], [], domain="org.evil")), "'org.evil'"),
    "contrib": (first(onnx.helper.make_node("Gelu", [], [], domain="com.microsoft")), "microsoft"),
    "option": (option(i=1, type=2), "'evil' is not one"),
    # operators of ours that allocate
    "fill": (first(node("ConstantOfShape", ["x"]), x=np.array([1 << 31])), "ConstantOfShape.*evil"),
    "range": (
        first(node("Range", ["a", "b", "c"]), a=np.int64(0), b=np.int64(1 << 30), c=np.int64(1)),
        "Range.*evil",
    ),
    "pad": (
        first(node("Pad", ["w", "x"]), w=np.zeros(4, np.float32), x=np.array([0, 1 << 30])),
        "Pad.*evil",
    ),
    "outer product": (
        first(node("Mul", ["a", "b"]), a=LONG[:, None], b=LONG[None]),
        "Mul.*evil",
    ),
    "outer matrix product": (
        first(node("MatMul", ["a", "b"]), a=LONG[:, None], b=LONG[None]),
        "MatMul.*evil",
    ),
    "doubling": (first(*DOUBLE, d0=np.zeros(1000, np.float32)), r"Concat \(d\d+\)"),
    "gather": (
        first(node("Gather", ["a", "b"]), a=np.zeros((1, 200_000), np.float32), b=np.zeros(
            20_000, np.int64)),
        "Gather.*evil",
    ),
    "window": (
        first(node("AveragePool", ["w"], kernel_shape=[1, 1], pads=[1 << 20] * 4),
              w=np.zeros((1, 1, 1, 1), np.float32)),
        "AveragePool.*evil",
    ),
    "numbers without end": (
        first(*SQUARE, node("ConstantOfShape", ["d40"]), d0=np.array([3])), "ConstantOfShape.*evil"
    ),
    "hidden in fractions": (
        first(
            onnx.helper.make_node("Cast", ["one"], ["f"], to=FLOAT),
            onnx.helper.make_node("Div", ["f", "many"], ["g"]),
            onnx.helper.make_node("Mul", ["g", "more"], ["h"]),
            onnx.helper.make_node("Cast", ["h"], ["i"], to=INT64),
            node("ConstantOfShape", ["i"]),
            one=np.array([1]), many=np.float32([9]), more=np.float32([9e9]),
        ),
        "ConstantOfShape.*evil",
    ),
    "nothing there": (first(node("Relu", ["nowhere"])), "Relu.*evil.*nowhere"),
}  # fmt: skip


def saved(path: Path, model: Any) -> Path:
    """A file with a digest that fits, as an attacker would write it."""
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=DIGEST, value=UNSTAMPED)
    path.write_bytes(stamped(model.SerializeToString()))
    return path


@pytest.mark.parametrize("name", STRANGE)
def test_what_export_does_not_write_is_refused_by_name(name: str, tmp_path: Path) -> None:
    change, message = STRANGE[name]
    model = onnx.load(FIXTURES / "digits.onnx")
    change(model)
    path = saved(tmp_path / "strange.onnx", model)
    with pytest.raises(ContentError, match=message) as caught:
        read_onnx(path)
    assert str(path) in str(caught.value)
    assert "onnxruntime" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ONNX, ids=lambda path: path.stem)
def test_files_of_earlier_versions_are_read(path: Path) -> None:
    content, header = read_onnx(path)
    assert content == path.read_bytes()
    assert header["format"] == "resnets/1"


CHECK = """
import sys
from resnets.cli import main
code = main(sys.argv[1:])
assert not {"onnxruntime", "openvino"} & set(sys.modules), "a runtime was imported"
sys.exit(code)
"""


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sparse_rel.onnx", "evil"),
        ("sparse_huge.onnx", "evil"),
        ("bomb_ConstantOfShape.onnx", "ConstantOfShape"),
    ],
)
def test_the_case_files_are_refused_before_a_runtime_is_imported(
    name: str, message: str, engine: str, shared: Callable[[str], Path], tmp_path: Path
) -> None:
    file = shared(f"cases/files/{name}")
    command = [sys.executable, "-c", CHECK, "predict", str(file), str(tmp_path / "none.png")]
    (tmp_path / "none.png").write_bytes(b"")
    done = subprocess.run(
        [*command, "--engine", engine], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# OpenVINO


def network(tmp_path: Path, change: Callable[[str], str] = lambda text: text) -> Path:
    """A copy of an .xml with a changed text, and its .bin."""
    path = tmp_path / "strange.xml"
    path.write_text(change((FIXTURES / "digits.xml").read_text(encoding="utf-8")), encoding="utf-8")
    path.with_suffix(".bin").write_bytes((FIXTURES / "digits.bin").read_bytes())
    return path


def replaced(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


FIRST = (
    'type="Const" version="opset1">\n\t\t\t<data element_type="f32" shape="" offset="0" size="4"'
)
XML: dict[str, tuple[Callable[[str], str], str]] = {
    "entities": (
        replaced("<net", '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa">]>\n<net'),
        "plain XML",
    ),
    "version": (replaced('version="11"', 'version="99"'), "version"),
    "layer": (replaced('type="ReLU"', 'type="Loop"'), "'Loop'"),
    "extension": (
        replaced('type="ReLU" version="opset1"', 'type="ReLU" version="evil"'),
        "own operators",
    ),
    "option": (replaced('<data element_type="f32"', '<data path="/etc/passwd" element_type="f32"'),
               "'path'"),
    "offset": (replaced(FIRST, FIRST.replace('offset="0"', 'offset="9999999"')), "not in the .bin"),
    "size": (replaced(FIRST, FIRST.replace('size="4"', 'size="8"')), "not in the .bin"),
    "shape": (replaced(FIRST, FIRST.replace('shape=""', 'shape="99999999"')), "not in the .bin"),
    "type": (replaced(FIRST, FIRST.replace("f32", "string")), "type"),
    "more": (replaced("<edges>", "<cnn/>\n<edges>"), "as `resnets export` writes"),
    "circle": (replaced("<edges>", '<edges><edge from-layer="9" from-port="1" to-layer="9" '
                        'to-port="0" />'), "two edges|cycle|do not fit"),
    "nowhere": (replaced("<edges>", '<edges><edge from-layer="9999" from-port="1" '
                         'to-layer="1" to-port="0" />'), "missing layer"),
    "two inputs": (replaced('type="ReLU" version="opset1"', 'type="Parameter" version="opset1"'),
                   "images|do not fit|no operator"),
    "cut off": (lambda text: text[: len(text) // 2], "cut off"),
    "empty": (lambda _: "", "plain XML"),
}  # fmt: skip


@pytest.mark.parametrize("name", XML)
def test_an_xml_that_export_does_not_write_is_refused(name: str, tmp_path: Path) -> None:
    change, message = XML[name]
    path = network(tmp_path, change)
    with pytest.raises(ContentError, match=message) as caught:
        read_openvino(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_an_xml_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = network(tmp_path)
    content = np.frombuffer(path.with_suffix(".bin").read_bytes(), "<f4").copy()
    content[len(content) // 2 :] = np.nan
    path.with_suffix(".bin").write_bytes(content.tobytes())
    with pytest.raises(ContentError, match="not finite"):
        read_openvino(path)


@pytest.mark.parametrize("other", [FIXTURES / "digits.onnx", FIXTURES / "digits.pt2"])
def test_other_formats_under_the_name_of_xml_are_refused(other: Path, tmp_path: Path) -> None:
    """OpenVINO would read them by their content."""
    path = tmp_path / "other.xml"
    path.write_bytes(other.read_bytes())
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(ContentError, match=r"other\.xml: not an OpenVINO file"):
        open_engine(path)


def test_an_xml_under_the_name_of_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes((FIXTURES / "digits.xml").read_bytes())
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ContentError, match=r"other\.onnx"):
            open_engine(path, engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["pipe", "nothing", "short"])
def test_an_odd_bin_is_refused(part: str, tmp_path: Path) -> None:
    path = network(tmp_path)
    weights = path.with_suffix(".bin")
    content = weights.read_bytes()
    weights.unlink()
    if part == "pipe":
        os.mkfifo(weights)
    elif part == "short":
        weights.write_bytes(content[:-1])
    with pytest.raises((ContentError, OSError), match=r"\.bin"):
        open_engine(path)


def test_a_digest_of_an_xml_is_of_its_weights_too(tmp_path: Path) -> None:
    path = network(tmp_path)
    content, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    entry = f"{DIGEST}&quot;: &quot;{UNSTAMPED}&quot;, &quot;format&quot;"
    marked = content.replace(b"format&quot;", entry.encode(), 1)
    assert marked != content
    path.write_bytes(stamped(marked, weights))
    read_openvino(path)
    changed = bytearray(weights)
    changed[-2] ^= 1
    path.with_suffix(".bin").write_bytes(changed)
    with pytest.raises(ContentError, match="digest"):
        read_openvino(path)


# What holds for any file


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_of_a_file_are_refused_or_change_nothing_that_is_checked(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but ContentError is raised, whatever stands in the file."""
    source = data.draw(st.sampled_from([FIXTURES / "digits.onnx", FIXTURES / "digits.xml"]))
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / f"changed{source.suffix}"
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes((FIXTURES / "digits.bin").read_bytes())
    read = read_onnx if source.suffix == ".onnx" else read_openvino
    with contextlib.suppress(ContentError):
        read(path)


RUN = r"""
import random, re, resource, sys, json
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
import numpy as np
from resnets.deployment.engines.opening import open_engine
from resnets.errors import ContentError
from resnets.images import Preprocessing
folder, source = Path(sys.argv[1]), Path(sys.argv[2])
original, opened = source.read_bytes(), 0
images = np.zeros((1, 8, 8, 3), np.uint8)
for seed in range(int(sys.argv[3])):
    draw = random.Random(seed)
    content = bytearray(original)
    for _ in range(draw.randint(1, 3)):  # of the graph, before the metadata
        content[draw.randrange(len(content) * 2 // 5)] = draw.randrange(256)
    path = folder / f"changed{source.suffix}"
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(source.with_suffix(".bin").read_bytes())
    try:
        open_engine(path, sys.argv[4], threads=1).probabilities(images)
        opened += 1
    except ContentError:
        pass
# not getrusage: it counts what the process that started this one held
peak = re.search(r"VmHWM:\s*([0-9]+)", open("/proc/self/status").read())[1]
print(json.dumps([opened, int(peak)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "engine"), [("digits.onnx", "onnxruntime"), ("digits.xml", "openvino")]
)
def test_changed_files_that_reach_a_runtime_neither_crash_nor_fill_the_memory(
    name: str, engine: str, tmp_path: Path
) -> None:
    pytest.importorskip(engine)
    command = [sys.executable, "-c", RUN, str(tmp_path), str(FIXTURES / name), "150", engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    readable_files, kilobytes = json.loads(done.stdout)
    assert readable_files > 0
    assert kilobytes < 2**20


# The cost of a graph, against NumPy

small = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


@given(left=small, right=small)
def test_shapes_are_those_of_numpy(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    for operator, work in (("Add", np.add), ("MatMul", np.matmul)):
        step = Step(operator, ("a", "b"), ("c",))
        known = {"a": Tensor(left), "b": Tensor(right)}
        try:
            expected = work(np.zeros(left), np.zeros(right)).shape
        except ValueError:
            with pytest.raises(ContentError):
                refuse_costly([step], known)
            continue
        if operator == "MatMul" and min(len(left), len(right)) < 2:
            continue  # vectors do not come in our graphs
        result = RULES[operator](step, list(known.values()))
        assert isinstance(result, Tensor)
        assert result.shape == expected


def test_what_is_no_longer_needed_does_not_count() -> None:
    """A chain of a million values each holds two at once, not all."""
    steps = [Step("Relu", (f"x{i}",), (f"x{i + 1}",)) for i in range(1000)]
    refuse_costly(steps, {"x0": Tensor((1000, 1000))})
    with pytest.raises(ContentError, match="Relu"):
        refuse_costly(steps, {"x0": Tensor((1000, 1000), constant=True)})


def test_a_graph_that_holds_much_for_each_image_gets_few_images_at_once(tmp_path: Path) -> None:
    """The file describes a small network, of which 32 images fit; the graph holds 32 MiB each."""
    model = onnx.load(FIXTURES / "digits.onnx")
    honest = open_engine(saved(tmp_path / "honest.onnx", model), "onnxruntime")
    assert batch_size_of(honest, 32) == 32
    first(
        onnx.helper.make_node("Cast", ["images"], ["a"], to=FLOAT),
        onnx.helper.make_node("ReduceMax", ["a", "axes"], ["b"], keepdims=0),
        onnx.helper.make_node("Unsqueeze", ["b", "one"], ["c"]),
        onnx.helper.make_node("ConstantOfShape", ["many"], ["d"]),
        node("Mul", ["c", "d"]),
        axes=np.array([1, 2, 3]), one=np.array([1]), many=np.array([1 << 23]),
    )(model)  # fmt: skip
    hostile = open_engine(saved(tmp_path / "hostile.onnx", model), "onnxruntime")
    assert 20 < batch_size_of(hostile, 32) < 25
    assert batch_size_of(with_tta(hostile, True), 32) < 25
    assert batch_size_of(hostile, 1) == 1


# Damage


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_in_an_exported_file_never_changes_it_in_silence(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Refused, or only the name of the digest is hit, which makes it a file without one."""
    folder = tmp_path_factory.getbasetemp()
    sound = saved(folder / "sound.onnx", onnx.load(FIXTURES / "digits.onnx"))
    content = bytearray(sound.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / "changed.onnx").write_bytes(content)
    try:
        read_onnx(folder / "changed.onnx")
    except ContentError:
        return
    key = content.find(UNSTAMPED[:7].encode())
    assert key - len(DIGEST) - 6 <= place < key


def test_a_program_of_torch_with_another_weight_is_damaged(tmp_path: Path) -> None:
    source, damaged = tmp_path / "sound.pt2", tmp_path / "damaged.pt2"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("model/data/weights/weight_0", b"\x00" * 16)
    with zipfile.ZipFile(source) as archive:
        digest = digest_of_members(archive)
    for path, weight in ((source, b"\x00" * 16), (damaged, b"\x00" * 15 + b"\x01")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data/weights/weight_0", weight)
            archive.writestr("model/extra/resnets", json.dumps({DIGEST: digest}))
    assert read_torch(source) == {DIGEST: digest}
    with pytest.raises(ContentError, match=r"damaged\.pt2: damaged"):
        read_torch(damaged)


def described(graph: bytes) -> Any:
    """A graph with the metadata of an exported file."""
    names = ("ant", "bee", "cat", "dog", "eel")
    about = {"block": "residual", "depths": [1], "num_classes": 5}
    seen = Preprocessing(20, 20, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    model = onnx.load_from_string(graph)
    for key, value in Description(about, names, seen).to_header().items():
        model.metadata_props.add(key=key, value=value)
    return model


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_image_that_overflows_is_named_by_every_engine(
    engine: str, graph: bytes, images: Callable[[int], Any], tmp_path: Path
) -> None:
    """Every weight is finite; grey is the mean and stays small, what has contrast does not."""
    pytest.importorskip(engine)
    model = described(graph)
    for name, factor in (("w1", 5e4), ("w3", 1e37)):
        (weight,) = (each for each in model.graph.initializer if each.name == name)
        values = np.frombuffer(weight.raw_data, np.float32) * np.float32(factor)
        weight.raw_data = values.tobytes()
    grey = np.full((1, 20, 20, 3), 128, np.uint8)
    runtime = open_engine(saved(tmp_path / "huge.onnx", model), engine)  # type: ignore[arg-type]
    assert np.isfinite(runtime.probabilities(grey)).all()
    with pytest.raises(ContentError, match=r"image\[1\]: .*not finite"):
        predict(runtime, np.concatenate([grey, images(1)[:, :20, :20]]))


def test_a_weight_that_16_bits_cannot_hold_is_refused_by_name(graph: bytes, tmp_path: Path) -> None:
    model = described(graph)
    (weight,) = (each for each in model.graph.initializer if each.name == "w3")
    values = np.frombuffer(weight.raw_data, np.float32) * 1e6
    weight.raw_data = values.astype(np.float32).tobytes()
    with pytest.warns(RuntimeWarning, match="overflow"):
        half = _float16_graph(model.SerializeToString())
    path = saved(tmp_path / "half.onnx", onnx.load_from_string(half))
    with pytest.raises(ContentError, match=r"'w3_half' holds .* not finite"):
        open_engine(path)
