"""No module but those of `resnets.files` opens a file: what others would open may never end."""

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnets import cli

PACKAGE = Path(__file__).parents[1] / "resnets"
OPENING = {
    *("open", "read_bytes", "read_text", "write_bytes", "write_text", "fdopen", "mkstemp"),
    *("load_file", "safe_open", "save_file", "memory_map", "fromfile", "memmap", "TarFile"),
    *("ZipFile", "GzipFile", "FileIO", "NamedTemporaryFile", "savefig", "tomllib.load"),
    *("read_schema", "read_table", "read_metadata", "ParquetFile", "read_csv", "copyfile"),
}
ALLOWED = {  # what is handed over here is no path that somebody names: why
    "files/reading.py": {"open", "fdopen"},  # what the others use
    "files/writing.py": {"open", "fdopen"},
    "files/outputs.py": {"open"},  # a regular file, before it is replaced
    "cli.py": {"open"},  # the null device
    "commands/demo.py": {"open"},  # the page in a browser
    "commands/prediction_output.py": {"FileIO"},  # of a descriptor
    "images/stderr.py": {"open", "fdopen"},  # the null device and a descriptor
    "deployment/bench/runtimes.py": {"fdopen"},  # of a descriptor
    "serving/workers.py": {"open"},  # the null device
    "locks.py": {"open"},  # the file of a lock
    "training/shared_pixels.py": {"open"},  # memory of another process
    "networks/checkpoints/weights_file.py": {"open", "ZipFile", "GzipFile"},  # bytes and members
    "networks/checkpoints/torch_file.py": {"ZipFile"},  # bytes
    "packing.py": {"open"},  # a member of an archive
    "images/opening.py": {"open"},  # bytes
    "images/jpeg.py": {"open"},  # bytes
    "data/sources/archives.py": {"open", "GzipFile"},  # an open file
    "deployment/export/files.py": {"ZipFile"},  # a file that it has just written
    "data/sources/idx.py": {"GzipFile"},  # an open file
    "data/sources/hub.py": {"urlopen"},
    "data/sources/parquet.py": {
        "read_schema",
        "read_table",
        "read_metadata",
        "ParquetFile",
    },  # regular()
    "data/sources/row_groups.py": {"read_metadata", "ParquetFile"},  # bytes, a remote file
    "evaluation/parts.py": {"ParquetFile"},  # regular()
    "data/sources/webdataset.py": {"open", "read_table"},  # an open file, and memory
    "data/storage.py": {"memory_map"},  # regular()
    "data/shards.py": {"memory_map", "ParquetFile", "read_schema"},  # regular(), memory
    "data/sharding.py": {"write_bytes"},  # of a folder in data/places.py
    "data/remote/lock.py": {"write_bytes"},  # of a folder in a bucket
    "data/skipped_images.py": {"write_bytes"},  # of a folder in data/places.py
    "model_file.py": {"load_file"},  # regular()
    "deployment/exported/reading.py": {"ZipFile"},  # an open file
    "deployment/exported/interface.py": {"ZipFile"},  # an open file
    "networks/checkpoints/hub_folder.py": {"read_table"},  # through resnets.files
    "pretrained/torchvision.py": {"open"},  # what it downloads, in torch's cache
    "evaluation/report/charts.py": {"savefig"},  # memory
    "evaluation/report/curves.py": {"savefig"},  # memory
    "training/lr_finder.py": {"savefig"},  # an open file
    "deployment/bench/figures.py": {"savefig"},  # an open file
}
PATHS = sorted(PACKAGE.rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """The line and name of each function that a module calls, but for this package's own."""
    tree = ast.parse(path.read_text("utf-8"))
    own = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("resnets")
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") not in own:
            yield node.lineno, getattr(node.func, "attr", getattr(node.func, "id", ""))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_opens_no_file_by_itself(path: Path) -> None:
    allowed = ALLOWED.get(path.relative_to(PACKAGE).as_posix(), set())
    findings = [(line, name) for line, name in calls(path) if name in OPENING - allowed]
    assert not findings, f"{path.name}: use resnets.files for {findings}"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two class folders with a picture each, a pipe and a link to /dev/zero beside them."""
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for number in range(3):
            noise = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
            noise[0, 0] = 10 * number + len(list(tmp_path.iterdir()))
            Image.fromarray(noise).save(tmp_path / label / f"{number}.png")
    os.mkfifo(tmp_path / "ant/pipe.png")
    (tmp_path / "ant/pipe_without_ending").symlink_to("pipe.png")
    (tmp_path / "bee/zero.png").symlink_to("/dev/zero")
    (tmp_path / "bee/zero").symlink_to("/dev/zero")
    return tmp_path


@pytest.mark.parametrize("name", ["pipe.csv", "zero.csv", "zero.parquet", "pipe.tar.gz"])
def test_data_that_is_no_regular_file_is_one_clear_error(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "pipe" in name:
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    assert cli.main(["doctor", str(tmp_path / name)]) == 1
    assert "not a file but a" in "".join(capsys.readouterr())


def test_rows_of_a_table_that_are_no_files_are_unreadable_images(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{label}/{number}.png,{label}" for label in ("ant", "bee") for number in range(3)]
    rows += ["/dev/zero,ant", "ant/pipe.png,ant", "bee/zero.png,bee", "ant,bee"]
    (pictures / "table.csv").write_text("path,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert cli.main(["doctor", str(pictures / "table.csv")]) == 1
    text = capsys.readouterr().out
    assert "4 images cannot be read" in text
    assert text.count("not a file but a") == 3  # the first three are named


def test_a_folder_with_devices_and_pipes_is_examined_without_waiting(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", str(pictures)]) == 1
    assert "not a file but a device" in capsys.readouterr().out


def test_other_inputs_that_are_no_regular_files_are_refused(
    tmp_path: Path, untrained: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        odd = str(tmp_path / name)
        assert cli.main(["inspect", odd]) in (1, 2)
        assert cli.main(["convert", odd, "--to", "torchvision"]) in (1, 2)
        assert cli.main(["show", odd + "."]) in (1, 2)
        assert cli.main(["predict", odd]) == 1
        assert cli.main(["train", "digits", "--recipe", odd]) in (1, 2)
    capsys.readouterr()
