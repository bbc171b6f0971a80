"""The opening of a run: its folder, new or there already, and the state that it goes on from."""

from contextlib import ExitStack, closing
from pathlib import Path

from resnets.errors import UsageError
from resnets.runs.checkpoint import State, fitting
from resnets.runs.custom_parts import CustomParts
from resnets.runs.folder import (
    FOLD,
    RunFolder,
    existing_run,
    folds_in,
    has_state,
    new_run,
    refuse,
)
from resnets.runs.job import Job, names_weights
from resnets.runs.loggers import reach_services
from resnets.runs.manner import Manner
from resnets.runs.prepare import Notify
from resnets.runs.restarts import folder_again

_STATE: dict[str, type | tuple[type, ...]] = {  # required fields of a checkpoint
    **{"trainer": dict, "architecture": dict, "preprocessing": dict},
    **{"random": list, "class_names": list, "fingerprint": str},
    **{"log": int, "seconds": (int, float)},
}


def folder_to_go_on(
    job: Job, output: Path | None, how: Manner, stack: ExitStack
) -> RunFolder | None:
    """The folder of the run that goes on, until the stack is left; None for a new run.

    Raises:
        UsageError: there is no such run, or a new one may not take the place of what is there.
    """
    if how.again and output:
        return folder_again(output, job.keep, stack)
    if how.resume and output:
        return stack.enter_context(closing(existing_run(output, job.keep)))
    refuse(output, how.overwrite, job.start if names_weights(job.start) else None)
    return None


def new_folder(job: Job, output: Path | None, overwrite: bool, stack: ExitStack) -> RunFolder:
    """The folder of a new run, until the stack is left.

    It is made once nothing may be refused any more: a refused run leaves all files as they are.
    """
    reach_services(job.log_to)
    folder = new_run(output, job.recipe.network, overwrite, job.keep)
    return stack.enter_context(closing(folder))


def newest_state(folder: RunFolder | None, notify: Notify) -> State | None:
    """The newest whole state of a run that goes on."""
    if folder is None:
        return None
    checkpoint = folder.checkpoints.newest()
    if checkpoint is None:
        if any(map(has_state, folds_in(folder.path))):
            notify(f"{folder.path}: goes on with the folds that were begun")
        else:
            notify(f"{folder.path}: nothing was saved yet, so this starts from the beginning")
        return None
    state, damaged = checkpoint
    with fitting(folder.path):
        _check_state(state)
    for text in damaged:
        notify(f"{text}; going on from the one before it")
    return state


def _check_state(state: State) -> None:
    """Check the fields that identify a checkpoint. Raises KeyError or TypeError."""
    for name, kind in _STATE.items():
        if not isinstance(state[name], kind):
            raise TypeError(f"{name} is a {type(state[name]).__name__}")


def refuse_missing_folds(job: Job, custom: CustomParts, folder: RunFolder | None) -> None:
    """Refuse to train a fold from a module of the user's own that may have seen all images.

    Once the run itself has a state, its folds have finished, and go on from states of their own. A
    fold without one would start from the weights of the module, which may be those of that state.

    Raises:
        UsageError: a fold has no state.
    """
    if folder is None or custom.network is None or not job.folds or job.fold:
        return
    places = [folder.path / FOLD.format(fold) for fold in range(1, job.folds + 1)]
    missing = [place.name for place in places if not has_state(place)]
    if missing:
        raise UsageError(
            f"{folder.path}: the saved state of {', '.join(missing)} is missing, and your network "
            "may know all images from this run, so it cannot be trained without them any more; "
            "start a new run with a fresh network"
        )
