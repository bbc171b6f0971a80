"""Files of other frameworks are called what they are, with the way to convert them."""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from resnets import shipped
from resnets.cli import main
from resnets.errors import ContentError
from resnets.networks.checkpoints.foreign import load_checkpoint
from resnets.other_formats import other_archive, other_format


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message, of a wire type with a length (protobuf's encoding)."""
    key = number << 3 | 2
    head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return head + bytes([len(content)]) + content


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(40)  # the signature in HDF5's file format specification
TFLITE = b"\x1c\x00\x00\x00TFL3" + bytes(40)  # a FlatBuffer's root and TensorFlow Lite's identifier
SAVED_MODEL = b"\x08\x01" + field(2, bytes(range(90)))
CAFFE = field(1, b"ResNet-50") + field(100, b"layer")
CAFFE_V1 = field(1, b"AlexNet") + field(2, b"layer")
TENSORFLOW_INDEX = bytes(40) + (0xDB4775248B80FB57).to_bytes(8, "little")  # LevelDB's table magic


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (HDF5, "Keras"),
        (TFLITE, "TensorFlow Lite"),
        (SAVED_MODEL, "SavedModel"),
        (CAFFE, "Caffe"),
        (CAFFE_V1, "Caffe"),
        (TENSORFLOW_INDEX, "TensorFlow"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".h5"])
def test_a_file_is_called_what_it_is_whatever_its_ending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, word: str, ending: str
) -> None:
    file = tmp_path / f"model{ending}"
    file.write_bytes(content)
    for words in (["inspect", str(file)], ["convert", str(file), "--to", "timm"]):
        assert main(words) == 1
        assert word in capsys.readouterr().err
    assert main(["train", "digits", "--from", str(file), "--output", str(tmp_path / "run")]) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_predict_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, image = tmp_path / "model.h5", tmp_path / "a.png"
    file.write_bytes(HDF5)
    Image.new("RGB", (8, 8)).save(image)
    for words in (["predict", str(file), str(image)], ["evaluate", str(file), "digits"]):
        assert main(words) == 1
        assert "Keras" in capsys.readouterr().err


def test_onnx_files_under_other_names(tmp_path: Path) -> None:
    """One that this project writes, and one of onnx's own helpers."""
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [values],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(shipped.shipped().with_suffix(".onnx").read_bytes())
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ContentError, match="ONNX"):
            load_checkpoint(tmp_path / name)


def test_archives_of_other_frameworks(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", weight=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, b"{}")
    for name, word in (("arrays.npz", "NumPy"), ("model.keras", "Keras")):
        with pytest.raises(ContentError, match=word):
            load_checkpoint(tmp_path / name)


def test_what_torch_and_safetensors_write_is_nothing_else(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "new.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "new.pth", tmp_path / "old.pth", shipped.shipped()):
        content = path.read_bytes()
        assert not other_format(content[:512], content[-8:])
    with zipfile.ZipFile(tmp_path / "new.pth") as archive:
        assert not other_archive(archive.namelist())


@given(st.binary(max_size=40), st.binary(max_size=8))
def test_any_bytes_are_told_apart_without_an_error(head: bytes, tail: bytes) -> None:
    for start in (b"", b"\x08\x01\x12", b"\x08\x08\x12", b"\x0a", b"\x0a\x05"):
        assert isinstance(other_format(start + head, tail), str)
