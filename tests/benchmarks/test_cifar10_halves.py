from pathlib import Path

import pyarrow
from pyarrow import parquet

from tests.in_process import call_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cifar10_halves.py"


def test_each_image_is_in_the_folder_of_its_half_and_split_and_class(tmp_path: Path) -> None:
    rows = [{"img": {"bytes": bytes([label])}, "label": label} for label in range(10)]
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    call_script(SCRIPT, tmp_path, tmp_path / "halves")
    files = [path for path in (tmp_path / "halves").rglob("*") if path.is_file()]
    places = {(*path.relative_to(tmp_path).parts[1:4], path.read_bytes()[0]) for path in files}
    assert (len(files), len(places)) == (30, 20)
    assert {("first", "train", "horse", 7), ("second", "test", "ship", 8)} <= places
    assert {half for half, _, name, _ in places if name in ("dog", "truck")} == {"first"}
