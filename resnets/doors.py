"""Lazy loading of a package's public names, so that torch is imported only when it is needed."""

import importlib
from collections.abc import Callable
from typing import Any


def loader(package: str, **names: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose modules are loaded when a name is first used.

    Args:
        package: its `__name__`.
        names: for each module, its public names separated by spaces.

    >>> load_name, list_names = loader("json", decoder="JSONDecoder")
    >>> load_name("JSONDecoder").__name__, list_names()
    ('JSONDecoder', ['JSONDecoder'])
    """
    modules = {name: module for module, public in names.items() for name in public.split()}

    def load_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return load_name, lambda: sorted(modules)
