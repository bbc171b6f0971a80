"""Of many like cases, some for `make test`; the others are for `make soak`."""

from collections.abc import Iterable
from typing import Any

import pytest


def spread(cases: Iterable[Any], every: int = 4) -> list[Any]:
    """Cases for `parametrize`, of which each `every`-th is for `make test`, from the first on."""
    return [case if number % every == 0 else _for_soak(case) for number, case in enumerate(cases)]


def _for_soak(case: Any) -> Any:
    values = case if type(case) is tuple else (case,)
    return pytest.param(*values, marks=pytest.mark.soak)
