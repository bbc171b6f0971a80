"""The readers that are fuzzed: valid files for each, how they are damaged, and what reads them."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from resnets.errors import ContentError, UsageError
from tests.fuzz import damage

FIXTURES = Path(__file__).parents[1] / "fixtures" / "before_trust"
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: of the file that it reads.
        seeds: makes valid files.
        damage: changes one of them.
        read: reads the file in a folder; it raises ContentError, UsageError or OSError, or nothing.
        beside: files that lie beside it.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    damage: damage.Damage
    read: Read
    beside: Callable[[], dict[str, bytes]] = field(default=dict)

    def case(self, random: Random) -> bytes:
        """A damaged file."""
        return self.damage(random.choice(valid(self)), random)

    def outcome(self, content: bytes, folder: Path) -> str:
        """Read a file: "read", or the message with which it was refused. Others are raised."""
        for name, other in self.beside().items():
            (folder / name).write_bytes(other)
        path = folder / self.name
        path.write_bytes(content)
        try:
            self.read(path)
        except (ContentError, UsageError, OSError) as error:
            return f"refused: {error}" if str(error) else "refused without a word"
        return "read"


@cache
def valid(target: Target) -> list[bytes]:
    """The valid files of a reader, made once."""
    return target.seeds()


def fixtures(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(FIXTURES.glob(pattern))]


def read_model(path: Path) -> None:
    from resnets import model_file, predict
    from resnets.deployment.inspection import inspect

    model_file.read_description(path)
    inspect(path)
    predict(path, np.zeros((20, 20, 3), np.uint8))


def read_config(path: Path) -> None:
    from resnets.runs.folder import read_config as text_of
    from resnets.runs.job import Job

    Job.from_toml(text_of(path.parent))


def read_recipe(path: Path) -> None:
    from resnets.runs.job import _read_recipe as read

    read(path)


def read_state(path: Path) -> None:
    from resnets.runs.checkpoint import _digest, read

    content = path.read_bytes()
    read(path.rename(path.with_name(f"step-00000001-{_digest(content)}.pt")))


def read_foreign(path: Path) -> None:
    from resnets.networks.checkpoints.foreign import read_checkpoint

    checkpoint = read_checkpoint(path)
    if sum(value.numel() for value in checkpoint.weights.values()) < 1 << 20:
        checkpoint.build()


def network(**choices: Any) -> dict[str, Any]:
    import torch

    from resnets.networks import ResNet

    torch.manual_seed(0)
    return dict(ResNet("residual", (1, 1), width=4, **choices).state_dict())


def saved(tree: Any, **options: Any) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(tree, stream, **options)
    return stream.getvalue()


def checkpoints() -> list[Any]:
    args = Namespace(arch="resnet20", epochs=200)
    return [
        network(),
        {"state_dict": network(shortcut="padding"), "epoch": 7, "args": args},
        {"accuracy": np.float64(0.9), "numbers": np.arange(3), "net": network(attention="se")},
    ]


def old_files() -> list[bytes]:
    return [saved(tree, _use_new_zipfile_serialization=False) for tree in checkpoints()]


def foreign_safetensors() -> list[bytes]:
    from safetensors.torch import save

    return [save(network()), *fixtures("digits.safetensors")]


def parquet_files() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [picture(seed) for seed in range(6)]
    images: list[Any] = [
        pa.array(pictures),
        pa.array([{"bytes": each, "path": "a.png"} for each in pictures]),
    ]
    labels: list[Any] = [
        pa.array([0, 1, 2, 0, 1, 2]),
        pa.array(["a", "b", "c", "a", "b", None]),
        pa.array([0.5, 1.5, float("nan"), 0.5, 1.5, 2.5]),
        pa.array([1 << 63, (1 << 64) - 1, 0, 0, 0, 0], type=pa.uint64()),
        pa.array([True, False, True, False, True, False]),
        pa.array([[1], [2], [], None, [1, 2], [3]]),
        pa.array([b"a", b"b", b"c", b"a", b"b", b"c"]),
        pa.array(["a", "b", "a", "b", "a", "b"]).dictionary_encode(),
        pa.array([None] * 6, type=pa.null()),
        pa.array(range(6), type=pa.timestamp("s")),
        pa.array(range(6)).cast(pa.decimal128(30, 2)),
    ]
    hub = b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}}}'
    files = []
    for number, label in enumerate(labels):
        for known in ({}, {b"huggingface": hub}):
            table = pa.table({"image": images[number % 2], "label": label})
            stream = io.BytesIO()
            how = ("snappy", "zstd", "none")[number % 3]
            pq.write_table(table.replace_schema_metadata(known), stream, compression=how)
            files.append(stream.getvalue())
    return files


def picture(seed: int, ending: str = "png", mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 4), np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(pixels).convert("RGB")
    image.convert(mode).save(stream, ending)
    return stream.getvalue()


def read_parquet(path: Path) -> None:
    from resnets.data.sources.parquet import read_parquet as read

    use(read(path))


def read_table(path: Path) -> None:
    from resnets.data.sources.tables import read_table as read

    use(read(path))


def read_idx(path: Path) -> None:
    from resnets.data.sources.idx import read_idx as read

    use(read(path))


def read_cifar(path: Path) -> None:
    from resnets.data.sources.archives import read_cifar as read

    use(read(path))


def read_cifar_folder(path: Path) -> None:
    from resnets.data.sources.archives import read_cifar as read

    use(read(path.parent))


def use(parts: Any) -> None:
    """Look at each image that was read; one that is broken is refused by itself."""
    for images in parts.images.values():
        for index in range(min(4, len(images))):
            for look in (images.encoded, images.image):
                try:
                    look(index)
                except ContentError:
                    continue


def tables() -> list[bytes]:
    return [
        b"path,label,split\n" + b"".join(b"%d.png,a%d,train\n" % (n, n % 2) for n in range(9)),
        b"a.png\tant\nb.png\tbee\n" * 3,
        b"file;class\r\n\xc3\xa4.png;x\r\nb.png;y\r\n",
    ]


def idx(count: int = 5) -> bytes:
    return struct.pack(">4B3I", 0, 0, 8, 3, count, 4, 4) + bytes(range(count * 16))


def idx_labels() -> dict[str, bytes]:
    labels = struct.pack(">4BI", 0, 0, 8, 1, 5) + bytes([0, 1, 2, 0, 1])
    return {"train-labels-idx1-ubyte": labels}


@cache
def cifar_files() -> dict[str, bytes]:
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    files = {}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        files[name] = pickle.dumps({b"data": rows, b"labels": [0, 1, 2], b"batch_label": b"x"}, 2)
    files["batches.meta"] = pickle.dumps({"label_names": ["a", "b", "c"]}, 2)
    return files


def cifar_tar() -> list[bytes]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for name, content in cifar_files().items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return [stream.getvalue()]


def read_onnx(path: Path) -> None:
    from resnets.deployment.exported.reading import description_from
    from resnets.deployment.exported.reading import read_onnx as read

    _, header = read(path)
    description_from(header, str(path))


def read_openvino(path: Path) -> None:
    from resnets.deployment.exported.reading import read_openvino as read

    read(path)


def read_pt2(path: Path) -> None:
    from resnets.deployment.exported.reading import read_torch

    read_torch(path)


def read_printed(path: Path) -> None:
    from resnets.networks.printed.reading import from_printed

    from_printed(path.read_text("utf-8", errors="replace"))


def printed() -> list[bytes]:
    from resnets.networks import ResNet

    texts = []
    for block in ("residual", "bottleneck", "preact_residual"):
        for attention in ("none", "se"):
            texts.append(str(ResNet(block, (1, 1), width=8, attention=attention)).encode())
    return texts


def read_image(path: Path) -> None:
    from resnets.images import decode

    decode(path.read_bytes(), channels=3)


def pictures() -> list[bytes]:
    kinds = [("jpeg", "RGB"), ("jpeg", "L"), ("gif", "P"), ("bmp", "RGB"), ("tiff", "RGB")]
    kinds += [("webp", "RGB"), ("ppm", "RGB"), ("jpeg", "CMYK"), ("tiff", "L")]
    return [picture(seed, ending, mode) for seed, (ending, mode) in enumerate(kinds)]


def read_index(path: Path) -> None:
    from resnets.data.digests import _read_entries

    _read_entries(path)


def index() -> list[bytes]:
    from resnets.data.digests import _ENTRY, _MARK

    entries = bytes(3 * _ENTRY.itemsize)
    return [_MARK + hashlib.sha256(entries).digest() + entries]


TARGETS: dict[str, Target] = {
    "model": Target(
        "m.safetensors", lambda: fixtures("*.safetensors"), damage.safetensors, read_model
    ),
    "config": Target("config.toml", lambda: fixtures("*/config.toml"), damage.text, read_config),
    "recipe": Target("recipe.toml", lambda: recipes(), damage.text, read_recipe),
    "state": Target("state.pt", lambda: fixtures("*/checkpoints/*.pt"), damage.archive, read_state),
    "zipped": Target(
        "w.pth", lambda: [saved(tree) for tree in checkpoints()], damage.archive, read_foreign
    ),
    "older": Target("w.th", old_files, damage.either(damage.pickles, damage.bytes_), read_foreign),
    "gzipped": Target(
        "w.th.gz",
        lambda: [gzip.compress(each) for each in old_files()],
        damage.packed(damage.pickles),
        read_foreign,
    ),
    "foreign": Target("w.safetensors", foreign_safetensors, damage.safetensors, read_foreign),
    "parquet": Target("data.parquet", parquet_files, damage.footer, read_parquet),
    "table": Target("table.csv", tables, damage.text, read_table, lambda: {"b.png": picture(0)}),
    "idx": Target("train-images-idx3-ubyte", lambda: [idx()], damage.bytes_, read_idx, idx_labels),
    "idx-packed": Target(
        "train-images-idx3-ubyte.gz",
        lambda: [gzip.compress(idx())],
        damage.packed(damage.bytes_),
        read_idx,
        idx_labels,
    ),
    "cifar": Target(
        "data_batch_1",
        lambda: [cifar_files()["data_batch_1"]],
        damage.pickle,
        read_cifar_folder,
        lambda: {k: v for k, v in cifar_files().items() if k != "data_batch_1"},
    ),
    "cifar-names": Target(
        "batches.meta",
        lambda: [cifar_files()["batches.meta"]],
        damage.pickle,
        read_cifar_folder,
        lambda: {k: v for k, v in cifar_files().items() if k != "batches.meta"},
    ),
    "cifar-archive": Target(
        "c.tar.gz",
        lambda: [gzip.compress(each) for each in cifar_tar()],
        damage.packed(damage.tar),
        read_cifar,
    ),
    "onnx": Target("m.onnx", lambda: fixtures("*.onnx"), damage.protobuf, read_onnx),
    "openvino": Target(
        "m.xml",
        lambda: fixtures("digits.xml"),
        damage.text,
        read_openvino,
        lambda: {"m.bin": fixtures("digits.bin")[0]},
    ),
    "pt2": Target("m.pt2", lambda: fixtures("digits.pt2"), damage.bytes_, read_pt2),
    "printed": Target("net.txt", printed, damage.text, read_printed),
    "picture": Target("p", pictures, damage.bytes_, read_image),
    "png": Target(
        "p.png",
        lambda: [picture(0), picture(1, mode="P"), picture(2, mode="LA")],
        damage.png,
        read_image,
    ),
    "index": Target("index", index, damage.bytes_, read_index),
}


def recipes() -> list[bytes]:
    from resnets.fields import to_toml
    from resnets.training.named_recipes import named_recipe

    return [to_toml(named_recipe(name)).encode() for name in ("quick", "paper")]


def name_of(content: bytes) -> str:
    """What a file is called in the corpus."""
    return hashlib.sha256(content).hexdigest()[:12]
