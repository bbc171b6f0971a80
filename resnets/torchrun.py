"""What torchrun learns of a process that ends with an error; see `cli`.

torchrun ends with a traceback of its own whenever a process ends with another code than 0, and
tells at its end which process was the first, and why, if that has left the reason in a file.
"""

import contextlib
import functools
import os
import time
from pathlib import Path

from resnets.files.writing import write_atomically
from resnets.json_text import to_json

_FILE = "TORCHELASTIC_ERROR_FILE"  # variable by which torchrun gives each process its file
_FIRST_SAYS_IT = 10.0  # seconds; meanwhile torchrun ends all others, if the first process has ended


def leave_reason(text: str) -> None:
    """Leave the reason of an error for torchrun, if it has started this process."""
    path = os.environ.get(_FILE)
    if not path:
        return
    reason = {"message": text, "extraInfo": {"py_callstack": text, "timestamp": int(time.time())}}
    with contextlib.suppress(OSError):
        write_atomically(path, to_json({"message": reason}).encode(), sync=False)


def let_first_say_it() -> None:
    """Wait until the first process of this machine has said why it ends, which ends this one.

    All processes have the same words and data, so most of what one refuses, all refuse at the same
    time.
    """
    if os.environ.get(_FILE) and not is_first_of_machine():
        with contextlib.suppress(KeyboardInterrupt):  # which ends it all the sooner
            time.sleep(_FIRST_SAYS_IT)


def is_under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_of_machine() -> bool:
    """Whether this is the first process that torchrun has started on this machine, or alone."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def restarts_left() -> int:
    """How often torchrun would start all processes again; 0 where it has not started this one."""
    names = ("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT")
    most, done = (int(os.environ.get(name, "0")) for name in names)
    return max(most - done, 0)


def speaks_for_machine() -> bool:
    """Whether this process is the first of its machine to ask, in this attempt of torchrun.

    Any of them may be the one that is lost, so none has the task from the beginning.
    """
    path = os.environ.get(_FILE)
    return not path or _makes_folder(Path(path).parents[1] / "one-speaks")


@functools.cache
def _makes_folder(path: Path) -> bool:
    """Whether this process has made a folder of the attempt, which only one can."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    except OSError:  # rather twice than never
        return True
    return True
