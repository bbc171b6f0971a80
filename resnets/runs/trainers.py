"""The trainer of a run: of all weights, of the classifier alone, or of the classifier first."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from resnets.data.batches import ProcessRank
from resnets.errors import ContentError, UsageError
from resnets.escaping import shell_line
from resnets.evaluation.history import History
from resnets.format import plural
from resnets.networks import ResNet
from resnets.networks.resnet import least_side, refuse_small
from resnets.runs.checkpoint import State
from resnets.runs.folder import RunFolder
from resnets.runs.freezing import refuse_processes_for_head
from resnets.runs.frozen_features import FeatureReader
from resnets.runs.prepare import Notify
from resnets.runs.setup import Setup
from resnets.runs.supervision import restore
from resnets.training.head import HeadFirstTrainer, HeadTrainer
from resnets.training.trainer import ONE_VALUE, Trainer


def says_finished(state: State | None, folder: RunFolder | None, notify: Notify) -> bool:
    """Say of a run that has finished that it has, before its images are read, which takes longer.

    Args:
        state: its newest.
        folder: of the run, in the process that writes there.
        notify: takes the line.

    Returns:
        Whether it was said.
    """
    if state is None or folder is None:
        return False
    try:
        history = History.read(folder.log)
    except ContentError:
        return False
    step = history.step
    planned = [record["steps"] for record in history.records if "steps" in record][-1:]
    done = state["trainer"].get("done")
    is_saved = isinstance(done, list) and done[1:] == [step]
    if not (history.finished and is_saved and planned == [step]):  # a callback may end a run early
        return False
    notify(_finished_already(step, folder.path))
    return True


_LISTED_OTHERWISE = (
    "The images are those that the run began with, but they are listed in another order (other "
    "names, or shards in place of files): the weights will not be those of the unbroken run, and "
    "in an epoch that had begun, some images come twice and others not"
)


def trainer_at(
    setup: Setup,
    state: State | None,
    output: Path | Literal[False] | None,
    notify: Notify,
    is_said: bool = False,
) -> Trainer:
    """What trains the network, at its beginning or where a state has left it.

    Args:
        setup: of the run.
        state: its newest; None for a new run.
        output: its folder.
        notify: takes lines for the user.
        is_said: whether the user knows that the run has finished.

    Raises:
        UsageError: what is refused before a run has a folder.
    """
    trainer = _trainer(setup)
    if state is None:
        _refuse_small_images(setup, trainer)
        return trainer
    restore(trainer, state, setup.splits)
    if state.get("listing", setup.splits.listing) != setup.splits.listing:
        notify(_LISTED_OTHERWISE)
    if trainer.finished and not is_said:
        notify(_finished_already(trainer.steps, output))
    return trainer


def _trainer(setup: Setup) -> Trainer:
    """What trains the network, or fits its classifier where all else is frozen."""
    if setup.fits_head_first:
        return head_first_trainer(setup)
    if setup.job.recipe.freeze != "all":
        return setup.trainer(setup.network)
    refuse_processes_for_head(setup.job.recipe, setup.process.world_size)
    return setup.trainer(setup.network, partial(HeadTrainer, FeatureReader(setup)))


def head_first_trainer(setup: Setup) -> HeadFirstTrainer:
    """What fits the classifier to features, by one process, and then trains the network."""
    read = FeatureReader(replace(setup, process=ProcessRank()), to_begin=True)
    trainer = setup.trainer(setup.network, partial(HeadFirstTrainer, read))
    assert isinstance(trainer, HeadFirstTrainer)
    return trainer


def _refuse_small_images(setup: Setup, trainer: Trainer) -> None:
    """Refuse images or batches too small for the network, before the run has a folder.

    Raises:
        UsageError: less than one pixel would be left of an image, or one value of a batch.
    """
    if not isinstance(setup.network, ResNet):
        return
    recipe, architecture = setup.job.recipe, setup.network.architecture
    size = setup.preprocessing.size
    training_size = recipe.training_size or size
    first = recipe.size_in(0, trainer.batches.steps_per_epoch) or training_size
    for side in (size, training_size, first):
        refuse_small(architecture, side, side)
    one_pixel = first <= least_side(architecture)
    one_image = recipe.batch // setup.process.world_size <= recipe.accumulate
    if one_pixel and one_image and architecture.norm == "batch" and recipe.freeze != "all":
        raise UsageError(ONE_VALUE)


def _finished_already(steps: int, output: Path | Literal[False] | None) -> str:
    """What to say where a run that is resumed has nothing left to do."""
    return (
        f"This run is finished ({steps:,} of {plural(steps, 'step')} done), so it "
        f"is only scored again. To train further, start a new run from its weights: "
        f"`{shell_line('resnets', 'train', 'DATA', '--from', output)}`"
    )
