"""Refusals that a new attempt would meet again: a job of `resnets launch` does not try again.

torchrun starts the processes of a job again whatever they have ended with. So a process whose words
were refused leaves a file, by which the next attempt ends at once: see `Launch.worker`. Kubernetes
starts a failed job again in new pods, which do not have that file.
"""

import contextlib
import os
from pathlib import Path

from resnets.errors import StillInUse, UsageError

MARK = "RESNETS_REFUSED"  # variable that names the file; only a job of `resnets launch` has it


def is_in_job() -> bool:
    """Whether `resnets launch` has written the job that this process belongs to."""
    return MARK in os.environ


def note_refusal(error: UsageError) -> None:
    """Leave the file if this process belongs to a job, and nothing but the user can help it."""
    if not is_in_job() or isinstance(error, StillInUse):  # by a process that may end
        return
    with contextlib.suppress(OSError):  # then torchrun tries again
        Path(os.environ[MARK]).touch()
