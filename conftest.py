import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def examples(doctest_namespace: dict[str, Any], tmp_path: Path) -> None:
    """Give the docstrings' examples a folder of their own and a PNG of 3 x 2 red pixels."""
    content = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(content, "PNG")
    doctest_namespace.update(tmp=tmp_path, png=content.getvalue())
