"""All that a training run decides before its first step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from resnets.commands.job import Job
from resnets.commands.start import (
    continued,
    fitting_recipe,
    fresh_network,
    keeps_head,
    read_start,
    with_weights,
)
from resnets.data.batches import EvaluationBatches, Place, TrainingBatches, evaluation_batches
from resnets.data.deep import find_depth
from resnets.data.labelled import LabelledImages
from resnets.data.sources import open_data
from resnets.data.splits import Drawing, Splits
from resnets.images import Preprocessing
from resnets.networks import Architecture, ResNet
from resnets.networks.layers import BatchNorm2d
from resnets.training import preparation
from resnets.training.checkpoint import State
from resnets.training.optimisation import make_loss
from resnets.training.recipe import Recipe
from resnets.training.trainer import Trainer

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ready:
    """All that is decided before the first step."""

    job: Job
    splits: Splits
    network: ResNet
    preprocessing: Preprocessing
    device: torch.device
    place: Place

    def trainer(self, network: ResNet) -> Trainer:
        """A trainer that has not begun, for this network or a copy of it."""
        recipe, splits = self.job.recipe, self.splits
        batches = TrainingBatches(
            splits.train,
            preparation.for_training(self.preprocessing, recipe),
            recipe.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            place=self.place,
            workers=recipe.workers or None,
            device=self.device,
            balanced=recipe.balanced_sampling,
            repeats=recipe.repeats,
        )
        loss = make_loss(recipe, splits.train.labels, len(splits.class_names)).to(self.device)
        validation = None if splits.validation is None else self.in_order(splits.validation)
        followed = splits.test if self.job.follow_test else None
        test = None if followed is None else self.in_order(followed)
        return Trainer(network, recipe, batches, loss, validation, self.job.log_every, test)

    def in_order(self, images: LabelledImages) -> EvaluationBatches:
        """Images to score, every one once."""
        size = max(1, self.job.recipe.batch_size // self.place.world_size)
        workers = self.job.recipe.workers or None
        return evaluation_batches(
            images, self.preprocessing, size, self.place, workers, self.device
        )

    def identity(self) -> dict[str, Any]:
        """What a saved state says besides, so that it stands for itself."""
        return {
            "fingerprint": self.splits.fingerprint,
            "rule": self.splits.split.get("rule", 1),
            "architecture": self.network.architecture.to_dict(),
            "class_names": list(self.splits.class_names),
            "preprocessing": self.preprocessing.to_dict(),
        }


def get_ready(job: Job, state: State | None, device: torch.device, place: Place, say: Say) -> Ready:
    """Open the data and decide what is left open, or what a saved state has decided.

    Args:
        job: what is asked for.
        state: the state to go on from; None for a new run.
        device: where to compute.
        place: which process this is.
        say: tells a person.
    """
    recipe = job.recipe
    splits = open_data(
        job.data,
        validation=recipe.validation,
        seed=recipe.seed,
        skip_unreadable=job.skip_unreadable,
        drawing=Drawing.of(state or {}),
    )
    for line in (*splits.warnings, *(f"left out {name}: {why}" for name, why in splits.skipped)):
        say(line)
    preparation.seed_all(recipe.seed)
    if state is None:
        job, network, preprocessing = decide(job, splits, say)
    else:
        architecture = Architecture.from_dict(state["architecture"])
        network = with_weights(architecture, state["trainer"]["network"])
        preprocessing = Preprocessing.from_dict(state["preprocessing"])
    splits = splits.with_white(preprocessing.white)
    preparation.seed_all(recipe.seed, place.rank)
    network = placed(network, job.recipe, device)
    return Ready(job, splits, network, preprocessing, device, place)


def decide(job: Job, splits: Splits, say: Say) -> tuple[Job, ResNet, Preprocessing]:
    """The job with its recipe settled for the images, the network and what it sees."""
    recipe = job.recipe
    depth = find_depth(splits.train)
    for line in depth.in_words():
        say(line)
    images = preparation.sample(splits.train.with_white(depth.white))
    start = read_start(Path(job.start), len(splits.class_names)) if job.start else None
    if start is not None and job.start:
        recipe = fitting_recipe(recipe, start, Path(job.start))
    recipe = recipe.settled(preparation.typical_side(images))
    mirrors = recipe.augmentation.flip != "none"
    if mirrors and not job.mirror_characters and preparation.are_characters(splits.class_names):
        recipe = preparation.without_flips(recipe)
        say(
            "Flips are off: the classes look like digits or letters, which are others or none when "
            "mirrored (--mirror-characters turns flips on)"
        )
    preprocessing = preparation.measured_preprocessing(recipe, images, depth.white)
    if start is None:
        network = fresh_network(recipe, len(splits.class_names))
    else:
        network = continued(start, recipe, splits.class_names)
        known = start.preprocessing or preprocessing
        preprocessing = replace(preprocessing, mean=known.mean, std=known.std)
        kept = "kept" if keeps_head(start, splits.class_names) else "fresh, for other classes"
        say(f"Starts from {job.start}: {recipe.network}; its classifier is {kept}")
    return replace(job, recipe=recipe), network, preprocessing


def placed(network: ResNet, recipe: Recipe, device: torch.device) -> ResNet:
    """The network on its device, in the layout of the recipe, frozen and compiled as it says."""
    network = network.to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.freeze is not None:
        network.freeze(recipe.freeze)
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.hurried = True
    if recipe.compile:
        network.compile()
    return network
