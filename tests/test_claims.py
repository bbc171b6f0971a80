"""What a file claims is held against what is there before memory is taken for it."""

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from resnets import load, predict
from resnets.data.sources.archives import read_cifar
from resnets.data.sources.idx import _read_array
from resnets.data.sources.parquet import read_parquet
from resnets.deployment.exported.reading import read_torch
from resnets.errors import ContentError
from resnets.fields import parse_toml
from resnets.headers import parse_header, parse_json
from resnets.images import Preprocessing
from resnets.networks import CATALOG, Architecture, ResNet, build
from resnets.networks.limits import _image_bytes, images_at_once, least_numbers, refuse_claims
from resnets.networks.printed.reading import from_printed

Write = Callable[..., Path]
GREY = (0.5, 0.5, 0.5)


def rewritten(path: Path, **changes: Any) -> Path:
    """The same file with other values in its header, and without the digest of its content."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    values = header["__metadata__"]
    values.pop("digest", None)
    for name, change in changes.items():
        whole = json.loads(values[name]) | change if isinstance(change, dict) else change
        values[name] = json.dumps(whole)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


@pytest.mark.parametrize(
    "claim",
    [
        {"num_classes": 10**9},
        {"num_classes": 10**6},
        {"num_classes": 10**30},
        {"width": 10**6},
        {"width": 4096},
        {"depths": [1000] * 8},
        {"depths": [1, 1, 1, 1, 1, 1, 1, 1]},
        {"block": "bottleneck", "groups": 1 << 20},
        {"block": "bottleneck", "base_width": 1 << 20},
        {"stem": "deep", "stem_width": 1 << 20},
        {"attention": "se", "reduction": 1, "width": 2048},
    ],
)
def test_a_header_that_claims_more_than_the_weights_is_refused_before_a_network_is_made(
    claim: dict[str, Any], untrained: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = rewritten(untrained(("a", "b")), architecture=claim)
    monkeypatch.setattr(ResNet, "__init__", lambda *_, **__: pytest.fail("it was made"))
    with pytest.raises(ContentError, match=r"model\.safetensors: "):
        load(path)


def test_the_least_number_of_weights_is_never_more_than_there_are() -> None:
    for name, row in CATALOG.items():
        if row.architecture.depth > 60:
            continue
        with torch.device("meta"):
            there = sum(value.numel() for value in build(row.architecture).state_dict().values())
        assert 0.9 * there <= least_numbers(row.architecture) <= there, name


def test_a_header_that_is_true_is_never_refused() -> None:
    for stem in ("cifar", "deep", "deep_strided"):
        for attention in ("none", "se", "eca"):
            for shortcut in ("padding", "pooled", "projection3x3", "projection_everywhere", "none"):
                kind = Architecture(
                    *("bottleneck", (1, 2)), 8, stem, shortcut=shortcut, attention=attention,
                    groups=2, base_width=32, reduction=4,
                )  # fmt: skip
                state = build(kind).state_dict()
                refuse_claims(kind, {name: tuple(value.shape) for name, value in state.items()})


@pytest.mark.parametrize(
    "claim",
    [
        {"size": 8192, "resize": 8192},
        {"size": 8000, "resize": 8192},
        {"size": 0},
        {"size": 16, "resize": 10**9},
    ],
)
def test_images_that_would_take_absurd_memory_are_refused(
    claim: dict[str, Any], untrained: Write
) -> None:
    path = rewritten(untrained(("a", "b")), preprocessing=claim)
    rewritten(path, architecture={})
    with pytest.raises(ContentError, match=r"model\.safetensors: "):
        predict(path, np.zeros((20, 20, 3), np.uint8))


def test_a_class_name_for_each_logit_is_needed(untrained: Write) -> None:
    path = untrained(("a", "b"))
    rewritten(path, class_names=["a"])
    with pytest.raises(ContentError, match="1 class names"):
        load(path)


def test_large_images_are_computed_in_smaller_batches() -> None:
    usual = Preprocessing(224, 256, GREY, GREY)
    network = CATALOG["resnet50"].architecture
    assert images_at_once(network, usual, 32) == 32
    large = replace(usual, size=1024, resize=1170)
    few = images_at_once(network, large, 32)
    assert 1 <= few < 8
    assert few * _image_bytes(network, large) < 1 << 30


@pytest.mark.soak
def test_the_memory_of_an_image_is_as_measured() -> None:
    """The witness is the process itself: its peak with the image, less that with a tiny one."""
    code = (
        "import re, torch\n"
        "from resnets.networks import build\n"
        "def peak():  # not getrusage: it counts what the process that started this one held\n"
        "    text = open('/proc/self/status').read()\n"
        "    return int(re.search('VmHWM: *\\t* *([0-9]+)', text)[1]) * 1024\n"
        "network = build('resnet18').eval()\n"
        "with torch.no_grad():\n"
        "    network(torch.zeros(1, 3, 64, 64))\n"
        "    before = peak()\n"
        "    network(torch.zeros(1, 3, 1536, 1536))\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    guessed = _image_bytes(CATALOG["resnet18"].architecture, Preprocessing(1536, 1536, GREY, GREY))
    assert guessed / 3 < int(done.stdout) < guessed * 3


with torch.device("meta"):
    PRINTED = str(ResNet("residual", (1, 1, 1, 1, 1, 1, 1, 1), width=1024))


def test_a_printed_network_of_absurd_size_is_not_made() -> None:
    assert "131072" in PRINTED  # channels of its last stage
    with pytest.raises(ContentError, match="weights"):
        from_printed(PRINTED)


@pytest.mark.parametrize("line", ["A" * 200_000, "(" * 200_000, "A(" * 100_000, "a: " * 100_000])
def test_a_long_line_among_printed_ones_takes_no_time(line: str) -> None:
    text = f"{line}\n{line}(\n" + str(ResNet("residual", (1, 1), width=4))
    assert from_printed(text).architecture.depths == (1, 1)


HEADERS: dict[str, dict[str, Any]] = {
    "overlap": {"a": [0, 8], "b": [4, 12]},
    "a gap": {"a": [0, 8], "b": [12, 20]},
    "too few": {"a": [0, 8]},
    "beyond": {"a": [0, 8], "b": [8, 20], "c": [20, 28]},
    "backwards": {"a": [8, 0], "b": [8, 20]},
    "negative": {"a": [-8, 0], "b": [0, 20]},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_tensors_that_are_not_the_bytes_of_the_file_are_refused(kind: str) -> None:
    table = {
        name: {"dtype": "F32", "shape": [max(0, (end - start) // 4)], "data_offsets": [start, end]}
        for name, (start, end) in HEADERS[kind].items()
    }
    with pytest.raises(ContentError):
        parse_header(json.dumps(table).encode(), 20)


def test_what_safetensors_writes_is_read() -> None:
    content = save({"a": torch.ones(2, 3), "b": torch.ones(0, 2), "c": torch.ones(()).half()})
    length = int.from_bytes(content[:8], "little")
    shapes = parse_header(content[8 : 8 + length], len(content) - 8 - length).shapes
    assert shapes == {"a": (2, 3), "b": (0, 2), "c": ()}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" + "[]," * 1_100_000 + "[]]",
        '{"a": 1, "a": 2}',
        "9" * 5000,
    ],
    ids=["deep", "deep tables", "wide", "a name twice", "a long number"],
)
def test_json_of_absurd_size_is_refused(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(ContentError):
            parse_json(form)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a = 9" + "9" * 5000, "a" + ".a" * 5000 + " = 1", "#" * (2 << 20)],
    ids=["deep", "a long number", "names of names", "long"],
)
def test_settings_of_absurd_size_are_refused(text: str) -> None:
    with pytest.raises(ContentError, match=r"not TOML|not settings"):
        parse_toml(text)


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "png")
    return stream.getvalue()


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([[1, 2], [1]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([b"a", b"b"]),
        pa.array([[["a"]], [["b"]]]),
        pa.array([[("a", 1)], [("b", 2)]], type=pa.map_(pa.string(), pa.int64())),
    ],
    ids=["lists", "structs", "bytes", "lists of lists", "maps"],
)
def test_labels_that_are_no_single_value_are_refused_in_a_line(labels: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"image": [png(), png()], "label": labels}), path)
    with pytest.raises(ContentError, match=r"one whole number or one text"):
        read_parquet(path)


def test_the_case_of_labels_that_are_lists(shared: Callable[[str], Path]) -> None:
    with pytest.raises(ContentError, match="label must be"):
        read_parquet(shared("cases/files/labels_list.parquet"))


def test_a_parquet_file_of_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    rows = 3_000_000
    image = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([png()]))
    table = pa.table({"image": image, "label": np.zeros(rows, np.int8)})
    pq.write_table(table, path, row_group_size=rows)
    assert path.stat().st_size < 100_000
    with pytest.raises(ContentError, match="3,000,000 rows"):
        read_parquet(path)


def test_a_parquet_file_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    picture = np.random.default_rng(0).bytes(3 << 20)
    image = pa.DictionaryArray.from_arrays(pa.array(np.zeros(400, np.int8)), pa.array([picture]))
    table = pa.table({"image": image, "label": np.zeros(400, np.int8)})
    pq.write_table(table, path, store_schema=False)
    assert path.stat().st_size < 4 << 20
    with pytest.raises(ContentError, match="times its size"):
        read_parquet(path)


def test_an_idx_file_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    head = struct.pack(">4B3I", 0, 0, 8, 3, 500_000, 28, 28)
    path.write_bytes(gzip.compress(head) + gzip.compress(bytes(8 << 20)) * 48)
    with pytest.raises(ContentError, match="unpacks to more than"):
        _read_array(path, 3)


def archive(path: Path, size: int, name: str = "data_batch_1", **header: Any) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
        info.size = size
        for key, value in header.items():
            setattr(info, key, value)
        file.addfile(info, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda path: archive(path, 300 << 20),
        lambda path: archive(path, 10, name="a" * 1_000_000),
        lambda path: archive(path, 10, pax_headers={"GNU.sparse.map": "0,1" * 100}),
        lambda path: path.write_bytes(gzip.compress(b"\xff" * 512)),
        lambda path: path.write_bytes(gzip.compress(bytes(100_000))[:-50]),
    ],
    ids=["a bomb", "a long name", "a sparse file", "noise", "cut"],
)
def test_an_archive_that_is_none_is_refused(write: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    write(path)
    with pytest.raises(ContentError):
        read_cifar(path)


def test_an_archive_of_torch_export_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("model/extra/resnets", "{}")
        file.writestr("model/data/weights/0", bytes(300 << 20))
    with pytest.raises(ContentError, match="unpacks to more than"):
        read_torch(path)
    with pytest.raises(FileNotFoundError):
        read_torch(tmp_path / "nowhere.pt2")
