import json
import runpy
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "transfer.py"


@pytest.mark.soak
def test_each_way_and_seed_is_a_row_and_what_is_there_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "transfer.json"
    words = ["digits", "--name", "digits", "--start", "resnet14_cifar10", "--size", "8"]
    words += ["--per-class", "2", "--seeds", "1", "--changes", '{"epochs": 1}']
    for ways in ("frozen", "frozen,transfer"):
        call_script(SCRIPT, *words, "--ways", ways, "--json-file", file)
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert [run["way"] for run in runs] == ["frozen", "transfer"]
    assert all(run["images"] == 20 and run["validation"][1] == 500 for run in runs)


def test_test_images_of_a_subset_are_those_of_the_folder_test(tmp_path: Path) -> None:
    for split, count in {"train": 9, "test": 7}.items():
        (tmp_path / split / "cat").mkdir(parents=True)
        for number in range(count):
            (tmp_path / split / "cat" / f"{split}-{number}.png").touch()
    names = runpy.run_path(str(SCRIPT))
    trial = names["Trial"](str(tmp_path), "cats", per_class=4, measured=3)
    chosen = Path(names["data_of"](trial, 0, tmp_path / "subset"))
    drawn = {each.name: [*each.rglob("*.png")] for each in chosen.iterdir()}
    assert {name: len(files) for name, files in drawn.items()} == {"train": 4, "val": 3, "test": 3}
    assert all(file.name.startswith("test") for file in drawn["test"])
    assert len({file.name for file in drawn["train"] + drawn["val"]}) == 7


def test_images_in_parquet_files_are_drawn_like_those_of_folders(tmp_path: Path) -> None:
    columns = {
        "image": [{"bytes": bytes([number])} for number in range(24)],
        "label": [number % 2 for number in range(24)],
    }
    for name, rows in {
        "train-0": slice(14),
        "train-1": slice(14, 24),
        "validation-0": slice(9),
    }.items():
        part = {column: values[rows] for column, values in columns.items()}
        parquet.write_table(pyarrow.table(part), tmp_path / f"{name}.parquet")
    names = runpy.run_path(str(SCRIPT))
    trial = names["Trial"](str(tmp_path), "bytes", per_class=6, measured=3)
    chosen = Path(names["data_of"](trial, 0, tmp_path / "subset"))
    drawn = [each for each in chosen.rglob("*") if each.is_file()]
    assert sorted(each.read_bytes()[0] for each in drawn) == list(range(24))
    assert all(each.read_bytes()[0] % 2 == int(each.parent.name) for each in drawn)
