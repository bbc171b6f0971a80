"""What refuses a training that is to run in other processes, found before any of them starts."""

import os
from collections.abc import Collection
from pathlib import Path

from resnets.data.batches import refuse_batch_size
from resnets.data.sources.names import has_image_ending
from resnets.data.sources.opening import read_source, refuse_missing
from resnets.data.sources.walking import walk
from resnets.files.outputs import writable_folder
from resnets.locks import LOCK, lock
from resnets.run_files import CONFIG
from resnets.runs.folder import refuse
from resnets.runs.freezing import refuse_processes_for_head
from resnets.runs.job import Job, names_weights, refuse_other_words


def refuse_folder(job: Job, output: Path, names: Collection[str]) -> None:
    """Refuse a folder in which a training can neither begin nor go on.

    Args:
        job: what is asked for, as if the run were new.
        output: the run's folder; a run of the same words that is there already goes on.
        names: of what flags set.

    Raises:
        UsageError, ContentError: as the training itself would.
    """
    if not (output / CONFIG).is_file():
        refuse(output, start=job.start if names_weights(job.start) else None)
        return
    begun = Job.of_run(output)
    if begun.asked is not None:  # None: of an earlier version, which goes on by fewer words
        refuse_other_words(begun, job, output, names)
    writable_folder(output)


def refuse_in_use(output: Path) -> None:
    """Refuse a folder in which another process works now.

    Raises:
        FolderInUse: it says which, where it is known.
    """
    if (output / LOCK).exists():
        os.close(lock(output))


def refuse_data(data: str) -> None:
    """Refuse data that are not there, or a folder without any.

    Of a folder of images only the first is looked for: to list all may take long.

    Raises:
        UsageError, ContentError: as the training itself would.
    """
    refuse_missing(data)
    folder = Path(data)
    if folder.is_dir() and not any(map(_may_hold_images, walk(folder, ""))):
        read_source(data)  # says what is missing


def _may_hold_images(name: str) -> bool:
    """Whether a file is an image, or of a kind that holds many."""
    return has_image_ending(name) or name.lower().endswith((".parquet", ".tar", ".gz"))


def refuse_processes(job: Job, on_machine: int, processes: int) -> None:
    """Refuse what does not go with the number of processes.

    Args:
        job: what is asked for.
        on_machine: processes of each machine.
        processes: of all machines.

    Raises:
        UsageError: as the training itself would.
    """
    # these import torch, which --help does not need
    from resnets.runs.cross_validation import refuse_with_folds
    from resnets.training.devices import refuse_device

    refuse_processes_for_head(job.recipe, processes)
    if job.folds:
        refuse_with_folds(job, processes)
    refuse_device(job.device, shared=on_machine > 1)
    if isinstance(job.recipe.batch_size, int):
        refuse_batch_size(job.recipe.batch_size, processes)
