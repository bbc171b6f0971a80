"""Formats of other frameworks, recognised by how a file begins, and what converts them."""

from collections.abc import Iterable

HEAD = 512  # bytes from which a format is told
ENDINGS = (".h5", ".hdf5", ".keras", ".tflite", ".pb", ".caffemodel", ".params", ".npz", ".gguf")

_VIA_ONNX = (
    "; then in Python with onnx2torch: torch.save(onnx2torch.convert('model.onnx').state_dict(), "
    "'weights.pth')"
)
_KERAS = f"`python -m tf2onnx.convert --keras FILE --output model.onnx`{_VIA_ONNX}"
_TENSORFLOW = (
    "`python -m tf2onnx.convert --saved-model FOLDER --output model.onnx` (of a checkpoint: "
    f"--checkpoint FILE.meta){_VIA_ONNX}"
)
_ONNX = (
    "`resnets convert` reads weights, not graphs: in Python with onnx2torch, torch.save(onnx2torch."
    "convert(FILE).state_dict(), 'weights.pth'); what `resnets export` wrote runs under its own "
    "name, *.onnx"
)
_BY_START: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)", _KERAS),
    (b"\x93NUMPY", "a NumPy array (.npy)", "save a dictionary of named tensors with torch.save"),
    (b"GGUF", "a GGUF file, of language models", "ask for a PyTorch or safetensors file"),
    (b"ptrt", "a TensorRT engine", "it cannot be converted back: ask for what it was made of"),
    (b"ftrt", "a TensorRT engine", "it cannot be converted back: ask for what it was made of"),
    (
        b"\x12\x01\x00\x00\x00\x00\x00\x00",
        "an MXNet file (.params)",
        f"export it to ONNX with MXNet's mxnet.onnx.export_model{_VIA_ONNX}",
    ),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "`git lfs pull` in its repository, or download the file",
    ),
    (b"<!DOCTYPE html", "a web page", "the download was not the file: look at it in a browser"),
    (b"<!doctype html", "a web page", "the download was not the file: look at it in a browser"),
    (b"<html", "a web page", "the download was not the file: look at it in a browser"),
)
_CAFFE = f"a Caffe file (.caffemodel): make an ONNX file of it with caffe2onnx{_VIA_ONNX}"
_LEVELDB = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # how an index of TensorFlow's checkpoints ends


def other_format(head: bytes, tail: bytes = b"") -> str:
    """What a file is and what converts it, in words; empty if nothing is known of it.

    Args:
        head: its first `HEAD` bytes, or all.
        tail: its last 8.

    >>> other_format(b"GGUF....")
    'a GGUF file, of language models: ask for a PyTorch or safetensors file'
    >>> other_format(b"")
    ''
    """
    for start, name, advice in _BY_START:
        if head.startswith(start):
            return f"{name}: {advice}"
    if head[4:8] == b"TFL3":
        command = f"`python -m tf2onnx.convert --tflite FILE --output model.onnx`{_VIA_ONNX}"
        return f"a TensorFlow Lite file (.tflite): {command}"
    if tail == _LEVELDB:
        return f"the index of a TensorFlow checkpoint: {_TENSORFLOW}"
    return _protobuf(head)


def other_archive(members: Iterable[str]) -> str:
    """The same for a zip file with members of these names."""
    names = set(members)
    if "model.weights.h5" in names:
        return f"a Keras file (.keras): {_KERAS}"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz): save a dictionary of named tensors with torch.save"
    return ""


def _protobuf(head: bytes) -> str:
    """The formats that are a protobuf message, by its first fields."""
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a"):
        if head[1] == 1 and not _is_text(head[3:]):  # saved_model_schema_version, then a graph
            return f"a TensorFlow SavedModel (.pb): {_TENSORFLOW}"
        if 3 <= head[1] <= 30:  # ir_version, then the producer's name or the graph
            return f"an ONNX file: {_ONNX}"
    if head[:1] == b"\x0a" and _is_text(head[1:]):  # the network's name, then its layers
        after = 2 + head[1]
        layers = head[after : after + 2]
        if layers == b"\xa2\x06" or layers[:1] == b"\x12":
            return _CAFFE
    return ""


def _is_text(field: bytes) -> bool:
    """Whether a field of a message, from its length on, is short printable ASCII."""
    length = field[0] if field else 0
    text = field[1 : 1 + length]
    return 0 < len(text) == length < 128 and all(31 < byte < 127 for byte in text)
