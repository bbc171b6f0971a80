"""The parser of a command's flags, which tyro makes from a dataclass or a function."""

import argparse
import warnings
from collections.abc import Callable
from typing import Any, cast

import tyro


def parser_of(target: Callable[..., Any], **options: Any) -> argparse.ArgumentParser:
    """The parser of a dataclass's or function's flags; options as for ``tyro.cli``."""
    with warnings.catch_warnings():  # deprecated, but without a successor: docs/decisions.md
        warnings.simplefilter("ignore", DeprecationWarning)
        parser: Any = tyro.extras.get_parser(target, **options)
    return cast("argparse.ArgumentParser", parser)
