"""Notices of a run: what it trains, its start network and its length, one line each."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from resnets.data.augmentation.augmentation import SMALLEST_CROP, SMALLEST_CROP_OF_A_SHORT_RUN
from resnets.evaluation.enlarging import much_enlarged
from resnets.evaluation.other_images import left_out_in_words
from resnets.format import percent, plural
from resnets.pretrained.table import start_for_photos
from resnets.runs.frozen_features import features_in_words
from resnets.runs.setup import Setup
from resnets.training.parallel import batch_norm_notice
from resnets.training.recipe import FEW_STEPS, LEAST_STEPS, Recipe
from resnets.training.trainer import Trainer

_LEAST_SIDE = 32  # pixels at which networks for photos still see something


def introduction(setup: Setup, trainer: Trainer) -> Iterator[str]:
    """What is about to be trained, in a few words; and what is unusual about it."""
    recipe, splits = setup.job.recipe, setup.splits
    weights = sum(weight.numel() for weight in setup.network.parameters())
    steps_done = f" ({trainer.step:,} are done)" if trainer.step else ""
    if recipe.freeze == "all":
        if trainer.finished:
            return
        yield (
            f"{recipe.network}: its classifier is fitted to the features of "
            f"{plural(len(splits.train), 'image')} of "
            f"{plural(len(splits.class_names), 'class')} at {recipe.image_size} pixels, on "
            f"{setup.device}"
        )
        yield features_in_words(setup)
        return
    yield (
        f"{recipe.network} ({plural(weights, 'weight')}) on {plural(len(splits.train), 'image')} "
        f"of {plural(len(splits.class_names), 'class')} at {recipe.training_size} pixels, "
        f"{plural(trainer.steps, 'step')} of {trainer.batches.sizes_in_words}{steps_done} "
        f"on {setup.device}"
    )
    if not trainer.step:
        largest = trainer.batches.images_of(trainer.batches.steps_per_epoch - 1)
        if 4 * largest <= 3 * recipe.batch:
            yield (
                f"An epoch has {plural(trainer.batches.steps_per_epoch, 'batch')} of "
                f"{trainer.batches.sizes_in_words}, so that all have about as many images: fewer "
                f"than the --batch-size of {recipe.batch:,}, to which the learning rate belongs"
            )
        yield from _too_few_steps(setup, trainer.steps)
        if trainer.recipe.patience and trainer.measured.validation is None:
            yield "--patience has no effect: there are no validation images."
    notice = batch_norm_notice(
        setup.network.train(),
        trainer.batches.images_of(0),
        setup.process.world_size,
        trainer.recipe.accumulate,
        trainer.recipe.sync_batch_norm,
    )
    if notice is not None:
        yield notice


def start_network_notices(setup: Setup) -> Iterator[str]:
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


def rate_without_optimizer(recipe: Recipe, set_by_user: Collection[str]) -> Iterator[str]:
    """Which optimizer a rate is for, where trained weights brought one that nobody named.

    Args:
        recipe: how the run trains.
        set_by_user: names of what the user has set.
    """
    has_rate_alone = "learning_rate" in set_by_user and "optimizer" not in set_by_user
    if not recipe.fit_head_first or not has_rate_alone:
        return
    usual = replace(recipe, learning_rate=None, batch_size=None).rate
    yield (
        f"--learning-rate {recipe.learning_rate:g} is for {recipe.optimizer}, the optimizer of the "
        f"recipe transfer, by which weights to start from are trained further: {usual:g} is usual, "
        "less for batches of less than 128 images (--optimizer chooses another)"
    )


def _too_few_steps(setup: Setup, steps: int) -> Iterator[str]:
    """What to say, and to do, where so few steps teach a fresh network next to nothing.

    See `results/small_sets.json`: on 219 photos of ants and bees, after 2 to 10 steps few networks
    were shown to be better than chance, after 15 all were. Small images are told apart sooner.
    """
    job, recipe = setup.job, setup.job.recipe
    is_photo = bool(recipe.augmentation.smallest_crop)  # as chosen for images above 64 pixels
    if job.start or recipe.freeze is not None or not is_photo or steps >= FEW_STEPS:
        return
    longer = "a longer --budget" if job.budget else "--epochs"
    start = start_for_photos(recipe.network)
    size = recipe.training_size or recipe.image_size
    smaller = "smaller images (--image-size), " if size is None or size > _LEAST_SIDE else ""
    yield (
        f"{plural(steps, 'step')} from scratch: with fewer than {FEW_STEPS}, a network tells "
        f"photos apart hardly better than by chance. What helps: more steps ({longer}; "
        f"{LEAST_STEPS} are usual for few photos), {smaller}or weights that"
        f" were trained on photos already (--from {start}, or a file)."
    )


def crops_in_words(asked: Recipe, recipe: Recipe) -> Iterator[str]:
    """What is said of crops that were chosen for a run of few epochs.

    Args:
        asked: the recipe before what is unset was chosen.
        recipe: the same afterwards.
    """
    smallest, before = recipe.augmentation.smallest_crop, asked.augmentation.smallest_crop
    is_chosen = before is None and smallest == SMALLEST_CROP_OF_A_SHORT_RUN
    if is_chosen and recipe.freeze != "all":
        yield (
            f"Random crops keep at least {percent(smallest or 0, 0)} of a photo, as the run has "
            f"few epochs ({percent(SMALLEST_CROP, 0)} in longer runs; --smallest-crop sets it)"
        )


def enlarged_in_words(side: int, size: int) -> Iterator[str]:
    """What is said where images are enlarged much before the network sees them.

    Args:
        side: a typical image's shorter side, in pixels.
        size: the side at which the network sees it.
    """
    if line := much_enlarged(side, size):
        smaller = max(_LEAST_SIDE, 2 * side)
        yield (f"{line}. --image-size {smaller} is faster; measure which predicts better")


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
