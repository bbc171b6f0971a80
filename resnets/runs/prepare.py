"""Prepares a run: opens the data, settles the recipe and makes the network."""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from resnets.data.batches import EvaluationBatches, Place, TrainingBatches, evaluation_batches
from resnets.data.grouping import GroupBy
from resnets.data.labelled import LabelledImages
from resnets.data.membership import NONE, Generation, Members, TrainedOn, member_digests, union
from resnets.data.sources.hub import HUB
from resnets.data.sources.layout import CLASSES_FIRST, UNSAID, Layout, layout_said
from resnets.data.sources.opening import IN_MEMORY, Opened, open_source
from resnets.data.splits import Drawing, Parts, Splits
from resnets.data.white_level import SAMPLE, find_white_level, sampled
from resnets.errors import UsageError
from resnets.evaluation.exposure import own_generation, redraw_splits
from resnets.evaluation.other_images import left_out_in_words, open_others, without_seen
from resnets.evaluation.predict import Source
from resnets.format import plural
from resnets.images import Preprocessing, White
from resnets.images.white import UNKNOWN
from resnets.model_file import architecture_of
from resnets.networks import Architecture, ResNet
from resnets.networks.limits import refuse_large_images
from resnets.networks.norms import BatchNorm2d
from resnets.runs.checkpoint import State, fitting
from resnets.runs.custom_parts import (
    NO_CUSTOM_PARTS,
    CustomParts,
    channels_of,
    notices,
    refuse_settings,
)
from resnets.runs.job import Job
from resnets.runs.starting_point import (
    StartingPoint,
    continued,
    fresh_network,
    head_in_words,
    keeps_head,
    pinned,
    read_starting_point,
    recipe_for_start,
    with_weights,
)
from resnets.training.optimisation import CustomLoss, make_loss
from resnets.training.recipe import LEAST_STEPS, Recipe
from resnets.training.trainer import Measured, Trainer

_KEPT = 1 << 20  # bytes of an image in the sample that stays in memory
_LEAST_FOR_STATISTICS = 64  # images of a batch that estimates statistics, where there are as many
_NUMBERS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
NOT_KEPT = "--no-image-digests left them out"

Notify = Callable[[str], None]  # takes a line for the user


@dataclass(frozen=True)
class Setup:
    """All that is decided before the first step.

    Attributes:
        job: what is asked for, its recipe settled.
        splits: the images.
        network: on its device, a ResNet or the user's own; its weights change in training.
        preprocessing: what the network sees of an image.
        device, place: where this process computes, and which of how many it is.
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
    place: Place
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
            place=self.place,
            workers=recipe.workers,
            device=self.device,
            balanced=recipe.balanced_sampling,
            repeats=recipe.repeats,
            carry_over=recipe.carry_over,
            custom=self.custom.augmentation,
        )
        loss: nn.Module = make_loss(recipe, splits.train.labels, len(splits.class_names))
        loss = (loss if self.custom.loss is None else CustomLoss(self.custom.loss)).to(self.device)
        images = self.statistics_images
        measured = Measured(
            None if splits.validation is None else self.in_order(splits.validation),
            self.in_order(splits.test) if splits.test and self.job.follow_test else None,
            None if images is None else self.in_order(images, self._statistics_batch_size),
        )
        return make(network, recipe, batches, loss, measured, self.job.log_every)

    @cached_property
    def statistics_images(self) -> LabelledImages | None:
        """Training images in random order, to estimate the statistics of batch norms.

        They are as many for every process, and for none the last batch is one image alone; None
        where a process would get one.
        """
        recipe, train, processes = self.job.recipe, self.splits.train, self.place.world_size
        each = min(recipe.batch_norm_images, len(train)) // processes
        each -= each % self._statistics_batch_size == 1
        if each < 2:
            return None
        order = np.random.default_rng(recipe.seed).permutation(len(train))
        return train.subset(order[: each * processes])

    @property
    def _statistics_batch_size(self) -> int:
        return max(_LEAST_FOR_STATISTICS, self.job.recipe.batch // self.place.world_size)

    def at_size(self, size: int) -> "Setup":
        """The same with images of another size: a network without weights yet does not mind."""
        recipe, seen = self.job.recipe, self.preprocessing
        if size == recipe.image_size:
            return self
        resize = round(seen.resize * size / seen.size)
        sized = replace(recipe, image_size=size, training_size=size, resize=resize)
        return replace(
            self,
            job=replace(self.job, recipe=sized),
            preprocessing=replace(seen, size=size, resize=resize),
        )

    def in_order(self, images: LabelledImages, size: int | None = None) -> EvaluationBatches:
        """Images as in evaluation, every one once, in batches of a size or of the recipe's."""
        size = size or max(1, self.job.recipe.batch // self.place.world_size)
        workers = self.job.recipe.workers
        return evaluation_batches(
            images, self.preprocessing, size, self.place, workers, self.device
        )

    def identity(self) -> dict[str, Any]:
        """What a saved state says besides, so that it stands for itself."""
        return {
            "fingerprint": self.splits.fingerprint,
            "rule": self.splits.split.get("rule", 1),
            "architecture": architecture_of(self.network),
            "class_names": list(self.splits.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "trained_on": self.history_to_save() if self.place.rank == 0 else {},
        }

    def history_to_save(self) -> dict[str, Any]:
        """For a training state: all digests of the ancestors, by which splits are drawn again."""
        generation = self.trained_on.generations[0]
        if not self.job.image_digests:
            generation = generation.without_digests(NOT_KEPT)
        return self.ancestors.after(generation).to_dict(most=sys.maxsize)


def prepare(
    job: Job,
    state: State | None,
    device: torch.device,
    place: Place,
    notify: Notify,
    custom: CustomParts = NO_CUSTOM_PARTS,
) -> Setup:
    """Open the data and decide what is left open, or what a saved state has decided.

    Args:
        job: what is asked for.
        state: the state to go on from; None for a new run.
        device: where to compute.
        place: which process this is.
        notify: takes lines for the user.
        custom: the parts that are the user's own code.
    """
    recipe = job.recipe
    if job.group_by is not None:
        GroupBy.parse(job.group_by)  # before all images are read
    source = job.data if custom.data is None else custom.data
    opened = open_source(
        source, skip_unreadable=job.skip_unreadable, layout=_layout(job, begun=state is not None)
    )
    job = replace(job, data=opened.source)  # of a data set of the hub, with the commit
    _seed_all(recipe.seed)  # a foreign network may get a fresh classifier
    start = None
    if state is None and job.start:
        start = read_starting_point(Path(job.start), len(opened.parts.class_names))
        job = replace(job, start=pinned(job.start, start.history))
    ancestors, keeps_classifier = _ancestors_of(state, start, opened, job)
    others = tuple(open_others(job.other, recipe.seed)) if job.other else ()
    splits = _split(opened, job, state, ancestors, notify)
    for line in notices(custom, recipe):
        notify(line)
    if state is None:
        job, network, preprocessing = _new_network(job, splits, start or custom.network, notify)
    else:
        network, preprocessing = _from_state(state, job, custom.network)
    splits = splits.with_white(preprocessing.white)
    _seed_all(recipe.seed, place.rank)
    network = on_device(network, job.recipe, device)
    setup = Setup(
        *(job, splits, network, preprocessing, device, place, ancestors, keeps_classifier),
        custom=custom,
    )
    if job.other:
        setup = _with_others(setup, others, job.other)
    for line in _start_network_notices(setup):
        notify(line)
    return setup


def _layout(job: Job, *, begun: bool) -> Layout:
    """What is known of the folders; a run that goes on keeps what its images were at first."""
    split_folders = {
        "train": job.train_folder,
        "validation": job.validation_folder,
        "test": job.test_folder,
    }
    layout = layout_said(job.class_level, split_folders, job.group_by)
    return CLASSES_FIRST if begun and layout == UNSAID else layout


def refuse_moved(job: Job, custom: CustomParts, folder: Path) -> None:
    """Refuse to go on with a run whose images are not where it found them.

    Raises:
        UsageError: it says how to name the place where they are now.
    """
    data = "" if custom.data is not None else job.data
    flags = ((data, "DATA", "data="), (job.other or "", "--other FOLDER", "other="))
    for source, flag, keyword in flags:
        needs_no_path = source in ("", "digits") or source.startswith((HUB, IN_MEMORY))
        if not needs_no_path and not has_magic(source) and not Path(source).exists():
            raise UsageError(
                f"{source}: no such file or folder, seen from {Path.cwd()}; the run in {folder} "
                "was begun with this path: continue from the folder where it was begun, or give "
                f"the path of the same images: resnets train --resume {folder} {flag} (from Python:"
                f" resnets.resume({str(folder)!r}, {keyword}...))"
            )


def _split(
    opened: Opened, job: Job, state: State | None, ancestors: TrainedOn, notify: Notify
) -> Splits:
    """The images to train on, to validate on and to test on; as when the run began, if it did."""
    recipe, drawing = job.recipe, replace(Drawing.of(state or {}), group_by=job.group_by)
    splits = opened.splits((recipe.validation, recipe.seed), drawing=drawing, avoid=ancestors)
    if job.group_by is not None:
        groups = ", ".join(f"{n:,} in {name}" for name, n in splits.split["groups"].items())
        notify(f"Groups by {job.group_by}: {groups}")
    if job.verbose:
        for path, why in opened.parts.passed_over:
            notify(f"ignored {path}: {why}")
    for line in _drawn_from_train(splits, opened.parts):
        notify(line)
    for line in (*splits.warnings, *(f"left out {name}: {why}" for name, why in splits.skipped)):
        notify(line)
    return splits


def _drawn_from_train(splits: Splits, parts: Parts) -> Iterator[str]:
    """Which splits the training images gave, where a source has a train split of its own."""
    wanted = {"test": splits.test, "validation": splits.validation}
    drawn = [
        plural(len(images), f"{name} image")
        for name, images in wanted.items()
        if images is not None and name not in parts.images
    ]
    if "train" in parts.images and drawn:
        yield (
            f"Drawn from the train split, as the data has none of its own: {' and '.join(drawn)} "
            f"({plural(len(splits.train), 'image')} left to train on)."
        )


def _from_state(
    state: State, job: Job, custom: nn.Module | None = None
) -> tuple[nn.Module, Preprocessing]:
    """The network of a saved state, the user's own if that is given, and what it sees."""
    with fitting(job.data):
        network = custom
        if network is None:
            architecture = Architecture.from_dict(state["architecture"])
            network = with_weights(architecture, state["trainer"]["network"])
        return network, Preprocessing.from_dict(state["preprocessing"])


def _with_others(setup: Setup, others: Sequence[Source], source: str) -> Setup:
    """With images of none of the classes: none of those that the network will have seen.

    Raises:
        UsageError: none is left.
    """
    history = setup.trained_on
    seen = union([history.trained, history.validated, setup.members.get("test", NONE)])
    return replace(
        setup, others=tuple(without_seen(others, seen, source)), total_others=len(others)
    )


def _ancestors_of(
    state: State | None, start: StartingPoint | None, opened: Opened, job: Job
) -> tuple[TrainedOn, bool]:
    """What the network that training starts from has seen; and whether its classifier stays.

    Args:
        state: the state to go on from, if the run goes on: splits are drawn as when it began.
        start: the network to start from.
        opened: the data.
        job: what is asked for.
    """
    if state is not None:
        history = TrainedOn.from_dict(state.get("trained_on", {}))
        if history:
            return history.ancestors, history.generations[0].keeps_classifier
        nobody = Generation("", unknown="the run was begun by an earlier version")
        return (TrainedOn((nobody,)), True) if job.start else (TrainedOn(), False)
    if start is None:
        return TrainedOn(), False
    return _complete_history(start, opened), keeps_head(start, opened.parts.class_names)


def _complete_history(start: StartingPoint, opened: Opened) -> TrainedOn:
    """What a network has seen, by splits drawn again where its file has no digests of these data.

    A training state of an earlier version does not say by which seed its splits were drawn.
    """
    first, *others = start.history.generations
    if not first.unknown or start.description is None:
        return start.history
    same, splits = redraw_splits(opened, start.description)
    return TrainedOn((own_generation(splits), *others)) if same else start.history


def _new_network(
    job: Job, splits: Splits, start: StartingPoint | nn.Module | None, notify: Notify
) -> tuple[Job, nn.Module, Preprocessing]:
    """The job with its recipe settled for the images, the network and what it sees.

    Args:
        job: what is asked for.
        splits: the images.
        start: the network to start from, or the user's own; None for a fresh one of the recipe.
        notify: takes lines for the user.
    """
    recipe = job.recipe
    depth = find_white_level(splits.train)
    for line in depth.in_words():
        notify(line)
    images = _sample(splits.train.with_white(depth.white))
    if isinstance(start, StartingPoint):
        recipe = recipe_for_start(recipe, start, str(job.start))
    recipe = recipe.resolved(_typical_side(images), len(splits.train))
    mirrors = recipe.augmentation.flip != "none"
    if mirrors and not job.mirror_characters and are_characters(splits.class_names):
        recipe = without_flips(recipe)
        notify(
            "Flips are off: the class names look like digits or letters, which mirroring changes "
            "(--mirror-characters turns flips on)"
        )
    if isinstance(start, nn.Module):
        return (
            replace(job, recipe=recipe),
            *_check_own_network(start, recipe, images, depth.white),
        )
    preprocessing = _measured_preprocessing(recipe, images, depth.white)
    if start is None:
        network = fresh_network(recipe, len(splits.class_names))
    else:
        network = continued(start, recipe, splits.class_names)
        known = start.preprocessing or preprocessing
        preprocessing = replace(known, **_sizes_and_white(preprocessing))
        classifier = head_in_words(start, splits.class_names)
        if recipe.freeze == "all":
            classifier = "its classifier is fitted anew"
        notify(f"Starts from {job.start}: {recipe.network}; {classifier}")
        if recipe.zero_init is not None:
            notify("zero_init is not used: it sets first weights, and these are those of --from")
    refuse_large_images(network.architecture, preprocessing)
    return replace(job, recipe=recipe), network, preprocessing


def _check_own_network(
    network: nn.Module, recipe: Recipe, images: "_Sample", white: White
) -> tuple[nn.Module, Preprocessing]:
    """A network of the user's own, and what it sees, once it is found to fit the images."""
    refuse_settings(network, recipe)
    sizes = recipe.training_size or 0, recipe.image_size or 0
    channels = channels_of(network, sizes, len(images.images.class_names))
    seen = _Sample(images.images, images.indices, channels)
    return network, _measured_preprocessing(recipe, seen, white)


def on_device(network: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """The network on its device, in the layout of the recipe, frozen and compiled as it says."""
    network = network.to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.freeze is not None:
        assert isinstance(network, ResNet)  # `refuse_settings` says so of any other
        network.freeze(recipe.freeze)
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.hurried = True
    if recipe.compile:
        network.compile()
    return network


def _seed_all(seed: int, rank: int = 0) -> None:
    """Seed every generator that training may draw from, another way in every process."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)  # noqa: NPY002  (for code that draws from it)
    torch.manual_seed(seed + rank)


class _Sample(Sequence[np.ndarray]):
    """Some of the images, evenly spread, (H, W, C) uint8; large ones are decoded when asked for."""

    def __init__(self, images: LabelledImages, indices: Sequence[int], channels: int = 3) -> None:
        self.images, self.indices, self.channels = images, indices, channels
        self.cache: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if place in self.cache:
            return self.cache[place]
        image = self.images.image(self.indices[place], self.channels)
        if image.size <= _KEPT:
            self.cache[place] = image
        return image


def _sample(images: LabelledImages, count: int = SAMPLE) -> _Sample:
    """Some of the images, the same each time."""
    return _Sample(images, [int(index) for index in sampled(len(images), count)])


def _typical_side(images: Sequence[np.ndarray]) -> int:
    """The median of the images' shorter sides, in pixels; doubled until it is at least 16.

    Networks for small images halve their features twice: of 16 pixels, 4 are left. The embedded
    digits, of 8 pixels, are classified better when they are enlarged so.
    """
    side = int(np.median([min(image.shape[:2]) for image in images]))
    while side < 16:
        side *= 2
    return side


def _measured_preprocessing(
    recipe: Recipe, images: Sequence[np.ndarray], white: White = UNKNOWN
) -> Preprocessing:
    """What the network sees of an image, each channel with mean 0 and variance 1.

    Args:
        recipe: with its sizes decided.
        images: (H, W, C) uint8, some of those to train on.
        white: which value is white in images of 16 or 32 bits a value; they were decoded by it.
    """
    assert recipe.image_size is not None
    assert recipe.resize is not None
    channels = images[0].shape[-1]
    zero, one = (0.0,) * channels, (1.0,) * channels
    plain = Preprocessing(recipe.image_size, recipe.resize, zero, one, white)
    pixels = np.stack([plain.pixels(image) for image in images]) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    rounded = [
        tuple(round(float(v), 4) for v in values) for values in (mean, np.maximum(std, 0.01))
    ]
    return replace(plain, mean=rounded[0], std=rounded[1])


def _sizes_and_white(preprocessing: Preprocessing) -> dict[str, Any]:
    """What the recipe and the images decide, whatever the network to start from was trained on."""
    return {name: getattr(preprocessing, name) for name in ("size", "resize", "white")}


def _for_training(preprocessing: Preprocessing, recipe: Recipe) -> Preprocessing:
    """The same at the size of the training images."""
    size = recipe.training_size or preprocessing.size
    shorter = max(size, round(preprocessing.resize * size / preprocessing.size))
    return replace(preprocessing, size=size, resize=shorter)


def are_characters(class_names: Sequence[str]) -> bool:
    """Whether the classes are digits or letters, which mirroring makes wrong.

    >>> are_characters(["0", "1", "2"]), are_characters(["3 - three", "4 - four"])
    (True, True)
    >>> are_characters(["cat", "dog"])
    False
    """
    words = [name.casefold().replace("-", " ").split() for name in class_names]
    return all(name and all(len(word) == 1 or word in _NUMBERS for word in name) for name in words)


def without_flips(recipe: Recipe) -> Recipe:
    """The recipe with augmentations that do not mirror."""
    return replace(recipe, augmentation=replace(recipe.augmentation, flip="none"))


def _start_network_notices(setup: Setup) -> Iterator[str]:
    """Notices about images that the start network was trained on, one line each."""
    left = setup.total_others - len(setup.others)
    if left:
        yield f"--other {setup.job.other}: {left_out_in_words(left)}."
    history, start_network = setup.ancestors, setup.splits.split.get("start_network")
    if not history or start_network is None:
        return
    yield f"The start network was trained on {history.in_words()}."
    if history.unknown:
        yield (
            f"It cannot be checked whether that includes images here ({history.unknown}); if it "
            "does, accuracy and thresholds measured here are too good."
        )
    trained = start_network["trained_on"].get("train", 0)
    if trained:
        yield (
            f"Of the training images here it was trained on {trained:,}; validation and test have "
            "none of these."
        )
    elif not history.unknown:
        yield "No image here was among them."
    for name, count in start_network["left_out"].items():
        if count:
            left_out = plural(count, f"{name} image")
            yield f"{left_out} left out: it was trained or validated on them."
    again = start_network["validated_on"].get("validation", 0)
    if again:
        yield (
            f"It was validated on {again:,} of the validation images here, too: not enough others "
            "are new to it."
        )


_FEW_STEPS = 15  # from scratch, after which photos are told apart better than by chance


def too_few_steps(setup: Setup, steps: int) -> Iterator[str]:
    """What to say, and to do, where so few steps teach a fresh network next to nothing.

    See `results/small_sets.json`: on 219 photos of ants and bees, after 2 to 10 steps few networks
    were shown to be better than chance, after 15 all were. Small images are told apart sooner.
    """
    job, recipe = setup.job, setup.job.recipe
    is_photo = bool(recipe.augmentation.smallest_crop)  # as chosen for images above 64 pixels
    if job.start or recipe.freeze is not None or not is_photo or steps >= _FEW_STEPS:
        return
    longer = "a longer --budget" if job.budget else "--epochs"
    yield (
        f"{plural(steps, 'step')} from scratch: with fewer than {_FEW_STEPS}, a network tells "
        f"photos apart hardly better than by chance. What helps: more steps ({longer}; "
        f"{LEAST_STEPS} are usual for few photos), smaller images (--image-size), or weights "
        "that were trained on photos already (--from resnet18, or a file)."
    )


def withheld(setup: Setup) -> str:
    """Why a threshold is no promise: what the start network has seen; empty if nothing is."""
    if not setup.ancestors:
        return ""
    if setup.keeps_classifier:
        return f"the classifier is that of {setup.job.start}, trained on other images before"
    start_network = setup.splits.split.get("start_network") or {}
    if start_network.get("validated_on", {}).get("validation", 0):
        return f"{setup.job.start} was validated on some of the validation images"
    return ""
