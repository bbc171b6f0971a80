"""The errors that a person meets: in the arguments, in a file, or a missing extra."""

import importlib
import warnings
from types import ModuleType


class UsageError(ValueError):
    """An argument that is not allowed. A command ends with exit code 2."""


class UnknownName(UsageError, TypeError):  # noqa: N818  (the error is that a name is unknown)
    """A keyword argument that there is not; Python itself raises TypeError then."""


class ContentError(ValueError):
    """A file or stream whose content cannot be used. A command ends with exit code 1."""


class RenamedWarning(FutureWarning):
    """Something was given by a name of an earlier version, which the next one will not know."""


class MissingExtra(ImportError):  # noqa: N818  (the error is that an extra is missing)
    """An optional dependency that is not installed; the message says how to get it."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name of the module.
        extra: the extra of this package that installs it.

    Raises:
        MissingExtra: if it is not installed.

    >>> require("json", "hub").__name__
    'json'
    >>> require("no_such_module", "hub")
    Traceback (most recent call last):
    resnets.errors.MissingExtra: no_such_module is not installed: pip install "resnets[hub]"
    """
    try:
        with warnings.catch_warnings():  # tqdm's, of a notebook without ipywidgets
            warnings.filterwarnings("ignore", "IProgress not found")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        name = module.split(".")[0]
        raise MissingExtra(f'{name} is not installed: pip install "resnets[{extra}]"') from None
