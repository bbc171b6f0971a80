"""Lazy loading of a package's public names, so that torch is imported only when it is needed."""

import importlib
from collections.abc import Callable
from typing import Any


def loader(package: str, **names: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package that loads its public names from its modules on first use.

    Args:
        package: its `__name__`.
        names: for each module, its public names separated by spaces.

    >>> loader("json", decoder="JSONDecoder")("JSONDecoder").__name__
    'JSONDecoder'
    """
    modules = {name: module for module, public in names.items() for name in public.split()}

    def load_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return load_name
