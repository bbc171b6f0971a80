"""Of many like cases, some for `make test`; the others are for `make soak`."""

from collections.abc import Iterable
from typing import Any

import pytest


def spread(cases: Iterable[Any], every: int = 4, one_value: bool = False) -> list[Any]:
    """Cases for `parametrize`, of which each `every`-th is for `make test`, from the first on.

    Args:
        cases: values, tuples of several values, or what `pytest.param` makes.
        every: how many cases there are for one of `make test`.
        one_value: whether a tuple is the value of one argument.
    """
    return [
        case if number % every == 0 else _for_soak(case, one_value)
        for number, case in enumerate(cases)
    ]


def _for_soak(case: Any, one_value: bool) -> Any:
    if type(case) is type(pytest.param()):
        marks = (*case.marks, pytest.mark.soak)
        return pytest.param(*case.values, marks=marks, id=case.id)
    values = case if isinstance(case, tuple) and not one_value else (case,)
    return pytest.param(*values, marks=pytest.mark.soak)
