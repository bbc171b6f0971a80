"""The archives are made as CIFAR's authors made theirs: pickled by Python 2, protocol 2."""

import io
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.data.sources.archives import read_cifar
from resnets.data.sources.opening import open_data, read_source
from resnets.errors import ContentError, UsageError

ROWS = 20


def python2(value: Any) -> bytes:
    """The instructions by which Python 2's cPickle writes a value with protocol 2."""
    match value:
        case dict():
            items = b"".join(python2(key) + python2(item) for key, item in value.items())
            return b"}(" + items + b"u"
        case list():
            return b"](" + b"".join(map(python2, value)) + b"e"
        case str() if len(value) < 256:
            return b"U" + bytes([len(value)]) + value.encode()
        case int():
            return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
        case np.ndarray():
            raw = value.tobytes()
            return (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
                b"(K\x01" + b"".join(map(python2, value.shape)) + b"\x86"
                b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
                b"J\xff\xff\xff\xffK\x00tb\x89" + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
            )
    raise TypeError(type(value))


def dumps(value: Any) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def pixels(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(ROWS, 32, 32, 3)"""
    return np.random.default_rng(seed).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8)


def batch(seed: int, **labels: list[int]) -> dict[str, Any]:
    rows = pixels(seed).transpose(0, 3, 1, 2).reshape(ROWS, 3072)
    names = [f"leptodactylus_s_{number:06}.png" for number in range(ROWS)]
    return {"batch_label": f"batch {seed}", **labels, "data": rows, "filenames": names}


def cifar10() -> dict[str, Any]:
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    labels = [number % 10 for number in range(ROWS)]
    words = [f"class {letter}" for letter in "abcdefghij"]
    meta = {"num_cases_per_batch": 10000, "label_names": words, "num_vis": 3072}
    return {"batches.meta": meta} | {n: batch(s, labels=labels) for s, n in enumerate(names)}


def cifar100() -> dict[str, Any]:
    fine, coarse = [number * 5 for number in range(ROWS)], list(range(ROWS))
    meta = {
        "fine_label_names": [f"fine {number}" for number in range(100)],
        "coarse_label_names": [f"coarse {number}" for number in range(20)],
    }
    return {
        "train": batch(0, fine_labels=fine, coarse_labels=coarse),
        "test": batch(1, fine_labels=fine, coarse_labels=coarse),
        "meta": meta,
    }


def archive(path: Path, inside: str, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"{inside}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def cifar10_files() -> dict[str, bytes]:
    return {name: dumps(content) for name, content in cifar10().items()}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """A CIFAR-10 archive of these files."""
    return lambda files: archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)


def test_the_archive_of_cifar_10_is_read_pixel_by_pixel(
    make: Callable[..., Path], cifar10_files: dict[str, bytes]
) -> None:
    content = read_cifar(make(cifar10_files | {"readme.html": b"<html>"}))
    assert content.class_names == tuple(f"class {letter}" for letter in "abcdefghij")
    train, test = content.images["train"], content.images["test"]
    np.testing.assert_array_equal(train.stacked(), np.concatenate([pixels(s) for s in range(5)]))
    np.testing.assert_array_equal(test.stacked(), pixels(5))
    assert train.labels.tolist() == [number % 10 for number in range(ROWS)] * 5
    assert train.names[ROWS] == "data_batch_2[0]"


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py/"])
def test_unpacked_it_is_the_same_data(
    make: Callable[..., Path], cifar10_files: dict[str, bytes], tmp_path: Path, inside: str
) -> None:
    whole = open_data(make(cifar10_files))
    for name, data in cifar10_files.items():
        file = tmp_path / "unpacked" / inside / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    assert open_data(tmp_path / "unpacked").fingerprint == whole.fingerprint


def test_cifar_100_has_its_fine_classes(tmp_path: Path) -> None:
    files = {name: dumps(content) for name, content in cifar100().items()}
    splits = open_data(archive(tmp_path / "cifar-100-python.tgz", "cifar-100-python", files))
    assert len(splits.class_names) == 100
    assert splits.train.labels.max() == 95
    assert splits.warnings[0].startswith("no images of 'fine 1', 'fine 2'")


def test_a_missing_batch_is_named(
    make: Callable[..., Path], cifar10_files: dict[str, bytes]
) -> None:
    del cifar10_files["data_batch_3"]
    with pytest.raises(ContentError, match="data_batch_3 is missing; download it again"):
        read_cifar(make(cifar10_files))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [10] * ROWS}, r"data_batch_2: labels are not all in 0..9"),
        ({"labels": [0] * 3}, f"data_batch_2 holds no list labels of {ROWS} labels"),
        ({"labels": ["cat"] * ROWS}, r"labels are not all in 0..9"),
        ({"data": [1, 2]}, r"data_batch_2 holds no array data \(N, 3072\) of bytes"),
        ({"data": np.zeros((ROWS, 1024), np.uint8)}, r"holds no array data \(N, 3072\)"),
    ],
)
def test_content_that_does_not_fit_is_refused(
    make: Callable[..., Path],
    cifar10_files: dict[str, bytes],
    change: dict[str, Any],
    message: str,
) -> None:
    cifar10_files["data_batch_2"] = dumps(cifar10()["data_batch_2"] | change)
    with pytest.raises(ContentError, match=message):
        read_cifar(make(cifar10_files))


def test_an_archive_with_a_program_for_a_batch_is_refused_and_it_does_not_run(
    make: Callable[..., Path], cifar10_files: dict[str, bytes], tmp_path: Path
) -> None:
    ran = tmp_path / "it-ran"
    cifar10_files["test_batch"] = f"cos\nsystem\n(S'touch {ran}'\ntR.".encode()
    with pytest.raises(ContentError, match=r"test_batch names os\.system, which is neither"):
        read_cifar(make(cifar10_files))
    assert not ran.exists()


def test_a_download_that_broke_off_is_refused(
    make: Callable[..., Path], cifar10_files: dict[str, bytes]
) -> None:
    path = make(cifar10_files)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(ContentError, match="a broken archive"):
        read_cifar(path)


def test_another_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "photos.tar.gz", "photos", {"cat.jpg": b"\xff\xd8\xff"})
    with pytest.raises(ContentError, match="for other images unpack the archive"):
        read_source(path)


def test_a_file_that_is_no_source_by_its_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.rar"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="no source of labelled images by its name; data is"):
        read_source(path)
