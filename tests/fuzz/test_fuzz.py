"""Damaged files are read or refused with a message: what was found before, and fixed examples.

`make fuzz` looks for more.
"""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.run import CORPUS
from tests.fuzz.targets import TARGETS, valid

FOUND = sorted(CORPUS.glob("*/*"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_before_is_read_or_refused(path: Path, tmp_path: Path) -> None:
    TARGETS[path.parent.name].outcome(path.read_bytes(), tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    outcomes = set()
    for number, content in enumerate(valid(TARGETS[name])):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes.add(TARGETS[name].outcome(content, folder).partition(":")[0])
    assert "read" in outcomes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcomes = set()

    @settings(max_examples=20)
    @given(st.integers(0, 1 << 32))
    def one(seed: int) -> None:
        folder = tmp_path_factory.mktemp("damaged")
        content = TARGETS[name].case(Random(seed))
        outcomes.add(TARGETS[name].outcome(content, folder).partition(":")[0])

    one()
    assert outcomes <= {"read", "refused"}
    assert "refused" in outcomes or name == "index"  # a damaged index is as good as empty
