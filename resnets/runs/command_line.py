"""The command that trains a network again, from its run or its model file."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from resnets.data.membership import TrainedOn
from resnets.data.sources.opening import IN_MEMORY
from resnets.errors import ContentError
from resnets.fields import differences, from_table
from resnets.model_file import Description
from resnets.networks.catalog import CATALOG
from resnets.pretrained.reference import pinned
from resnets.run_files import CONFIG
from resnets.runs.characters import are_characters
from resnets.runs.freezing import has_use
from resnets.runs.job import Job
from resnets.training.named_recipes import RECIPES, named_recipe, with_optimizer
from resnets.training.recipe import Recipe

_NEW_LINE = " \\\n  "
_FLAGS = {"start": "from"}  # of a job's fields, where they are not called the same
_UNKNOWN_START = ""  # in place of what a training started from, whose file has no name for it
_OF_MACHINE_AND_IMAGES = ("memory_gb", "channels")  # of a recipe, whatever else it has
_MAY_BE_UNSET = {item.name for item in fields(Recipe) if item.type == bool | None}
_LEFT_OUT = {
    "data",
    "recipe",
    "budget",
    "keep",
    "log_every",
    "log_to",
    "checkpoint_every",
    "report",
    "cache",
    "start_sha256",
    "fold",
    "torchrun_id",
    "asked",
    "wait_for_processes",
}


def training_command(description: Description, run: Path | None = None) -> str:
    """The command, as a shell takes it, on several lines; empty if too little is known.

    Args:
        description: of the network.
        run: its folder, if that is at hand.
    """
    job = _job_of(description, run)
    if job is None or _has_no_words(job) or job.start == _UNKNOWN_START:
        return ""
    return _NEW_LINE.join(map(shlex.join, _command(job)))


def command_to_change(description: Description, run: Path | None = None) -> str:
    """The same in one line, to which other flags can be added; by the run's own recipe if it can.

    Args:
        description: of the network.
        run: its folder, if that is at hand.
    """
    job = _job_of(description, run)
    if run is None or job is None or _has_no_words(job) or job.start == _UNKNOWN_START:
        return training_command(description, run).replace(_NEW_LINE, " ")
    words = [["resnets", "train", job.data], ["--recipe", (run / CONFIG).as_posix()]]
    return shlex.join(word for part in [*words, *_job_flags(job)] for word in part)


def command_by_default(description: Description, run: Path | None = None) -> str:
    """The command that trains on the same data by default settings; empty if nobody knows which.

    What was set because of the machine or the images stays.

    Args:
        description: of the network.
        run: its folder, if that is at hand.
    """
    job = _job_of(description, run)
    if job is None or _has_no_words(job):
        return ""
    kept = [name for name in _OF_MACHINE_AND_IMAGES if has_use(name, job.recipe)]
    values = [(name, getattr(job.recipe, name)) for name in kept]
    flags = [_flag(name, value) for name, value in values if value != getattr(Recipe(), name)]
    words = [["resnets", "train", job.data], *flags, *_job_flags(replace(job, start=None))]
    return shlex.join(word for part in words for word in part)


def budget_of(run: Path | None) -> str:
    """The time that a run was allowed, as on its command line; empty if any, or if nobody knows."""
    if run is None or not (run / CONFIG).is_file():
        return ""
    try:
        return Job.of_run(run).budget or ""
    except ContentError:
        return ""  # of another version of this package


def _has_no_words(job: Job) -> bool:
    """Whether what was trained on, or a part of the run, is a value in a Python program."""
    return bool(job.own) or job.data.startswith(IN_MEMORY)


def _job_of(description: Description, run: Path | None) -> Job | None:
    """What the training was asked to do."""
    if run is not None and (run / CONFIG).is_file():
        try:
            return Job.of_run(run)
        except ContentError:
            return None  # of another version of this package
    source, recipe = description.data.get("source"), description.recipe
    if not source or not recipe:
        return None
    try:
        trained_recipe = from_table(Recipe, recipe)
        ancestors = TrainedOn.from_dict(description.trained_on).ancestors
        max_error = float(description.calibration.get("max_error", Job.max_error))
    except (ContentError, TypeError, ValueError):
        return None  # of another version of this package
    if trained_recipe.network not in CATALOG:
        return None  # of a file that this one does not name
    mirrored = trained_recipe.augmentation.flip != "none"
    return Job(
        data=str(source),
        start=pinned(ancestors.generations[0].origin) if ancestors else None,
        max_error=max_error,
        mirror_characters=mirrored and are_characters(description.class_names),
        skip_unreadable=bool(description.data.get("skipped")),
        group_by=description.data.get("group_by"),
        folds=description.data.get("folds"),
        recipe=trained_recipe,
    )


def _command(job: Job) -> list[list[str]]:
    """The command's words, each flag with its values: the nearest recipe, and what differs."""
    recipe = job.recipe
    nearest = min(RECIPES, key=lambda name: len(_changes(name, recipe)))
    words = [["resnets", "train", job.data], ["--recipe", nearest]]
    if recipe.network in CATALOG:  # another is in the file that the run started from
        words.append(["--network", recipe.network])
    words += [_flag(*change) for change in _changes(nearest, recipe)]
    return [*words, *_job_flags(job)]


def _job_flags(job: Job) -> list[list[str]]:
    """The flags for what is asked beside the recipe."""
    return [
        _flag(_FLAGS.get(name, name), value)
        for name, value in differences(job, Job(recipe=job.recipe))
        if name not in _LEFT_OUT
    ]


def _changes(name: str, recipe: Recipe) -> list[tuple[str, Any]]:
    """What the flags must change of a named recipe, for the network of this one."""
    start = replace(named_recipe(name, recipe.network), network=recipe.network)
    others = differences(recipe, with_optimizer(start, recipe.optimizer))
    other_optimizer = recipe.optimizer != start.optimizer  # whose flag brings other values along
    changes = [("optimizer", recipe.optimizer)] * other_optimizer + list(others)
    if recipe.freeze == "all" and start.epochs is None:  # it has one epoch by itself
        changes = [change for change in changes if change[0] != "epochs"]
    return [change for change in changes if has_use(change[0].rpartition(".")[2], recipe)]


def _flag(name: str, value: Any) -> list[str]:
    """A flag as `resnets train` reads it: without the name of the table that a field is in.

    >>> _flag("image_size", 16), _flag("augmentation.flip", "none"), _flag("nesterov", False)
    (['--image-size', '16'], ['--flip', 'none'], ['--no-nesterov'])
    >>> _flag("zero_init", False)  # which may be unset
    ['--zero-init', 'False']
    """
    last = name.rpartition(".")[2].replace("_", "-")
    if isinstance(value, bool) and name not in _MAY_BE_UNSET:
        return [f"--{'' if value else 'no-'}{last}"]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{last}", *map(str, values)]
