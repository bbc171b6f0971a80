"""Residual networks, exact to the papers: trained, evaluated, explained and exported.

What Python programs call is imported when it is first asked for, so that ``import resnets`` is
instant.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnets.api import calibrate, evaluate, explain, load, predict

__all__ = ["calibrate", "evaluate", "explain", "load", "predict"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from resnets import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
