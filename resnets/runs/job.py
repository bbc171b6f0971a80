"""The settings of a training run, from flags or keywords. No torch here, so that --help is fast."""

import difflib
import hashlib
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from resnets.addresses import AS_FILE, refuse_address
from resnets.data.augmentation.augmentation import Augmentation
from resnets.errors import ContentError, RenamedWarning, UnknownName, UsageError
from resnets.escaping import shell_line
from resnets.fields import Between, check, from_toml, to_toml
from resnets.files.reading import read_text
from resnets.run_files import CONFIG
from resnets.runs.freezing import refuse_unused
from resnets.runs.loggers import Service
from resnets.training.named_recipes import named_recipe, with_optimizer
from resnets.training.recipe import EARLIER_NAMES, FOR_OPTIMIZER, NETWORK_FIELDS, Positive, Recipe


@dataclass(frozen=True)
class Job:
    """The settings of a run, as its config.toml holds them."""

    data: str = ""
    """What to train on: digits, a folder of class folders, of parquet files or of shards, an
    archive, a table of paths and labels, hub:NAME, or the address of shards."""
    cache: str | None = None
    """For data at an address: how much of it to keep on the local disk, such as 50GB."""
    start: str | None = None
    """Start from the weights of a run, model file, checkpoint, or published id (resnet50 ...).
    none: from scratch. Unset, and no --recipe: for photos, published weights in the cache."""
    start_sha256: str | None = None
    """SHA-256 of the published weights that the run started from."""
    ignore_left_over: bool = False
    """With --from: leave out weights of a checkpoint that are not understood, and list them."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda, mps, xpu, or such as cuda:1."""
    budget: str | None = None
    """Time for all of the run, with the scores and the report, such as 20m. Reading the data counts
    for a quarter of it at most. The number of epochs is set from the speed of a few steps, and
    adjusted as training goes on."""
    checkpoint_every: str = "2m"
    """How often to save a checkpoint within an epoch: a duration such as 90s, or a number of steps.
    One is saved after every validation in any case."""
    wait_for_processes: str | None = None
    """How long processes of torchrun wait for each other before they end and name the missing one,
    such as 10m; reading images may take them unequally long. Unset: 30m."""
    keep: Positive = 2
    """How many of the newest checkpoints to keep; the best one is kept as well."""
    log_every: Positive = 20
    """Steps between two records in log.jsonl."""
    log_to: tuple[Service, ...] = ()
    """Services to log to as well. TensorBoard events are written whenever it is installed."""
    follow_test: bool = False
    """Also score the test images after every epoch, for a curve; they do not influence training."""
    group_by: str | None = None
    """Keep related images in the same split, such as those of one patient: folder:LEVEL (1 is
    the folder below the class folder), pattern:REGEX (for the path, with one group) or column:NAME
    (of a table or parquet file)."""
    folds: Annotated[int, Between(2)] | None = None
    """Number of folds of a cross-validation, for fewer than about 1,000 images. Each fold is
    predicted by a network that was trained on the others; the accuracy is that of all folds
    together. The network that is kept is trained on all images."""
    fold: Annotated[int, Between(0)] = 0
    """Which fold is left out, in the run of one fold."""
    class_level: int | None = None
    """Which folders are the classes: 1 for those in DATA (or in its split folders), 2 for those one
    level below. Unset: 1, unless these look like splits or variants of one data set."""
    train_folder: str | None = None
    """Folder of the training images in DATA, where it is not called train."""
    validation_folder: str | None = None
    """Folder of the validation images in DATA, where it is not called val."""
    test_folder: str | None = None
    """Folder of the test images in DATA, where it is not called test."""
    verbose: bool = False
    """Name every file in DATA that is skipped because it is not an image."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and list them, instead of ending with an error."""
    max_error: Annotated[float, Between(0, 1)] = 0.02
    """Target error rate of the predictions with the status ok; less probable ones are unsure."""
    other: str | None = None
    """Folder of images of none of the classes. Half of them are used to choose the threshold of the
    status unfamiliar, the other half to measure how many get that status."""
    mirror_characters: bool = False
    """Allow flips even if the class names look like digits or letters."""
    image_digests: bool = True
    """Store 8 bytes of a digest of each training and validation image in the model file, so that
    `evaluate` can tell which images are new to the network."""
    report: bool = True
    """Write report.html into the run's folder at the end."""
    set_by_user: tuple[str, ...] | None = None
    """Names of what the user has set, where trained weights, if any, choose the recipe; None once
    they have."""
    own: str | None = None
    """Names of the parts that are the user's own Python code, which no file holds."""
    torchrun_id: str | None = None
    """A digest of torchrun's id and of what was asked for: if torchrun starts the processes again,
    the run goes on."""
    asked: str | None = None
    """A digest of what the words of the command asked for: `asked_by`."""
    recipe: Recipe = field(default_factory=Recipe)
    """How to train."""

    def to_toml(self) -> str:
        """The text of config.toml."""
        return to_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> "Job":
        """Read what `to_toml` wrote. Raises ContentError if the text is anything else."""
        return from_toml(cls, text)

    @classmethod
    def of_run(cls, folder: Path) -> "Job":
        """The settings of the run in a folder.

        Raises:
            UsageError: there is no run.
            ContentError: its configuration is damaged; the message names the file.
        """
        from resnets.runs.folder import read_config

        text = read_config(folder)
        try:
            job = cls.from_toml(text)
        except ContentError as error:
            raise ContentError(f"{folder / CONFIG}: {error}") from None
        if not job.data:
            raise ContentError(
                f"{folder / CONFIG}: does not hold the settings of the run (it is empty or cut "
                "off); put back a copy of it, or start a new run (--from takes up saved weights)"
            )
        return job


def new_job(
    data: str,
    network: str,
    recipe: str | os.PathLike[str] | Recipe | None,
    changes: Mapping[str, Any],
    own: str | None = None,
) -> Job:
    """The job for keyword arguments.

    Args:
        data: name of the data.
        network: name of the network; "auto" is the recipe's own.
        recipe: a recipe, its name, or a TOML file; None: as `starting_recipe` says.
        changes: fields of `Job`, `Recipe` and `Augmentation` by the names of their flags.
        own: `CustomParts.names`; an augmentation of the user's own takes the place of the recipe's.

    Raises:
        UnknownName: there is no such field.
        UsageError: a value is not allowed, or there is no such recipe.
    """
    is_named = recipe is not None
    if not isinstance(recipe, Recipe):
        name = None if network == "auto" else network
        start = next((changes[key] for key in ("start", *_START_ALIASES) if changes.get(key)), None)
        if start is None and own is None and recipe is None:
            changes = {**changes, "start": AUTO}
        recipe = None if recipe is None else os.fspath(recipe)
        recipe = starting_recipe(
            recipe, name, changes.get("optimizer"), from_weights=names_weights(start)
        )
    elif network != "auto":
        recipe = replace(recipe, network=network)
    parts = dict(part.split(" ", 1) for part in own.split(", ")) if own else {}
    if "network" in parts:
        of_resnets: dict[str, Any] = dict.fromkeys(NETWORK_FIELDS)
        recipe = replace(recipe, network=parts["network"], **of_resnets)
    if "augmentation" in parts:
        recipe = replace(recipe, augmentation=Augmentation(smallest_crop=0.0, crop_padding=0))
    job = changed_job(Job(data=data, own=own, recipe=recipe), changes)
    if job.start == AUTO or (not is_named and names_weights(job.start)):
        job = replace(job, set_by_user=_set_by_user(changes, "recipe" * is_named, *parts))
    refuse_unused(job.recipe, recipe, changes.get("optimizer"))
    return job


def _set_by_user(changes: Mapping[str, Any], *others: str) -> tuple[str, ...]:
    """What keyword arguments and parts of the user's own set, by the names of today."""
    names = {EARLIER_NAMES.get(name, name) for name in changes}
    return tuple(sorted(names.union(filter(None, others))))


def changed_job(job: Job, changes: Mapping[str, Any]) -> Job:
    """The job with some of its fields changed, those of its recipe and augmentation included.

    >>> changed_job(Job(), {"epochs": 4, "flip": "random", "report": False}).recipe.epochs
    4

    Raises:
        UnknownName: there is no such field.
        UsageError: a value is not allowed.
    """
    for name in changes.keys() & EARLIER_NAMES:
        now = f"{name} is called {EARLIER_NAMES[name]} now"
        warnings.warn(now, RenamedWarning, stacklevel=3)
    aliases = _ALIASES | EARLIER_NAMES
    changes = {aliases.get(name, name): _plain(value) for name, value in changes.items()}
    for name in changes:
        if name not in CHANGES:
            near = difflib.get_close_matches(name, CHANGES, n=3, cutoff=0.4)
            hint = f"the nearest are {', '.join(near)}" if near else "there is nothing like it"
            raise UnknownName(
                f"{name}: no such argument; {hint}. Allowed are the names of the flags that "
                f"`resnets train --help-all` lists: {', '.join(sorted(CHANGES))}"
            )

    def of(kind: type) -> dict[str, Any]:
        return {item.name: changes[item.name] for item in fields(kind) if item.name in changes}

    if changes.get("start") == SCRATCH:
        changes["start"] = None
    recipe = replace(job.recipe, **of(Recipe))
    augmentation = of(Augmentation)
    if augmentation:
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, **augmentation))
    job = replace(job, **of(Job), recipe=recipe)
    check(job)
    return job


SCRATCH, AUTO = "none", "auto"  # in place of the weights to start from; a run keeps neither
_START_ALIASES = ("from", "from_")  # the flag is --from, which is no name in Python
_ALIASES = dict.fromkeys(_START_ALIASES, "start")


def names_weights(start: object) -> bool:
    """Whether what a user gave for the weights to start from names any."""
    return bool(start) and start not in (SCRATCH, AUTO)


_APART = {
    "data",
    "network",
    "own",
    "recipe",
    "replanned",
    "start_sha256",
    "fold",
    "set_by_user",
    "torchrun_id",
    "asked",
}  # arguments of their own, or internal
CHANGES = {  # keywords of `resnets.train` beside those of its signature, with their defaults
    item.name: item.default
    for kind in (Job, Recipe, Augmentation)
    for item in fields(kind)
    if item.name not in _APART
}


def _plain(value: Any) -> Any:
    """A value as a field holds it: a path as text, a list as a tuple, a number of NumPy as one."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value


def starting_recipe(
    name: str | None = None,
    network: str | None = None,
    optimizer: str | None = None,
    *,
    from_weights: bool = False,
) -> Recipe:
    """The recipe that flags or keywords start from.

    Args:
        name: of a recipe, or a TOML file. None: transfer from weights, else quick.
        network: whose own values of a named recipe to take.
        optimizer: whose rate and decay to take; an unknown name is refused later.
        from_weights: whether the weights of a network are given, which then takes the place of the
            recipe's; one that is asked for by its name must be the same.

    Raises:
        UsageError: if there is no such recipe or file.
        ContentError: if the file is not a recipe.
    """
    name = name or ("transfer" if from_weights else "quick")
    recipe = _read_recipe(Path(name)) if name.endswith(".toml") else named_recipe(name, network)
    if network is not None or from_weights:
        recipe = replace(recipe, network=network or "auto")
    return with_optimizer(recipe, optimizer) if optimizer in FOR_OPTIMIZER else recipe


def _read_recipe(file: Path) -> Recipe:
    """The recipe of a TOML file, which may be the configuration of a run."""
    if not file.is_file():
        refuse_address(file, AS_FILE)
        raise UsageError(f"--recipe {file}: no such file")
    try:
        text = read_text(file)
    except UnicodeDecodeError:
        raise ContentError(f"{file}: not a text in UTF-8") from None
    try:
        return Job.from_toml(text).recipe if "\n[recipe]\n" in text else Recipe.from_toml(text)
    except ContentError as error:
        raise ContentError(f"{file}: {error}") from None


_MAY_CHANGE = {
    *("data", "device", "checkpoint_every", "keep", "log_every", "log_to", "max_error", "recipe"),
    *("report", "other", "verbose", "torchrun_id", "cache", "wait_for_processes", "asked"),
}
_RECIPE_MAY_CHANGE = {"threads", "workers"}
_NAMED = 6  # differences that are named, those that the user asked for first


def refuse_changes(asked: Job, now: Job) -> None:
    """A run that goes on keeps its recipe, so that it ends as if it had not stopped.

    Raises:
        UsageError: if something else is asked for now; it names what.
    """
    _refuse_difference(_all_values(asked), _all_values(now), _MAY_CHANGE | _RECIPE_MAY_CHANGE)


def asked_by(job: Job) -> str:
    """A digest of what a new job asks for, but for what a run may change when it goes on."""
    others = _MAY_CHANGE - {"data"}
    settings = {name: value for name, value in _values(job).items() if name not in others}
    recipe = {k: v for k, v in asdict(job.recipe).items() if k not in _RECIPE_MAY_CHANGE}
    return hashlib.sha256(repr((sorted(settings.items()), recipe)).encode()).hexdigest()


def refuse_other_words(begun: Job, asked: Job, folder: Path, names: Collection[str]) -> None:
    """Go on with a run only by the words that it was begun with.

    Args:
        begun: the run's own settings, some of which it has chosen itself since.
        asked: what the words ask for, as if the run were new.
        folder: of the run.
        names: of what flags set; "recipe" stands for all of it.

    Raises:
        UsageError: they ask for another run; it names what differs of what they set.
    """
    if begun.asked == asked_by(asked):
        return
    before, now = _all_values(begun), _all_values(asked)
    by_flag = {_ALIASES.get(name, name) for name in names}
    recipe = asdict(asked.recipe) | asdict(asked.recipe.augmentation)
    by_recipe = {name for name, value in recipe.items() if "recipe" in names and value is not None}
    may_change = _MAY_CHANGE | _RECIPE_MAY_CHANGE
    order = [*sorted(by_flag - may_change), *sorted(by_recipe - by_flag - may_change)]
    differences = [
        f"{_flag_of(name)} is {_in_words(before[name])} there, not {_in_words(now[name])}"
        for name in ("data", *order)
        if name in now and before[name] != now[name]
    ]
    words = "; ".join(differences[:_NAMED]) or "with other flags"
    resume = shell_line("resnets", "train", "--resume", folder)
    raise UsageError(
        f"{folder}: holds a run that other words began ({words}): name another "
        f"--output, go on with that run by `{resume}`, or delete it"
    )


def _values(job: Job) -> dict[str, Any]:
    """The fields of a job by name."""
    return {item.name: getattr(job, item.name) for item in fields(Job)}


def _all_values(job: Job) -> dict[str, Any]:
    """What flags set, by name: of the job, of its recipe and of that one's augmentation."""
    recipe = asdict(job.recipe)
    augmentation = recipe.pop("augmentation")
    return {**_values(job), **recipe, **augmentation}


def _flag_of(name: str) -> str:
    """The flag of a field.

    >>> _flag_of("image_size"), _flag_of("start"), _flag_of("data")
    ('--image-size', '--from', 'DATA')
    """
    if name == "data":
        return "DATA"
    return f"--{'from' if name == 'start' else name.replace('_', '-')}"


def _in_words(value: Any) -> str:
    """A value as on a command line.

    >>> _in_words(None), _in_words(False), _in_words((1, 2)), _in_words("digits")
    ('unset', 'off', '1 2', 'digits')
    """
    if value is None or isinstance(value, bool):
        return {None: "unset", False: "off", True: "on"}[value]
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _refuse_difference(before: dict[str, Any], now: dict[str, Any], may_change: set[str]) -> None:
    """Refuse another value for anything that must not change."""
    for name in sorted(before.keys() - may_change):
        if before[name] != now[name]:
            raise UsageError(
                f"a resumed run keeps what it was asked: {name} is {_in_words(before[name])}, not "
                f"{_in_words(now[name])}; start a new run to change it (--from takes up its "
                "weights)"
            )
