"""Reading exported files: what they say of themselves, and refusing what is not ours. No torch."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from resnets.deployment.exported import onnx_check, openvino_check
from resnets.deployment.exported.protobuf import metadata_of
from resnets.errors import ContentError, UsageError
from resnets.evaluation.calibration import Calibration
from resnets.fields import from_item
from resnets.files import open_input, read_input
from resnets.headers import parse_json
from resnets.integrity import DIGEST, KIND, verify
from resnets.model_file import Description, check_claims, read_description
from resnets.packing import BROKEN_ZIP, unpacked_limit, unpacked_member

_ENDINGS = (".onnx", ".xml", ".pt2")
DESCRIPTION = "resnets"  # where OpenVINO's and torch's files keep the description
LARGEST = 2 << 30  # bytes; protobuf's own limit


def is_exported(path: str | Path) -> bool:
    """Whether a file is to be run by an engine, by its ending."""
    return Path(path).suffix.lower() in _ENDINGS


def _is_ours(header: Mapping[str, str]) -> bool:
    """Whether the metadata are those of a file that `resnets export` wrote."""
    return header.get("format", "").startswith("resnets/")


def description_from(header: Mapping[str, str], source: str) -> Description:
    """What an exported file says of its network.

    Raises:
        ContentError: it says nothing, or is of a newer format.
    """
    if not _is_ours(header):
        raise ContentError(
            f"{source}: not exported by resnets: its metadata do not say how images are prepared "
            "and what the classes are (`resnets export MODEL` writes files that do)"
        )
    description = Description.from_header(header, source)
    check_claims(description, source)
    try:
        if description.calibration:
            Calibration.from_dict(description.calibration)
    except ContentError as error:
        raise ContentError(f"{source}: {error}") from None
    return description


def refuse_exported(path: str | Path, why: str) -> None:
    """Refuse an exported file where the network itself is needed.

    Args:
        path: of any file.
        why: what is done with the network, as a sentence without its end.

    Raises:
        UsageError: it is exported.
    """
    if is_exported(path):
        raise UsageError(
            f"{path}: an exported file holds a graph for an engine, not the network, but {why}: "
            "give the model file that it was made from"
        )


def describe(path: str | Path) -> Description:
    """What a model file or an exported file says of its network.

    Raises:
        OSError: it cannot be read.
        ContentError: it is neither, or damaged.
    """
    readers: dict[str, Callable[[str | Path], dict[str, str]]] = {
        ".onnx": lambda file: read_onnx(file)[1],
        ".xml": lambda file: read_openvino(file)[2],
        ".pt2": read_torch,
    }
    if not is_exported(path):
        return read_description(path)
    return description_from(readers[Path(path).suffix.lower()](path), str(path))


def report_of(header: Mapping[str, str]) -> dict[str, Any]:
    """What the file says of its export: how near it is to PyTorch, and on which images."""
    try:
        report = parse_json(header.get("export", "{}"))
    except ContentError:
        return {}
    return report if isinstance(report, dict) else {}


def precision_of(header: Mapping[str, str]) -> str:
    """In what an exported file computes: float32, fp16 or int8."""
    report = report_of(header)
    return next((name for name in ("int8", "fp16") if name in report), "float32")


def read_onnx(path: str | Path) -> tuple[bytes, dict[str, str]]:
    """The bytes of an ONNX file, found harmless, and its metadata.

    Raises:
        OSError: it cannot be read.
        ContentError: it is none, is cut off or damaged, or holds what `resnets export` does not
            write.
    """
    content = read_input(path, LARGEST)
    with _refusing(path, "onnxruntime"):
        graph = onnx_check.read_graph(content)
        header = metadata_of(content)
    verify(content, header.get(DIGEST), path)
    if _is_ours(header):
        seen = description_from(header, str(path)).preprocessing
        with _refusing(path, "onnxruntime"):
            onnx_check.refuse_hungry(graph, seen.resize, seen.channels)
    return content, header


def read_openvino(path: str | Path) -> tuple[bytes, bytes, dict[str, str]]:
    """The .xml and the .bin of an OpenVINO file, found harmless, and its metadata.

    Raises:
        OSError: one of them cannot be read.
        ContentError: as for `read_onnx`.
    """
    path = Path(path)
    content = read_input(path, openvino_check.LARGEST_TEXT)
    with _refusing(path, "openvino"):
        network = openvino_check.read_network(content)
    weights = read_input(path.with_suffix(".bin"), LARGEST)
    header = _header_from(network.description, str(path)) if network.description else {}
    verify(content, header.get(DIGEST), path, weights)
    seen = description_from(header, str(path)).preprocessing
    with _refusing(path, "openvino"):
        openvino_check.refuse_hungry(network, weights, seen.resize, seen.channels)
    return network.text, weights, header


@contextmanager
def _refusing(path: str | Path, runtime: str) -> Iterator[None]:
    """Say of what is refused which file it is, and what is left to those who trust it."""
    try:
        yield
    except ContentError as error:
        raise ContentError(
            f"{path}: {error} (not as `resnets export` writes files, so it is not loaded; whoever "
            f"trusts it can run it with {runtime} itself)"
        ) from None


def read_torch(path: str | Path) -> dict[str, str]:
    """The metadata of a file of torch.export, from its ZIP archive.

    Raises:
        OSError: it cannot be read.
        ContentError: it is none, or holds no metadata.
    """
    with open_input(path, LARGEST) as file:
        header, found = _read_archive(file, path)
    if header.get(DIGEST, found) != found:
        raise ContentError(f"{path}: damaged: its content does not match the digest in its header")
    return header


def _read_archive(file: BinaryIO, path: str | Path) -> tuple[dict[str, str], str]:
    """The metadata of an archive of torch.export, and the digest of the rest."""
    left = unpacked_limit(os.fstat(file.fileno()).st_size)
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(f"extra/{DESCRIPTION}")]
            text = unpacked_member(archive, members[0], left).decode() if members else "{}"
            return _header_from(text, str(path)), digest_of_members(archive, left)
    except ContentError as error:
        raise ContentError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except BROKEN_ZIP:
        raise ContentError(f"{path}: not a file of torch.export, or cut off") from None


def digest_of_members(archive: zipfile.ZipFile, limit: int = LARGEST) -> str:
    """SHA-256 of what an archive of torch.export holds besides what it says of itself.

    Raises:
        ContentError: it unpacks to more than `limit` bytes.
    """
    found = hashlib.sha256()
    for name in sorted(archive.namelist()):
        part = name.partition("/")[2]
        if part != f"extra/{DESCRIPTION}" and not part.startswith(".data/"):  # made anew each time
            content = unpacked_member(archive, archive.getinfo(name), limit)
            limit -= len(content)
            found.update(part.encode() + hashlib.sha256(content).digest())
    return KIND + found.hexdigest()


def _header_from(text: str, source: str) -> dict[str, str]:
    """The metadata from their JSON.

    Raises:
        ContentError: it is damaged.
    """
    try:
        header: dict[str, str] = from_item(dict[str, str], parse_json(text), "metadata")
        return header
    except ContentError as error:
        raise ContentError(f"{source}: its metadata are damaged: {error}") from None


def check_outputs(
    description: Description, channels: int | None, classes: int | None, source: str
) -> None:
    """Refuse a graph whose metadata describe another.

    Args:
        description: what the metadata say.
        channels: that the graph takes; None if it does not tell.
        classes: that the graph gives; likewise.
        source: the file.
    """
    names, wanted = len(description.class_names), description.preprocessing.channels
    if classes is not None and classes != names:
        raise ContentError(f"{source}: the graph has {classes} classes, its metadata name {names}")
    if channels is not None and channels != wanted:
        raise ContentError(
            f"{source}: the graph takes {channels} channels, its metadata say {wanted}"
        )
