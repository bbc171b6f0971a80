"""What a package shows at its door, loaded on use: torch comes with what needs it."""

import importlib
from collections.abc import Callable
from typing import Any


def loader(package: str, **names: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose public names are in its modules.

    Args:
        package: its `__name__`.
        names: of each module, its public names, separated by spaces.

    >>> loader("json", decoder="JSONDecoder")("JSONDecoder").__name__
    'JSONDecoder'
    """
    homes = {name: module for module, listed in names.items() for name in listed.split()}

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return getattribute
