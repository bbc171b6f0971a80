"""The trainer of a run: of all weights, of the classifier alone, or of the classifier first."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from resnets.data.batches import ProcessRank
from resnets.errors import UsageError
from resnets.escaping import shell_line
from resnets.format import plural
from resnets.networks import ResNet
from resnets.networks.resnet import least_side, refuse_small
from resnets.runs.checkpoint import State
from resnets.runs.freezing import refuse_processes_for_head
from resnets.runs.frozen_features import FeatureReader
from resnets.runs.prepare import Notify
from resnets.runs.setup import Setup
from resnets.runs.supervision import restore
from resnets.training.head import HeadFirstTrainer, HeadTrainer
from resnets.training.trainer import ONE_VALUE, Trainer


def trainer_at(
    setup: Setup, state: State | None, output: Path | Literal[False] | None, notify: Notify
) -> Trainer:
    """What trains the network, at its beginning or where a state has left it.

    Raises:
        UsageError: what is refused before a run has a folder.
    """
    trainer = _trainer(setup)
    if state is None:
        _refuse_small_images(setup, trainer)
        return trainer
    restore(trainer, state, setup.splits)
    if trainer.finished:
        notify(_finished_already(trainer, output))
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


def _finished_already(trainer: Trainer, output: Path | Literal[False] | None) -> str:
    """What to say where a run that is resumed has nothing left to do."""
    return (
        f"This run is finished ({trainer.steps:,} of {plural(trainer.steps, 'step')} done), so it "
        f"is only scored again. To train further, start a new run from its weights: "
        f"`{shell_line('resnets', 'train', 'DATA', '--from', output)}`"
    )
