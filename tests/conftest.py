import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RESNETS_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a file or folder of the shared data, or a skip that says what is missing."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{name} is not in the shared data folder ({SHARED}; set RESNETS_SHARED)")
        return path

    return find
