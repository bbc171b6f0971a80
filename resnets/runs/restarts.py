"""A run whose processes torchrun starts again goes on from its last state, without being told to.

torchrun starts all processes again, with the same words, when one has died or when a machine comes
or goes. The run is known by torchrun's id and by what was asked for, of which its config.toml keeps
a digest: people give one id to several trainings.
"""

import hashlib
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from resnets.data.batches import ProcessRank
from resnets.errors import ContentError, FolderInUse, StillInUse, UsageError
from resnets.format import plural
from resnets.model_path import RUNS
from resnets.run_files import CONFIG
from resnets.runs.checkpoint import State
from resnets.runs.folder import RunFolder, existing_run
from resnets.runs.job import Job
from resnets.training.parallel import from_first

_PATIENCE = 60.0  # seconds for which the processes of a lost machine may keep the folder


def identity_of(job: Job, process: ProcessRank) -> str | None:
    """What a run is known by when torchrun starts its processes again; None without torchrun's id.

    Args:
        job: what is asked for; torchrun repeats it word for word.
        process: which knows torchrun's id.
    """
    if process.launch is None:
        return None
    words = f"{process.launch} {replace(job, torchrun_id=None)!r}"
    return hashlib.sha256(words.encode()).hexdigest()


def begun_before(
    job: Job, output: Path | Literal[False] | None, process: ProcessRank
) -> tuple[Path, Job] | None:
    """The folder and the settings of the run if this torchrun has begun it; None if it has not.

    All processes call it together; the first looks.

    Args:
        job: what is asked for, again; what a run may change when it goes on is taken from it.
        output: the folder that is asked for; None: a fresh one below `runs`.
        process: which of several processes this is.
    """
    identity = identity_of(job, process)
    if identity is None or output is False:
        return None
    run = from_first(_find(output, identity) if process.rank == 0 else None)
    if run is None:
        return None
    folder, before = run
    return folder, replace(
        before, data=job.data, device=job.device, checkpoint_every=job.checkpoint_every
    )


def _find(output: Path | None, identity: str) -> tuple[Path, Job] | None:
    """The run that is known by an identity, in a folder or below `runs`."""
    folders = [output] if output else [config.parent for config in RUNS.glob(f"*/{CONFIG}")]
    for folder in folders:
        with suppress(UsageError, ContentError, OSError):  # no run, or one that nobody can resume
            job = Job.of_run(folder)
            if job.torchrun_id == identity:
                return folder, job
    return None


def folder_again(path: Path, keep: int, stack: ExitStack) -> RunFolder:
    """The folder of a run that goes on, until the stack is left.

    A machine that was lost may be alive: its first process keeps the folder until it notices.

    Raises:
        StillInUse: it is in use after a minute.
        UsageError: it holds no run.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return stack.enter_context(closing(existing_run(path, keep)))
        except FolderInUse as error:
            if time.monotonic() > deadline:
                raise StillInUse(str(error)) from None
        time.sleep(0.5)


def goes_on(state: State, processes: int) -> str:
    """What to say of a run that goes on, perhaps with more or fewer processes."""
    before = len(state["random"])
    changed = "" if before == processes else f", not {before} as before"
    step = state["trainer"]["done"][1]
    return f"The run goes on after step {step:,} with {plural(processes, 'process')}{changed}"
