"""All that a training run decides before its first step."""

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnets import model_file
from resnets.data.batches import EvaluationBatches, Place, TrainingBatches, evaluation_batches
from resnets.data.deep import SAMPLE, find_depth, sampled
from resnets.data.grouping import GroupBy
from resnets.data.labelled import LabelledImages
from resnets.data.membership import NONE, Generation, Members, TrainedOn, member_digests, union
from resnets.data.sources.opening import Data, Opened, open_source
from resnets.data.splits import Drawing, Splits
from resnets.errors import ContentError, UsageError
from resnets.evaluation.exposure import drawn_again, own_generation
from resnets.evaluation.other_images import left_out, new_only, open_others
from resnets.evaluation.predict import Source
from resnets.images import Preprocessing, White
from resnets.images.white import UNKNOWN
from resnets.model_file import Description
from resnets.networks import Architecture, ResNet, build
from resnets.networks.catalog import display_name
from resnets.networks.checkpoints.foreign import load_checkpoint
from resnets.networks.limits import refuse_claims, refuse_large_images, refuse_unsound
from resnets.networks.norms import BatchNorm2d
from resnets.runs import checkpoint
from resnets.runs.checkpoint import State, fitting
from resnets.runs.job import Job
from resnets.training.optimisation import make_loss
from resnets.training.recipe import Recipe
from resnets.training.trainer import Trainer


@dataclass(frozen=True)
class Start:
    """A network as it was trained before.

    Attributes:
        network: on the CPU.
        class_names: of its logits; None where its file does not say.
        preprocessing: what it was trained to see; None where its file does not say.
        history: what it was trained on; with one generation at least.
        description: what its file says of it; None where it says less.
    """

    network: ResNet
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    history: TrainedOn
    description: Description | None = None


def fresh_network(recipe: Recipe, num_classes: int) -> ResNet:
    """The recipe's network, freshly initialised. The recipe's network must be decided."""
    return build(recipe.network, num_classes=num_classes, **recipe.network_changes())


def read_start(path: Path, num_classes: int) -> Start:
    """Read a network from a run's folder, a model file, a training state or a foreign checkpoint.

    Args:
        path: of the file or folder.
        num_classes: of the fresh classifier that a foreign checkpoint without any gets.

    Raises:
        UsageError: if there is nothing there.
        ContentError: if it cannot be used.
    """
    try:
        path = model_file.find_weights(path)
    except UsageError as error:
        raise UsageError(f"--from {error}") from None
    if checkpoint.NAME.fullmatch(path.name):
        return from_state(checkpoint.read(path), path.name)
    if path.suffix == ".safetensors" and "format" in model_file.read_header(path):
        model = model_file.load(path)
        description = model.description
        return Start(
            model.network,
            description.class_names,
            description.preprocessing,
            history_of(description.trained_on, path.name, description.data),
            description,
        )
    nobody = Generation("", unknown=f"{path.name} does not say which")
    network = load_checkpoint(path, num_classes=num_classes)
    return Start(network, None, None, TrainedOn((nobody,)))


def history_of(trained_on: Any, name: str, data: Mapping[str, Any]) -> TrainedOn:
    """What a file of ours says of the images that its network was trained on.

    Args:
        trained_on: as it stands in the file; empty in those of earlier versions.
        name: of the file.
        data: as `Description.data`.

    Raises:
        ContentError: it is damaged.
    """
    found = TrainedOn.from_dict(trained_on)
    if found:
        return found
    counts = data.get("counts", {})
    train, validation = (sum(counts.get(split, {}).values()) for split in ("train", "validation"))
    unknown = f"{name} has no digests of them"
    return TrainedOn((Generation(str(data.get("source", "")), train, validation, unknown=unknown),))


def from_state(state: dict[str, Any], name: str) -> Start:
    """The network of a training state: the mean of its weights, if it has one.

    Args:
        state: as it was saved.
        name: of its file.
    """
    with checkpoint.fitting(name):
        trainer = state["trainer"]
        average = trainer["average"]
        weights = average["network"] if average and average["updates"] else trainer["network"]
        network = with_weights(Architecture.from_dict(state["architecture"]), weights)
        preprocessing = Preprocessing.from_dict(state["preprocessing"])
        history = history_of(state.get("trained_on", {}), name, {})
        return Start(network, tuple(state["class_names"]), preprocessing, history)


def with_weights(architecture: Architecture, weights: dict[str, Tensor]) -> ResNet:
    """A network of that architecture, with those weights."""
    refuse_claims(architecture, {name: tuple(value.shape) for name, value in weights.items()})
    network = build(architecture)
    refuse_unsound(weights, "the network to start from")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ContentError(f"the weights do not fit the network: {error}") from None
    return network


def continued(start: Start, recipe: Recipe, class_names: Sequence[str]) -> ResNet:
    """The network for new training: changed as the recipe says, and with a head for the classes."""
    architecture = replace(start.network.architecture, **recipe.network_changes())
    network = with_weights(architecture, start.network.state_dict())
    return network if keeps_head(start, class_names) else network.replace_head(len(class_names))


def keeps_head(start: Start, class_names: Sequence[str]) -> bool:
    """Whether the classifier is for these classes, or for as many where nobody knows which."""
    if start.class_names is None:
        return start.network.architecture.num_classes == len(class_names)
    return start.class_names == tuple(class_names)


def fitting_recipe(recipe: Recipe, start: Start) -> Recipe:
    """The recipe with the network that was read, and the image size that it was trained with."""
    recipe = replace(recipe, network=display_name(start.network.architecture))
    seen = start.preprocessing
    if recipe.image_size or seen is None:
        return recipe
    return replace(recipe, image_size=seen.size, resize=recipe.resize or seen.resize)


KEPT = 1 << 20  # bytes of an image in the sample that stays in memory
NUMBERS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


class Sample(Sequence[np.ndarray]):
    """Some of the images, evenly spread, (H, W, 3) uint8; large ones are decoded when asked for."""

    def __init__(self, images: LabelledImages, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices
        self.kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if place in self.kept:
            return self.kept[place]
        image = self.images.image(self.indices[place])
        if image.size <= KEPT:
            self.kept[place] = image
        return image


def sample(images: LabelledImages, count: int = SAMPLE) -> Sample:
    """Some of the images, the same each time."""
    return Sample(images, [int(index) for index in sampled(len(images), count)])


def typical_side(images: Sequence[np.ndarray]) -> int:
    """The median of the images' shorter sides, in pixels; doubled until it is at least 16.

    Networks for small images halve their features twice: of 16 pixels, 4 are left. The embedded
    digits, of 8 pixels, are classified better when they are enlarged so.
    """
    side = int(np.median([min(image.shape[:2]) for image in images]))
    while side < 16:
        side *= 2
    return side


def measured_preprocessing(
    recipe: Recipe, images: Sequence[np.ndarray], white: White = UNKNOWN
) -> Preprocessing:
    """What the network sees of an image, each channel with mean 0 and variance 1.

    Args:
        recipe: with its sizes decided.
        images: (H, W, 3) uint8, some of those to train on.
        white: which value is white in images of 16 or 32 bits a value; they were decoded by it.
    """
    assert recipe.image_size is not None
    assert recipe.resize is not None
    plain = Preprocessing(recipe.image_size, recipe.resize, (0.0,) * 3, (1.0,) * 3, white)
    pixels = np.stack([plain.pixels(image) for image in images]) / 255
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))
    rounded = [
        tuple(round(float(v), 4) for v in values) for values in (mean, np.maximum(std, 0.01))
    ]
    return replace(plain, mean=rounded[0], std=rounded[1])


def for_training(preprocessing: Preprocessing, recipe: Recipe) -> Preprocessing:
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
    return all(name and all(len(word) == 1 or word in NUMBERS for word in name) for name in words)


def without_flips(recipe: Recipe) -> Recipe:
    """The recipe with augmentations that do not mirror."""
    return replace(recipe, augmentation=replace(recipe.augmentation, flip="none"))


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed every generator that training may draw from, another way in every process."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)  # noqa: NPY002  (for code that draws from it)
    torch.manual_seed(seed + rank)


Say = Callable[[str], None]

NOT_KEPT = "--no-image-digests left them out"


@dataclass(frozen=True)
class Ready:
    """All that is decided before the first step.

    Attributes:
        ancestors: what the network that this one starts from was trained on; empty if there is
            none.
        keeps_classifier: whether the classifier is that network's.
    """

    job: Job
    splits: Splits
    network: ResNet
    preprocessing: Preprocessing
    device: torch.device
    place: Place
    ancestors: TrainedOn = field(default_factory=TrainedOn)
    keeps_classifier: bool = False
    others: tuple[Source, ...] = ()  # images of none of the classes
    total_others: int = 0  # with those that are left out because the network sees them

    @cached_property
    def trained_on(self) -> TrainedOn:
        """What the network will have seen once it is trained, and what it saw before."""
        own = Generation.of(
            str(self.splits.split["source"]),
            self.members["train"],
            self.members.get("validation", NONE),
        )
        return self.ancestors.after(replace(own, keeps_classifier=self.keeps_classifier))

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

    def trainer(self, network: ResNet) -> Trainer:
        """A trainer that has not begun, for this network or a copy of it."""
        recipe, splits = self.job.recipe, self.splits
        batches = TrainingBatches(
            splits.train,
            for_training(self.preprocessing, recipe),
            recipe.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            place=self.place,
            workers=recipe.workers,
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
        workers = self.job.recipe.workers
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
            "trained_on": self.history_to_save() if self.place.rank == 0 else {},
        }

    def history_to_save(self) -> dict[str, Any]:
        """For a training state: all digests of the ancestors, by which splits are drawn again."""
        own = self.trained_on.generations[0]
        if not self.job.image_digests:
            own = own.without_digests(NOT_KEPT)
        return self.ancestors.after(own).to_dict(most=sys.maxsize)


def get_ready(
    job: Job,
    state: State | None,
    device: torch.device,
    place: Place,
    say: Say,
    data: Data | None = None,
) -> Ready:
    """Open the data and decide what is left open, or what a saved state has decided.

    Args:
        job: what is asked for.
        state: the state to go on from; None for a new run.
        device: where to compute.
        place: which process this is.
        say: tells a person.
        data: the images, where they are not on disk under the name that the job has for them.
    """
    if job.group_by is not None:
        GroupBy.parse(job.group_by)  # before all images are read
    opened = open_source(job.data if data is None else data, skip_unreadable=job.skip_unreadable)
    seed_all(job.recipe.seed)  # a foreign network may get a fresh classifier
    start = None
    if state is None and job.start:
        start = read_start(Path(job.start), len(opened.parts.class_names))
    ancestors, kept = known_before(state, start, opened, job)
    recipe = job.recipe
    others = tuple(open_others(job.other, recipe.seed)) if job.other else ()
    drawing = replace(Drawing.of(state or {}), group_by=job.group_by)
    splits = opened.splits((recipe.validation, recipe.seed), drawing=drawing, avoid=ancestors)
    if job.group_by is not None:
        groups = ", ".join(f"{n:,} in {name}" for name, n in splits.split["groups"].items())
        say(f"Groups by {job.group_by}: {groups}")
    for line in (*splits.warnings, *(f"left out {name}: {why}" for name, why in splits.skipped)):
        say(line)
    if state is None:
        job, network, preprocessing = decide(job, splits, start, say)
    else:
        with fitting(job.data):
            architecture = Architecture.from_dict(state["architecture"])
            network = with_weights(architecture, state["trainer"]["network"])
            preprocessing = Preprocessing.from_dict(state["preprocessing"])
    splits = splits.with_white(preprocessing.white)
    seed_all(recipe.seed, place.rank)
    network = placed(network, job.recipe, device)
    ready = Ready(job, splits, network, preprocessing, device, place, ancestors, kept)
    if job.other:
        ready = with_others(ready, others, job.other)
    for line in seen_before(ready):
        say(line)
    return ready


def with_others(ready: Ready, others: Sequence[Source], source: str) -> Ready:
    """With images of none of the classes: none of those that the network will have seen.

    Raises:
        UsageError: none is left.
    """
    history = ready.trained_on
    seen = union([history.trained, history.validated, ready.members.get("test", NONE)])
    return replace(ready, others=tuple(new_only(others, seen, source)), total_others=len(others))


def known_before(
    state: State | None, start: Start | None, opened: Opened, job: Job
) -> tuple[TrainedOn, bool]:
    """What the network that training starts from has seen; and whether its classifier stays.

    Args:
        state: the state to go on from, if the run goes on: splits are drawn as when it began.
        start: the network to start from.
        opened: the data.
        job: what is asked for.
    """
    if state is not None:
        found = TrainedOn.from_dict(state.get("trained_on", {}))
        if found:
            return found.ancestors, found.generations[0].keeps_classifier
        nobody = Generation("", unknown="the run was begun by an earlier version")
        return (TrainedOn((nobody,)), True) if job.start else (TrainedOn(), False)
    if start is None:
        return TrainedOn(), False
    return completed(start, opened), keeps_head(start, opened.parts.class_names)


def completed(start: Start, opened: Opened) -> TrainedOn:
    """What a network has seen, by splits drawn again where its file has no digests of these data.

    A training state of an earlier version does not say by which seed its splits were drawn.
    """
    first, *others = start.history.generations
    if not first.unknown or start.description is None:
        return start.history
    same, splits = drawn_again(opened, start.description)
    return TrainedOn((own_generation(splits), *others)) if same else start.history


def seen_before(ready: Ready) -> Iterator[str]:
    """Notices about images that the start network was trained on, one line each."""
    left = ready.total_others - len(ready.others)
    if left:
        yield f"--other {ready.job.other}: {left_out(left)}."
    history, found = ready.ancestors, ready.splits.split.get("start_network")
    if not history or found is None:
        return
    yield f"The start network was trained on {history.in_words()}."
    if history.unknown:
        yield (
            f"It cannot be checked whether that includes images here ({history.unknown}); if it "
            "does, accuracy and thresholds measured here are too good."
        )
    trained = found["trained_on"].get("train", 0)
    if trained:
        yield (
            f"Of the training images here it was trained on {trained:,}; validation and test have "
            "none of these."
        )
    elif not history.unknown:
        yield "No image here was among them."
    for name, count in found["left_out"].items():
        if count:
            yield f"{count:,} {name} images are left out: it was trained or validated on them."
    again = found["validated_on"].get("validation", 0)
    if again:
        yield (
            f"{again:,} of the validation images are those that it was validated on: there are too "
            "few that are new to it."
        )


def withheld(ready: Ready) -> str:
    """Why a threshold is no promise: what the start network has seen; empty if nothing is."""
    if not ready.ancestors:
        return ""
    if ready.keeps_classifier:
        return f"the classifier is that of {ready.job.start}, trained on other images before"
    found = ready.splits.split.get("start_network") or {}
    if found.get("validated_on", {}).get("validation", 0):
        return f"{ready.job.start} was validated on some of the validation images"
    return ""


def decide(
    job: Job, splits: Splits, start: Start | None, say: Say
) -> tuple[Job, ResNet, Preprocessing]:
    """The job with its recipe settled for the images, the network and what it sees."""
    recipe = job.recipe
    depth = find_depth(splits.train)
    for line in depth.in_words():
        say(line)
    images = sample(splits.train.with_white(depth.white))
    if start is not None:
        recipe = fitting_recipe(recipe, start)
    recipe = recipe.settled(typical_side(images))
    mirrors = recipe.augmentation.flip != "none"
    if mirrors and not job.mirror_characters and are_characters(splits.class_names):
        recipe = without_flips(recipe)
        say(
            "Flips are off: the classes look like digits or letters, which are others or none when "
            "mirrored (--mirror-characters turns flips on)"
        )
    preprocessing = measured_preprocessing(recipe, images, depth.white)
    if start is None:
        network = fresh_network(recipe, len(splits.class_names))
    else:
        network = continued(start, recipe, splits.class_names)
        known = start.preprocessing or preprocessing
        preprocessing = replace(preprocessing, mean=known.mean, std=known.std)
        kept = "kept" if keeps_head(start, splits.class_names) else "fresh, for other classes"
        say(f"Starts from {job.start}: {recipe.network}; its classifier is {kept}")
    refuse_large_images(network.architecture, preprocessing)
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
