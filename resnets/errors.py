"""Errors for users: in arguments, in a file, or a missing extra."""

import importlib
import warnings
from types import ModuleType


class UsageError(ValueError):
    """An argument is not allowed. A command ends with exit code 2."""


class Advice(str):
    """A note of an error that tells what to do: the command line prints it below the error."""

    __slots__ = ()


class WrongSetting(UsageError):  # noqa: N818  (the error is that the setting is wrong)
    """A setting has a value that is not allowed.

    Attributes:
        at_command_line: the message in the words of the command line, where the setting is a flag.
    """

    def __init__(self, text: str, at_command_line: str = "") -> None:
        super().__init__(text)
        self.at_command_line = at_command_line or text


class FolderInUse(UsageError):  # noqa: N818  (the error is that it is in use)
    """Another process works in the folder. A command ends with exit code 2."""


class StillInUse(FolderInUse):
    """A process of an earlier attempt of the same job works in the folder, for longer than usual.

    A command ends with exit code 2; another attempt may find that it has ended.
    """


class UnknownName(UsageError, TypeError):  # noqa: N818  (the error is that a name is unknown)
    """A keyword argument does not exist; a TypeError, as Python raises it, too."""


class ContentError(ValueError):
    """The content of a file or stream cannot be used. A command ends with exit code 1."""


class UnreadableImage(ContentError):  # noqa: N818  (the error is that it is unreadable)
    """An image of a data set cannot be decoded; the message names it."""


class TooLarge(ContentError):  # noqa: N818  (the error is that it is too large)
    """An image has more pixels than allowed, or takes more memory to decode."""


class OtherFormat(ContentError):  # noqa: N818  (the error is that it is another)
    """The content is in no format that can be read there."""


class OtherImages(UsageError, ContentError):  # noqa: N818  (the error is that they are others)
    """A run is to go on with other images than it began with: they were replaced, or have changed.

    A command ends with exit code 2.
    """


class GuessWarning(UserWarning):
    """A network was recognised only by the shapes of its weights and their order."""


class CacheWarning(UserWarning):
    """The cache folder cannot be written to; work goes on without it."""


class RenamedWarning(FutureWarning):
    """A name of an earlier version was used, which the next version will not accept."""


class MissingExtra(ImportError):  # noqa: N818  (the error is that an extra is missing)
    """An optional dependency is not installed; the message says how to install it."""


def install_hint(extra: str) -> str:
    """How to install an extra: from a clone, as the name on the package index is not ours.

    >>> install_hint("hub")
    'pip install ".[hub]" in a clone of resnets'
    """
    return f'pip install ".[{extra}]" in a clone of resnets'


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name of the module.
        extra: the extra of this package that installs it.

    Raises:
        MissingExtra: it is not installed.

    >>> require("json", "hub").__name__
    'json'
    >>> require("no_such_module", "hub")
    Traceback (most recent call last):
    resnets.errors.MissingExtra: no_such_module is not installed: pip install ".[hub]" in a clone \
of resnets
    """
    try:
        with warnings.catch_warnings():  # of tqdm, in a notebook without ipywidgets
            warnings.filterwarnings("ignore", "IProgress not found")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        name = module.split(".")[0]
        raise MissingExtra(f"{name} is not installed: {install_hint(extra)}") from None
