"""JSON that every reader takes: checked with a strict parser, over every place that writes any."""

import ast
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from resnets.json_text import to_json
from resnets.runs.loggers import JsonLines

PACKAGE = Path(__file__).parents[1] / "resnets"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


def strict(text: str) -> Any:
    """Parsed as RFC 8259 has it: Python's own parser takes NaN, others do not."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def without_nan(value: Any) -> Any:
    """What a strict reader should find."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    return value


@given(value=values)
def test_strict_readers_find_what_was_written_and_null_for_what_is_no_number(value: Any) -> None:
    assert strict(to_json(value)) == without_nan(value)


def test_numbers_of_numpy_that_are_not_finite_become_null_too() -> None:
    assert strict(to_json({"loss": np.float64("nan"), "more": [np.float64("-inf")]})) == {
        "loss": None,
        "more": [None],
    }


def test_a_log_never_holds_nan(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.write({"kind": "epoch", "step": 1, "validation": {"loss": math.nan}})
    log.close()
    assert strict((tmp_path / "log.jsonl").read_text(encoding="utf-8"))["validation"] == {
        "loss": None
    }


def test_no_module_writes_json_by_itself() -> None:
    for module in sorted(PACKAGE.rglob("*.py")):
        if module.name == "json_text.py":
            continue
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("json", "dumps"), ("json", "dump")}, (
                    f"{module}, line {node.lineno}: use resnets.json_text.to_json"
                )
