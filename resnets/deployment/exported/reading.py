"""Reading exported files: their metadata, and refusal of files of other origin. No torch."""

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
from resnets.files.reading import open_input, read_input
from resnets.format import plural
from resnets.headers import parse_json
from resnets.integrity import DIGEST, KIND, verify
from resnets.model_file import Description, check_claims, read_description
from resnets.packing import BROKEN_ZIP, unpacked_limit, unpacked_member

_ENDINGS = (".onnx", ".xml", ".pt2")
DESCRIPTION = "resnets"  # the key of the description in OpenVINO's and torch's files
LARGEST = 2 << 30  # bytes; protobuf's own limit
_FLOAT = 4  # bytes


def is_exported(path: str | Path) -> bool:
    """Whether a file is an exported one, by its suffix."""
    return Path(path).suffix.lower() in _ENDINGS


def _is_from_resnets(header: Mapping[str, str]) -> bool:
    """Whether the metadata are those of a file that `resnets export` wrote."""
    return header.get("format", "").startswith("resnets/")


def description_from(header: Mapping[str, str], source: str) -> Description:
    """The description of the network in an exported file.

    Raises:
        ContentError: there is none, or its format is newer.
    """
    if not _is_from_resnets(header):
        raise ContentError(
            f"{source}: not exported by resnets: its metadata have no preprocessing and no "
            "classes (`resnets export MODEL` writes files that do)"
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
        why: the reason that the network is needed, as a clause.

    Raises:
        UsageError: it is exported.
    """
    if is_exported(path):
        raise UsageError(
            f"{path}: an exported file holds a graph for an engine, not the network, but {why}: "
            "give the model file that it was made from"
        )


def describe(path: str | Path) -> Description:
    """The description of the network in a model file or an exported file.

    Raises:
        OSError: it cannot be read.
        ContentError: it is neither, or is damaged.
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
    """The report of the export: agreement with PyTorch, and the images of the comparison."""
    try:
        report = parse_json(header.get("export", "{}"))
    except ContentError:
        return {}
    return report if isinstance(report, dict) else {}


def precision_of(header: Mapping[str, str]) -> str:
    """The precision in which an exported file computes: float32, fp16 or int8."""
    report = report_of(header)
    return next((name for name in ("int8", "fp16") if name in report), "float32")


def read_onnx(path: str | Path) -> tuple[bytes, dict[str, str]]:
    """The bytes of an ONNX file that passed the checks, and its metadata; see `measure_onnx`."""
    content, header, _ = measure_onnx(path)
    return content, header


def measure_onnx(path: str | Path) -> tuple[bytes, dict[str, str], int]:
    """The bytes of an ONNX file that passed the checks, its metadata, and its memory.

    Returns:
        The third is the memory that its graph takes for each image of a batch, in bytes; 0 if the
        file is not from `resnets export`.

    Raises:
        OSError: it cannot be read.
        ContentError: it is not an ONNX file, is cut off or damaged, or has content that
            `resnets export` does not write.
    """
    content = read_input(path, LARGEST)
    with _naming_the_file(path, "onnxruntime"):
        graph = onnx_check.read_graph(content)
        header = metadata_of(content)
    verify(content, header.get(DIGEST), path)
    if not _is_from_resnets(header):
        return content, header, 0
    preprocessing = description_from(header, str(path)).preprocessing
    with _naming_the_file(path, "onnxruntime"):
        values = onnx_check.check_cost(graph, preprocessing.resize, preprocessing.channels)
    return content, header, values * _FLOAT


def read_openvino(path: str | Path) -> tuple[bytes, bytes, dict[str, str]]:
    """The .xml and the .bin of an OpenVINO file that passed the checks, and its metadata."""
    text, weights, header, _ = measure_openvino(path)
    return text, weights, header


def measure_openvino(path: str | Path) -> tuple[bytes, bytes, dict[str, str], int]:
    """The same, and the memory that its graph takes for each image of a batch, in bytes.

    Raises:
        OSError: one of them cannot be read.
        ContentError: as for `measure_onnx`.
    """
    path = Path(path)
    content = read_input(path, openvino_check.LARGEST_TEXT)
    with _naming_the_file(path, "openvino"):
        network = openvino_check.read_network(content)
    weights = read_input(path.with_suffix(".bin"), LARGEST)
    header = _parse_header(network.description, str(path)) if network.description else {}
    verify(content, header.get(DIGEST), path, weights)
    preprocessing = description_from(header, str(path)).preprocessing
    with _naming_the_file(path, "openvino"):
        values = openvino_check.check_cost(
            network, weights, preprocessing.resize, preprocessing.channels
        )
    return network.text, weights, header, values * _FLOAT


@contextmanager
def _naming_the_file(path: str | Path, runtime: str) -> Iterator[None]:
    """Add to a ContentError the path, and how users who trust the file can run it."""
    try:
        yield
    except ContentError as error:
        raise ContentError(
            f"{path}: {error} (`resnets export` does not write such files, so it is not loaded; "
            f"if you trust it, run it with {runtime} directly)"
        ) from None


def read_torch(path: str | Path) -> dict[str, str]:
    """The metadata of a file of torch.export, from its ZIP archive.

    Raises:
        OSError: it cannot be read.
        ContentError: it is not such a file, or has no metadata.
    """
    with open_input(path, LARGEST) as file:
        header, digest = _read_archive(file, path)
    if header.get(DIGEST, digest) != digest:
        raise ContentError(f"{path}: damaged: its content does not match the digest in its header")
    return header


def _read_archive(file: BinaryIO, path: str | Path) -> tuple[dict[str, str], str]:
    """The metadata of an archive of torch.export, and the digest of the other members."""
    limit = unpacked_limit(os.fstat(file.fileno()).st_size)
    try:
        with zipfile.ZipFile(file) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(f"extra/{DESCRIPTION}")]
            text = unpacked_member(archive, members[0], limit).decode() if members else "{}"
            return _parse_header(text, str(path)), digest_of_members(archive, limit)
    except ContentError as error:
        raise ContentError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except BROKEN_ZIP:
        raise ContentError(f"{path}: not a file of torch.export, or cut off") from None


def digest_of_members(archive: zipfile.ZipFile, limit: int = LARGEST) -> str:
    """SHA-256 of the members of an archive of torch.export, without its metadata.

    Raises:
        ContentError: it unpacks to more than `limit` bytes.
    """
    total = hashlib.sha256()
    for name in sorted(archive.namelist()):
        part = name.partition("/")[2]
        # torch writes another .data/ each time
        if part != f"extra/{DESCRIPTION}" and not part.startswith(".data/"):
            content = unpacked_member(archive, archive.getinfo(name), limit)
            limit -= len(content)
            total.update(part.encode() + hashlib.sha256(content).digest())
    return KIND + total.hexdigest()


def _parse_header(text: str, source: str) -> dict[str, str]:
    """The metadata from their JSON text.

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
    """Check that the metadata describe the graph.

    Args:
        description: from the metadata.
        channels: of the graph's input; None if they are not fixed.
        classes: of the graph's output; None if they are not fixed.
        source: the file, for the message.

    Raises:
        ContentError: channels or classes differ.
    """
    described_classes = len(description.class_names)
    described_channels = description.preprocessing.channels
    if classes is not None and classes != described_classes:
        raise ContentError(
            f"{source}: the graph has {plural(classes, 'class')}, its metadata state "
            f"{described_classes}"
        )
    if channels is not None and channels != described_channels:
        raise ContentError(
            f"{source}: the graph takes {channels} channels, "
            f"its metadata state {described_channels}"
        )
