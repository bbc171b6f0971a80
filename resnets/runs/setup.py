"""All that is decided before the first step of a run, and the trainer made from it."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from resnets.data.batches import (
    Batch,
    EvaluationBatches,
    ProcessRank,
    TrainingBatches,
    evaluation_batches,
)
from resnets.data.labelled import LabelledImages
from resnets.data.membership import NONE, Generation, Members, TrainedOn, member_digests
from resnets.data.splits import Splits
from resnets.evaluation.source import Source
from resnets.images import Preprocessing
from resnets.model_file import architecture_of
from resnets.runs.custom_parts import NO_CUSTOM_PARTS, CustomParts
from resnets.runs.image_statistics import measured_preprocessing, sample_images
from resnets.runs.job import Job
from resnets.training.optimisation import CustomLoss, make_loss
from resnets.training.recipe import Recipe
from resnets.training.shared_pixels import filled_together
from resnets.training.trainer import Measured, Trainer

# images of a batch that estimates statistics, where there are as many: so that they are near those
# of all images, and a device has memory for them
_LEAST_FOR_STATISTICS, _MOST_FOR_STATISTICS = 64, 256
NOT_KEPT = "--no-image-digests left them out"


@dataclass(frozen=True)
class Setup:
    """All that is decided before the first step.

    Attributes:
        job: what is asked for, its recipe settled.
        splits: the images.
        network: on its device, a ResNet or the user's own; its weights change in training.
        preprocessing: what the network sees of an image.
        device, process: where this process computes, and which of several it is.
        ancestors: what the network that this one starts from was trained on; empty if there is
            none.
        keeps_classifier: whether the classifier is that network's.
        others: images of none of the classes.
        total_others: how many there are, with those left out because the network sees them.
        custom: the parts that are the user's own code.
    """

    job: Job
    splits: Splits
    network: nn.Module
    preprocessing: Preprocessing
    device: torch.device
    process: ProcessRank
    ancestors: TrainedOn = field(default_factory=TrainedOn)
    keeps_classifier: bool = False
    others: tuple[Source, ...] = ()
    total_others: int = 0
    custom: CustomParts = NO_CUSTOM_PARTS

    @cached_property
    def trained_on(self) -> TrainedOn:
        """What the network will have seen once it is trained, and what it saw before."""
        generation = Generation.of(
            str(self.splits.split["source"]),
            self.members["train"],
            self.members.get("validation", NONE),
        )
        return self.ancestors.after(replace(generation, keeps_classifier=self.keeps_classifier))

    @cached_property
    def feature_caches(self) -> dict[bool, Any]:
        """What `frozen_features` keeps of a network whose layers are all frozen, by view."""
        return {}

    @property
    def fits_head_first(self) -> bool:
        """Whether the classifier is fitted to features before the first step."""
        recipe = self.job.recipe
        return recipe.fit_head_first and recipe.freeze != "all" and not self.keeps_classifier

    @cached_property
    def members(self) -> dict[str, Members]:
        """By split, what each image is recognised by, (N,)."""
        splits = self.splits
        images = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        return {
            name: member_digests(part, splits.digests[name])
            for name, part in images.items()
            if part is not None
        }

    def trainer(self, network: nn.Module, make: Callable[..., Trainer] = Trainer) -> Trainer:
        """A trainer that has not begun, for this network or a copy of it.

        Args:
            network: to train.
            make: its class, or what makes one of the same arguments.
        """
        recipe, splits = self.job.recipe, self.splits
        batches = TrainingBatches(
            splits.train,
            _for_training(self.preprocessing, recipe),
            recipe.augmentation,
            batch_size=recipe.batch,
            seed=recipe.seed,
            process=self.process,
            workers=recipe.workers,
            device=self.device,
            balanced=recipe.balanced_sampling,
            repeats=recipe.repeats,
            even=recipe.even_batches,
            carry_over=recipe.carry_over,
            memory_limit=recipe.memory_limit,
            fill_array=filled_together,
            custom=self.custom.augmentation,
        )
        loss: nn.Module = make_loss(recipe, splits.train.labels, len(splits.class_names))
        loss = (loss if self.custom.loss is None else CustomLoss(self.custom.loss)).to(self.device)
        images = self.statistics_images
        # the classifier of frozen layers is measured by features, so these are hardly ever read
        ordered = partial(_Unread, self) if recipe.freeze == "all" else self.in_order
        measured = Measured(
            None if splits.validation is None else ordered(splits.validation),
            ordered(splits.test) if splits.test and self.job.follow_test else None,
            None if images is None else self._statistics_batches(images),
        )
        return make(network, recipe, batches, loss, measured, self.job.log_every)

    @cached_property
    def statistics_images(self) -> LabelledImages | None:
        """Training images in random order, to estimate the statistics of batch norms.

        The last batch is never one image alone; None where there is but one.
        """
        recipe, train = self.job.recipe, self.splits.train
        number = min(recipe.batch_norm_images, len(train))
        number -= number % self._statistics_batch_size == 1
        if number < 2:
            return None
        order = np.random.default_rng(recipe.seed).permutation(len(train))
        return train.subset(order[:number])

    @property
    def _statistics_batch_size(self) -> int:
        return min(max(_LEAST_FOR_STATISTICS, self.job.recipe.batch), _MOST_FOR_STATISTICS)

    def _statistics_batches(self, images: LabelledImages) -> Iterable[Batch]:
        """The batches of `statistics_images` that one of n processes computes: every n-th of them.

        The batches are the same for any number of processes, and so is the network that a run ends
        with, or that is scored again by more or fewer of them.
        """
        if self.job.recipe.freeze == "all":
            return _Unread(self, images, self._statistics_batch_size)
        size, process = self._statistics_batch_size, self.process
        batch = np.arange(len(images)) // size  # of each image
        return evaluation_batches(
            images.subset(np.flatnonzero(batch % process.world_size == process.rank)),
            self.preprocessing,
            size,
            workers=process.workers(self.job.recipe.workers),
            device=self.device,
            memory_limit=self.job.recipe.memory_limit,
        )

    def at_size(self, size: int) -> "Setup":
        """The same with images of another size: a network without weights yet does not mind.

        Mean and deviation are measured anew, as a run that is asked for this size measures them:
        smaller images deviate less.
        """
        recipe, seen = self.job.recipe, self.preprocessing
        if size == recipe.image_size:
            return self
        resize = round(seen.resize * size / seen.size)
        sized = replace(recipe, image_size=size, training_size=size, resize=resize)
        sample = sample_images(self.splits.train, channels=seen.channels)
        return replace(
            self,
            job=replace(self.job, recipe=sized),
            preprocessing=measured_preprocessing(sized, sample, seen.white),
        )

    def in_order(self, images: LabelledImages, size: int | None = None) -> EvaluationBatches:
        """Images as in evaluation, every one once, in batches of a size or of the recipe's."""
        size = size or max(1, self.job.recipe.batch // self.process.world_size)
        recipe = self.job.recipe
        return evaluation_batches(
            images,
            self.preprocessing,
            size,
            self.process,
            recipe.workers,
            self.device,
            recipe.memory_limit,
        )

    def identity(self) -> dict[str, Any]:
        """What a saved state says besides, so that it stands for itself."""
        return {
            "fingerprint": self.splits.fingerprint,
            "stored": self.splits.stored,
            "listing": self.splits.listing,
            "images": self.splits.readable,
            "rule": self.splits.split.get("rule", 1),
            "architecture": architecture_of(self.network),
            "class_names": list(self.splits.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "trained_on": self.history_to_save() if self.process.rank == 0 else {},
        }

    def history_to_save(self) -> dict[str, Any]:
        """For a training state: all digests of the ancestors, by which splits are drawn again."""
        generation = self.trained_on.generations[0]
        if not self.job.image_digests:
            generation = generation.without_digests(NOT_KEPT)
        return self.ancestors.after(generation).to_dict(most=sys.maxsize)


class _Unread:
    """Images in order, as `Setup.in_order` gives them, that are read when they are asked for."""

    def __init__(self, setup: Setup, images: LabelledImages, size: int | None = None) -> None:
        self.setup, self.images, self.size = setup, images, size

    @cached_property
    def batches(self) -> EvaluationBatches:
        """The images, read."""
        return self.setup.in_order(self.images, self.size)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def _for_training(preprocessing: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The same at the size of the training images."""
    size = recipe.training_size or preprocessing.size
    shorter = max(size, round(preprocessing.resize * size / preprocessing.size))
    return replace(preprocessing, size=size, resize=shorter)
