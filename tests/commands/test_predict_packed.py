"""Images in others' tar and parquet files are predicted as single files are, without labels too."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.in_process import call
from tests.range_server import serving


@pytest.fixture(scope="module")
def model(untrained: Callable[..., Path]) -> Path:
    """An untrained network."""
    return untrained(("ant", "bee", "cat"))


@pytest.fixture
def photos(tmp_path: Path, draw_noise: Callable[..., None]) -> Path:
    """Three images, of which the second has no bytes."""
    folder = tmp_path / "photos"
    for number in range(3):
        draw_noise(folder / f"{number}.png", seed=number)
    (folder / "1.png").write_bytes(b"")
    return folder


def pack(photos: Path, folder: Path, ending: str, label: str | None) -> Path:
    """The images in one file, each with a label if there is one."""
    folder.mkdir()
    files = sorted(photos.glob("*.png"))
    if ending == ".parquet":
        columns: dict[str, list[Any]] = {"image": [file.read_bytes() for file in files]}
        labels = {} if label is None else {"label": [label] * len(files)}
        pq.write_table(pa.table(columns | labels), folder / "new.parquet")
        return folder / "new.parquet"
    with tarfile.open(folder / "new.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
            if label is not None:
                (folder / "cls").write_text(label, encoding="utf-8")
                tar.add(folder / "cls", f"{file.stem}.cls")
                (folder / "cls").unlink()
    return folder / "new.tar"


def rows(*words: str | Path) -> list[tuple[str, Any, str]]:
    """Status, probability and error of each image; the error without the name."""
    done = call("predict", *words, "--json")
    assert done.returncode == 1, done.stderr  # of the one without bytes
    return [
        (row["status"], row["probability"], str(row["error"]).rpartition(": ")[2])
        for row in json.loads(done.stdout)
    ]


@pytest.mark.parametrize("ending", [".tar", ".parquet"])
@pytest.mark.parametrize("label", [None, "0"])
def test_files_folders_patterns_and_addresses_are_predicted_alike(
    model: Path, photos: Path, tmp_path: Path, ending: str, label: str | None
) -> None:
    file = pack(photos, tmp_path / "packed", ending, label)
    expected = rows(model, photos)
    assert [row[0] for row in expected] == ["not calibrated", "unreadable", "not calibrated"]
    assert "0 bytes" in expected[1][2]
    (file.parent / "README.md").write_text("about", encoding="utf-8")
    for word in (file, file.parent, file.parent / f"*{ending}", tmp_path / f"p*/**/*{ending}"):
        assert rows(model, word) == expected
    with serving(file.parent) as server:
        assert rows(model, f"{server.address}/{file.name}") == expected


def test_images_beside_a_packed_file_are_what_a_folder_holds(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    pack(photos, tmp_path / "packed", ".tar", None).rename(photos / "backup.tar")
    assert len(rows(model, photos)) == 3
    assert len(rows(model, photos / "*")) == 6


def test_predictions_hold_no_images(model: Path, photos: Path, tmp_path: Path) -> None:
    written = tmp_path / "out" / "predictions.parquet"
    written.parent.mkdir()
    call("predict", model, photos, "--parquet", written)
    assert "no column of encoded images" in call("predict", model, written.parent).stderr
    assert len(rows(model, written)) == 1


def test_a_folder_says_what_its_files_are_where_none_can_be_read(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    for word, content in (("new.tar", bytes(10240)), ("new.tar.gz", b"\x1f\x8b"), ("a.tgz", b"")):
        folder = tmp_path / word.replace(".", "-")
        folder.mkdir()
        (folder / word).write_bytes(content)
        meant = f"no samples with an image in '{word}'" if word == "new.tar" else "a compressed tar"
        for done in (call("predict", model, folder), call("doctor", folder)):
            text = done.stdout + done.stderr
            assert meant in text
            assert "empty folder" not in text
            assert "not an image by its name" not in text


def test_damaged_files_at_an_address_are_named_by_it(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    for ending in (".tar", ".parquet"):
        file = pack(photos, tmp_path / f"packed{ending}", ending, "0")
        file.write_bytes(file.read_bytes()[:-1600])
        with serving(file.parent) as server:
            address = f"{server.address}/{file.name}"
            for done in (call("predict", model, address), call("doctor", address)):
                text = done.stdout + done.stderr
                assert f"{address}: " in text
                assert "copies" not in text
                assert "download" not in text
    pack(photos, tmp_path / "bare", ".parquet", None)
    with serving(tmp_path / "bare") as server:
        done = call("doctor", f"{server.address}/new.parquet")
        assert f"{server.address}/new.parquet: no column of labels" in done.stdout + done.stderr
