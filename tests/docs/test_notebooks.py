"""The notebooks run from top to bottom."""

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> list[int]:
    """How many each cell shows."""
    return [
        sum("image/png" in output.get("data", {}) for output in cell.outputs)
        for cell in cells(notebook)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, id=path.stem, marks=[pytest.mark.soak] * (path.stem in ("train", "explain"))
        )
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs_and_shows_what_is_kept_in_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kept = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    for cell in cells(notebook):
        cell.outputs = []
        cell.source = cell.source.replace('"resnet14",', '"resnet14", image_size=8,')
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, resources=where, timeout=300).execute()
    assert pictures(notebook) == pictures(kept)
    assert sum(pictures(notebook)) > 0
    shown = [o.get("text", "") for c in cells(notebook) for o in c.outputs if o.get("name")]
    assert not any("Traceback" in text or "Warning" in text for text in shown)
    assert list(tmp_path.iterdir()) == []  # nothing is written
