"""Prepares a run: opens the data, settles the recipe and makes the network."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from glob import has_magic
from pathlib import Path

import numpy as np
import torch
from torch import nn

from resnets.data.batches import ProcessRank
from resnets.data.grouping import GroupBy
from resnets.data.labelled import LabelledImages
from resnets.data.membership import NONE, Generation, TrainedOn, union
from resnets.data.sources.layout import CLASSES_FIRST, UNSPECIFIED, Layout, layout_of_flags
from resnets.data.sources.objects import Data
from resnets.data.sources.opening import (
    DataSource,
    leads_nowhere,
    open_source,
    read_source,
    with_cache,
)
from resnets.data.splits import SourceContent, SplitRule, Splits
from resnets.data.white_level import find_white_level
from resnets.errors import ContentError, OtherImages, UnreadableImage, UsageError
from resnets.escaping import shell_line
from resnets.evaluation.exposure import own_generation, redraw_splits
from resnets.evaluation.other_images import open_others, without_seen, without_similar
from resnets.evaluation.source import Source
from resnets.format import plural
from resnets.images import Preprocessing, White
from resnets.networks import Architecture, ResNet
from resnets.networks.catalog import select
from resnets.networks.limits import refuse_large_images
from resnets.networks.norms import BatchNorm2d
from resnets.networks.resnet import least_side
from resnets.pretrained.reference import pinned
from resnets.runs.characters import are_characters, without_flips
from resnets.runs.checkpoint import State, fitting
from resnets.runs.custom_parts import (
    NO_CUSTOM_PARTS,
    CustomParts,
    channels_of,
    notices,
    refuse_fit,
    refuse_settings,
)
from resnets.runs.freezing import refuse_missing_stage
from resnets.runs.image_statistics import (
    ImageSample,
    measured_preprocessing,
    median_side,
    plain_preprocessing,
    sample_images,
    typical_side,
)
from resnets.runs.job import AUTO, Job
from resnets.runs.notices import (
    crops_in_words,
    enlarged_in_words,
    rate_without_optimizer,
    start_network_notices,
)
from resnets.runs.published_start import Agree, published_start
from resnets.runs.setup import Setup
from resnets.runs.starting_point import (
    StartingPoint,
    continued,
    fresh_network,
    head_in_words,
    keeps_head,
    read_starting_point,
    recipe_for_start,
    with_weights,
)
from resnets.runs.supervision import refuse_other_images
from resnets.training.named_recipes import transferring
from resnets.training.parallel import first_of_machine_first, from_first
from resnets.training.recipe import Recipe, are_photos

_RGB = 3  # channels
_ENOUGH_FOR_SIDE = 64  # images
Notify = Callable[[str], None]  # takes a line for the user


def prepare(
    job: Job,
    state: State | None,
    device: torch.device,
    process: ProcessRank,
    notify: Notify,
    custom: CustomParts = NO_CUSTOM_PARTS,
    agree: Agree | None = None,
) -> Setup:
    """Open the data and decide what is left open, or what a saved state has decided.

    Args:
        job: what is asked for.
        state: the state to go on from; None for a new run.
        device: where to compute.
        process: which of several processes this is.
        notify: takes lines for the user.
        custom: the parts that are the user's own code.
        agree: whether the user wants to download weights to start from; None asks nobody.
    """
    with first_of_machine_first(notify):
        data_source = _open_data(job, custom, state)
    job = replace(job, data=data_source.source)  # of a data set of the hub, with the commit
    if job.start == AUTO:
        job = _with_start_chosen(job, data_source, custom, process, notify, agree)
    for line in rate_without_optimizer(job.recipe, job.set_by_user or ()):
        notify(line)
    job = replace(job, set_by_user=None)
    recipe = job.recipe
    _seed_all(recipe.seed)  # a foreign network may get a fresh classifier
    start = None
    if state is None and job.start:
        start = _start_of(job, len(data_source.content.class_names), notify)
        job = _with_start_pinned(job, start)
    ancestors, keeps_classifier = _ancestors_of(state, start, data_source, job)
    others = tuple(open_others(job.other, recipe.seed)) if job.other else ()
    splits = _split(data_source, job, state, ancestors, notify)
    for line in notices(custom, recipe):
        notify(line)
    if state is None:
        job, network, preprocessing = _new_network(job, splits, start or custom.network, notify)
    else:
        network, preprocessing = _from_state(state, job, custom.network)
    splits = splits.with_white(preprocessing.white)
    _seed_all(recipe.seed, process.rank)
    network = on_device(network, job.recipe, device)
    setup = Setup(
        *(job, splits, network, preprocessing, device, process, ancestors, keeps_classifier),
        custom=custom,
    )
    if job.other:
        setup = _with_others(setup, others, job.other)
    for line in start_network_notices(setup):
        notify(line)
    return setup


def _open_data(job: Job, custom: CustomParts, state: State | None) -> DataSource:
    """The labelled images of a run, after what can be refused before they are read.

    Raises:
        UsageError: images cannot be grouped so, there is no such network, or it has no such stage.
        OtherImages: their classes or their number are not those of the state.
    """
    begun = state is not None
    if job.group_by is not None:
        GroupBy.parse(job.group_by)
    if custom.network is None and not begun:  # a run that goes on needs its start no more
        if job.start in (None, AUTO) and job.recipe.network != AUTO:
            select(job.recipe.network)
        refuse_missing_stage(job.recipe, None if job.start == AUTO else job.start)
    source, layout = _source(job, custom), _layout(job, begun=begun)
    refuse = partial(refuse_other_images, state or {}, job.skip_unreadable)
    return open_source(source, skip_unreadable=job.skip_unreadable, layout=layout, refuse=refuse)


def _source(job: Job, custom: CustomParts) -> Data:
    """What the labelled images of a run are read from."""
    return with_cache(job.data, job.cache) if custom.data is None else custom.data


def images_of(job: Job, custom: CustomParts) -> list[LabelledImages]:
    """All labelled images of a run's data, of each split of their own, unchecked."""
    content = read_source(_source(job, custom), _layout(job, begun=False))
    return list(content.images.values())


def _with_start_chosen(
    job: Job,
    data_source: DataSource,
    custom: CustomParts,
    process: ProcessRank,
    notify: Notify,
    agree: Agree | None,
) -> Job:
    """The job with published weights to start from, if the images are photos; else from scratch.

    Every process has the weights that the first one chose.
    """
    images = next(iter(data_source.checked.values())).images
    side = typical_side(sample_images(images, _ENOUGH_FOR_SIDE))
    start, lines = None, list[str]()
    if are_photos(side) and process.rank == 0:
        alone = process.world_size == 1
        start = published_start(job.recipe.network, lines.append, agree if alone else None)
    start = from_first(start)
    recipe = transferring(job.recipe, job.set_by_user or ()) if start else job.recipe
    refuse_fit(custom, recipe, start)  # before it is said that the training starts from scratch
    for line in lines:
        notify(line)
    return replace(job, start=start, recipe=recipe)


def _with_start_pinned(job: Job, start: StartingPoint) -> Job:
    """The job with what tells the weights that were read: commit and checksum of published ones.

    Raises:
        ContentError: the run that this one repeats started from others.
    """
    sha256 = start.published.get("sha256")
    if job.start_sha256 not in (None, sha256):
        raise ContentError(
            f"--from {job.start}: its SHA-256 is {sha256}, and that of the weights that the run "
            f"was begun with {job.start_sha256}: they were replaced"
        )
    return replace(job, start=pinned(start.published) or job.start, start_sha256=sha256)


def _layout(job: Job, *, begun: bool) -> Layout:
    """What is known of the folders; a run that goes on keeps what its images were at first."""
    split_folders = {
        "train": job.train_folder,
        "validation": job.validation_folder,
        "test": job.test_folder,
    }
    layout = layout_of_flags(job.class_level, split_folders, job.group_by)
    return CLASSES_FIRST if begun and layout == UNSPECIFIED else layout


def refuse_moved(job: Job, custom: CustomParts, folder: Path) -> None:
    """Refuse to go on with a run whose images are not where it found them.

    Raises:
        UsageError: it says how to name the place where they are now.
    """
    data = "" if custom.data is not None else job.data
    flags = ((data, "DATA", "data="), (job.other or "", "--other FOLDER", "other="))
    for source, flag, keyword in flags:
        if source and not has_magic(source) and leads_nowhere(source):
            resume = shell_line("resnets", "train", "--resume", folder)
            raise UsageError(
                f"{source}: no such file or folder, seen from {Path.cwd()}; the run in {folder} "
                "was begun with this path: continue from the folder where it was begun, or give "
                f"the path of the same images: {resume} {flag} (from Python: "
                f"resnets.resume({str(folder)!r}, {keyword}...))"
            )


@contextmanager
def naming_first_data(job: Job, folder: Path | None) -> Iterator[None]:
    """Where other data than a run began with cannot be used, say so and how to go on without.

    Args:
        job: of the run that goes on.
        folder: of that run; None for a new one.

    Raises:
        ContentError: as raised inside, with that behind it.
    """
    try:
        yield
    except UnreadableImage:  # of which others make a list
        raise
    except ContentError as error:
        before = Job.of_run(folder).data if folder else ""
        if not before or job.data == before:
            raise
        resume = shell_line("resnets", "train", "--resume", folder)
        kind = OtherImages if isinstance(error, OtherImages) else ContentError
        raise kind(
            f"{error}; the run in {folder} began with {before}, and DATA must hold the same "
            f"images: `{resume}` without DATA goes on with those"
        ) from None


def _split(
    data_source: DataSource, job: Job, state: State | None, ancestors: TrainedOn, notify: Notify
) -> Splits:
    """The images to train on, to validate on and to test on; as when the run began, if it did."""
    recipe = job.recipe
    split_rule = replace(
        SplitRule.of(state or {}), group_by=job.group_by, folds=job.folds or 0, fold=job.fold
    )
    splits = data_source.splits(
        (recipe.validation, recipe.seed), split_rule=split_rule, avoid=ancestors
    )
    if job.group_by is not None:
        groups = ", ".join(f"{n:,} in {name}" for name, n in splits.split["groups"].items())
        notify(f"Groups by {job.group_by}: {groups}")
    if job.verbose:
        for path, why in data_source.content.passed_over:
            notify(f"ignored {path}: {why}")
    for line in _drawn_from_train(splits, data_source.content):
        notify(line)
    left_out = (f"left out {name}: {why}" for name, why in splits.skipped)
    for line in (*splits.warnings, *splits.not_drawn, *left_out):
        notify(line)
    return splits


def _drawn_from_train(splits: Splits, content: SourceContent) -> Iterator[str]:
    """Which splits the training images gave, where a source has a train split of its own."""
    wanted = {"test": splits.test, "validation": splits.validation}
    drawn = [
        plural(len(images), f"{name} image")
        for name, images in wanted.items()
        if images is not None and name not in content.images
    ]
    if "train" in content.images and drawn:
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

    Those that look like training or validation images are left out too.

    Raises:
        UsageError: none is left.
    """
    history = setup.trained_on
    members = union([history.trained, history.validated, setup.members.get("test", NONE)])
    new = without_seen(others, members, source)
    new = without_similar(new, setup.splits.training_and_validation, setup.preprocessing, source)
    return replace(setup, others=tuple(new), total_others=len(others))


def _ancestors_of(
    state: State | None, start: StartingPoint | None, data_source: DataSource, job: Job
) -> tuple[TrainedOn, bool]:
    """What the network that training starts from has seen; and whether its classifier stays.

    Args:
        state: the state to go on from, if the run goes on: splits are drawn as when it began.
        start: the network to start from.
        data_source: the data.
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
    return _complete_history(start, data_source), keeps_head(start, data_source.content.class_names)


def _complete_history(start: StartingPoint, data_source: DataSource) -> TrainedOn:
    """What a network has seen, by splits drawn again where its file has no digests of these data.

    A training state of an earlier version does not say by which seed its splits were drawn.
    """
    first, *others = start.history.generations
    if not first.unknown or start.description is None:
        return start.history
    same, splits = redraw_splits(data_source, start.description)
    return TrainedOn((own_generation(splits), *others)) if same else start.history


def _start_of(job: Job, num_classes: int, notify: Notify) -> StartingPoint:
    """The network that a new run starts from; its classifier is as yet that of its file."""
    start = read_starting_point(
        Path(str(job.start)), num_classes, ignore_left_over=job.ignore_left_over
    )
    if start.left_out:
        notify(f"--from {job.start}: left out {', '.join(start.left_out)}")
    start.network.architecture.check_stage(job.recipe.freeze)
    return start


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
    images = sample_images(splits.train.with_white(depth.white))
    if isinstance(start, StartingPoint):
        recipe = recipe_for_start(recipe, start, str(job.start))
        if recipe.channels is None and _loses_colour(start, images):
            notify(f"{job.start} takes grey images, and those here have colours: it takes RGB now")
            recipe = replace(recipe, channels=3)
    asked, recipe = recipe, recipe.resolved(typical_side(images), len(splits.train))
    for line in (
        *enlarged_in_words(median_side(images), recipe.image_size or 0),
        *crops_in_words(asked, recipe),
    ):
        notify(line)
    if _flips_characters(job, recipe, splits.class_names):
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
    channels = recipe.channels or (start.network.architecture.in_channels if start else _RGB)
    images = ImageSample(images.images, images.indices, channels)
    preprocessing = None
    if start is None:
        network = fresh_network(recipe, len(splits.class_names))
    else:
        network = continued(start, recipe, splits.class_names)
        plain = plain_preprocessing(recipe, channels, depth.white)
        preprocessing = start.preprocessing_like(plain)
        for line in _start_in_words(job, start, recipe, splits.class_names):
            notify(line)
    if preprocessing is None:
        preprocessing = measured_preprocessing(recipe, images, depth.white)
    refuse_large_images(network.architecture, preprocessing)
    if job.recipe.progressive_resizing_scale is None:
        recipe = _large_enough(recipe, network.architecture)
    return replace(job, recipe=recipe), network, preprocessing


def _large_enough(recipe: Recipe, architecture: Architecture) -> Recipe:
    """The recipe without progressive resizing where its first images are too small."""
    first = recipe.first_side
    too_small = first is not None and first < least_side(architecture)
    return replace(recipe, progressive_resizing_scale=1.0) if too_small else recipe


def _flips_characters(job: Job, recipe: Recipe, class_names: Sequence[str]) -> bool:
    """Whether images of digits or letters would be mirrored, which nobody has asked for."""
    flips = recipe.augmentation.flip != "none"
    return flips and not job.mirror_characters and are_characters(class_names)


def _start_in_words(
    job: Job, start: StartingPoint, recipe: Recipe, class_names: Sequence[str]
) -> Iterator[str]:
    """What a run starts from, and what it makes of it."""
    classifier = head_in_words(start, class_names)
    if recipe.freeze == "all":
        classifier = "its classifier is fitted anew"
    elif recipe.fit_head_first and not keeps_head(start, class_names):
        classifier = "its classifier is replaced by one that is fitted to its features first"
    yield f"Starts from {job.start}: {recipe.network}; {classifier}"
    if start.unknown_preprocessing_in_words:
        yield f"{job.start}: {start.unknown_preprocessing_in_words}"
    if recipe.zero_init is not None:
        yield "zero_init is not used: it sets first weights, and these are those of --from"


def _loses_colour(start: StartingPoint, images: Sequence[np.ndarray]) -> bool:
    """Whether a network takes grey images, and some of these (H, W, 3) are not grey."""
    grey = start.network.architecture.in_channels == 1
    return grey and any((image != image[..., :1]).any() for image in images)


def _check_own_network(
    network: nn.Module, recipe: Recipe, images: ImageSample, white: White
) -> tuple[nn.Module, Preprocessing]:
    """A network of the user's own, and what it sees, once it is found to fit the images."""
    refuse_settings(network, recipe)
    sizes = recipe.training_size or 0, recipe.image_size or 0
    channels = channels_of(network, sizes, len(images.images.class_names))
    sample = ImageSample(images.images, images.indices, channels)
    return network, measured_preprocessing(recipe, sample, white)


def on_device(network: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """The network on its device, in the layout of the recipe, frozen and compiled as it says."""
    network = network.to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.freeze is not None or recipe.freeze_statistics:
        assert isinstance(network, ResNet)  # `refuse_settings` says so of any other
        network.freeze(recipe.freeze, statistics=bool(recipe.freeze_statistics))
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            module.fast_training = True
    if recipe.compile:
        network.compile()
    return network


def _seed_all(seed: int, rank: int = 0) -> None:
    """Seed every generator that training may draw from, another way in every process."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)  # noqa: NPY002  (for code that draws from it)
    torch.manual_seed(seed + rank)
