"""The table of scores for images of other things, and the recipe for other programs."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnets.errors import ContentError
from resnets.evaluation.familiarity import class_directions, fit_familiarity

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    """The scripts can be imported, as they import each other."""
    sys.path.insert(0, str(RESULTS))
    yield
    sys.path.remove(str(RESULTS))


def test_the_table_says_what_the_log_says_and_the_score_in_use_is_as_good_as_any() -> None:
    """Read here with nothing of the project's."""
    cases = json.loads((RESULTS / "unfamiliar.json").read_text(encoding="utf-8"))["cases"]
    pairs = [pair["scores"] for case in cases for pair in case["pairs"]]
    assert len(pairs) >= 3
    means = {name: np.mean([pair[name]["auroc"] for pair in pairs]) for name in pairs[0]}
    passed = np.mean([pair["cosine"]["fpr95"] for pair in pairs])
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| **cosine** |"))
    assert f"| {means['cosine']:.3f} |" in row
    assert f"| {100 * passed:.1f} % |" in row
    for name in ("probability", "largest logit", "energy", "Mahalanobis", "ViM"):
        assert means["cosine"] > means[name]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cases": [{"pairs": [{"scores": {"cosine": {}}}]}]}']
)
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "unfamiliar.json").write_text(text, encoding="utf-8")
    with pytest.raises(ContentError, match=r"not what benchmarks/unfamiliar\.py writes"):
        importlib.import_module("unfamiliar").read_pairs(tmp_path)
    assert importlib.import_module("unfamiliar").read_pairs(tmp_path / "nowhere") is None


def test_the_program_in_the_docs_computes_what_the_package_computes() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 6)).astype(np.float32)
    features[7] = 0
    directions = class_directions(features[:20], np.arange(20) % 2)
    known = fit_familiarity(directions, features[20:])
    metadata = {
        "familiarity": json.dumps(known.to_dict()),
        "calibration": json.dumps({"threshold": 0.7}),
    }
    probabilities = random.dirichlet([0.3, 0.3], 40)
    text = (ROOT / "docs" / "other-things.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {
        "metadata": metadata, "features": features, "probabilities": probabilities
    }  # fmt: skip
    exec(program, names)
    np.testing.assert_array_equal(names["unfamiliar"], ~known.familiar(features))
    np.testing.assert_array_equal(names["unsure"], probabilities.max(1) < 0.7)
