from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def tmp(doctest_namespace: dict[str, Any], tmp_path: Path) -> None:
    """Give the docstrings' examples a folder of their own."""
    doctest_namespace["tmp"] = tmp_path
