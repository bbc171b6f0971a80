"""`resnets train`: from labelled images to a trained network."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from resnets.errors import ContentError, UsageError
from resnets.files import read_text
from resnets.runs.job import Job
from resnets.training.recipe import FOR_OPTIMIZER, Recipe, named_recipe, with_optimizer

MAY_CHANGE = {
    "data", "device", "checkpoint_every", "keep", "log_every", "log_to", "max_error", "recipe",
    "report", "other",
}  # fmt: skip
RECIPE_MAY_CHANGE = {"threads", "workers"}


@dataclass(frozen=True)
class Arguments(Job):
    """Train a network on labelled images.

    The run is a folder: config.toml, log.jsonl, checkpoints/ and, in the end, model.safetensors,
    which every other command takes. Ctrl-C saves the state and stops; --resume goes on from there.

        resnets train digits --network resnet14
        resnets train FOLDER_OF_CLASS_FOLDERS --budget 20m
        resnets train FOLDER_OF_CLASS_FOLDERS --from model.safetensors --freeze 2 --epochs 5
        resnets train --resume runs/resnet14-2025-01-31-1
        torchrun --nproc-per-node 8 -m resnets train DATA --recipe imagenet
    """

    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    start: Annotated[str | None, arg(name="from", metavar="FILE")] = None
    budget: Annotated[str | None, arg(metavar="TIME")] = None
    group_by: Annotated[str | None, arg(metavar="HOW")] = None
    output: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Folder of the run. Unset: a fresh one, runs/NETWORK-DATE-NUMBER."""
    resume: Annotated[str | None, arg(metavar="[FOLDER]")] = None
    """Go on with the run in this folder (alone: in --output), as if it had never stopped."""
    overwrite: bool = False
    """Replace the run that is in --output."""
    named: Annotated[str, arg(name="recipe", metavar="NAME|FILE.toml")] = "quick"
    """Recipe to start from: quick, paper, strong, imagenet, or a TOML file. The flags below change
    it; their defaults are its values. docs/recipes.md says what each follows, and where it differs
    (paper: mean by channel, not by pixel; imagenet: mixing by image, rate by step)."""
    recipe: OmitArgPrefixes[Recipe] = field(default_factory=Recipe)


def main(argv: Sequence[str]) -> int:
    """Train as the flags say. Returns the exit code."""
    folder, words = take_resume(argv)
    if folder is not None:
        return resume(folder, words)
    given = parse(words, Arguments(recipe=starting_recipe(words)))
    if not given.data:
        raise UsageError("train on what? `resnets train digits` is a first try")
    output = Path(given.output) if given.output else None
    from resnets.runs.train import carry_out  # torch: only once --help is out of the way

    return carry_out(job_of(given), output, overwrite=given.overwrite)


def resume(folder: Path, words: Sequence[str]) -> int:
    """Go on with a run, by the flags that may change."""
    from resnets.runs.train import carry_out

    asked = Job.of_run(folder)
    job = job_of(parse(words, Arguments(**values(asked))))
    refuse_changes(asked, job)
    return carry_out(job, folder, resume=True)


def parse(words: Sequence[str], default: Arguments) -> Arguments:
    """Let flags change the default."""
    return tyro.cli(Arguments, prog="resnets train", args=list(words), default=default)


def values(job: Job) -> dict[str, Any]:
    """The fields of a job by name."""
    return {item.name: getattr(job, item.name) for item in fields(Job)}


def job_of(arguments: Arguments) -> Job:
    """The part of the arguments that a run keeps in its folder."""
    return Job(**values(arguments))


def take_resume(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder to resume, None for a new run, and the other words.

    >>> take_resume(["--resume", "--output", "runs/a"])
    (PosixPath('runs/a'), ['--output', 'runs/a'])

    Raises:
        UsageError: if no folder is named.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?", const="")
    asked, words = parser.parse_known_args(argv)
    if asked.resume is None:
        return None, words
    folder = asked.resume or flag(words, "--output")
    if not folder:
        raise UsageError("resume which run? --resume FOLDER, such as one below runs/")
    return Path(folder), words


def flag(words: Sequence[str], name: str) -> str | None:
    """The value of one flag, before all of them are parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, dest="value", nargs="?")
    return parser.parse_known_args(words)[0].value  # type: ignore[no-any-return]


def starting_recipe(words: Sequence[str]) -> Recipe:
    """The recipe that the flags start from: by --recipe, --network and --optimizer.

    Raises:
        UsageError: if there is no such recipe or file.
        ContentError: if the file is no recipe.
    """
    name, optimizer = flag(words, "--recipe") or "quick", flag(words, "--optimizer")
    recipe = (
        read_recipe(Path(name))
        if name.endswith(".toml")
        else named_recipe(name, flag(words, "--network"))
    )
    if optimizer not in FOR_OPTIMIZER:  # none, or one that the parser will refuse
        return recipe
    return with_optimizer(recipe, optimizer)


def read_recipe(file: Path) -> Recipe:
    """The recipe of a TOML file, which may be the configuration of a run."""
    if not file.is_file():
        raise UsageError(f"--recipe {file}: no such file")
    try:
        text = read_text(file)
    except UnicodeDecodeError:
        raise ContentError(f"{file}: not a text in UTF-8") from None
    try:
        return Job.from_toml(text).recipe if "\n[recipe]\n" in text else Recipe.from_toml(text)
    except ContentError as error:
        raise ContentError(f"{file}: {error}") from None


def refuse_changes(asked: Job, now: Job) -> None:
    """A run that goes on keeps its recipe, so that it ends as if it had not stopped.

    Raises:
        UsageError: if something else is asked for now; it names what.
    """
    refuse_difference(values(asked), values(now), MAY_CHANGE)
    refuse_difference(asdict(asked.recipe), asdict(now.recipe), RECIPE_MAY_CHANGE)


def refuse_difference(before: dict[str, Any], now: dict[str, Any], may_change: set[str]) -> None:
    """Refuse another value for anything that must not change."""
    for name in before.keys() - may_change:
        if before[name] != now[name]:
            raise UsageError(
                f"a resumed run keeps what it was asked: {name} is {before[name]!r}, not "
                f"{now[name]!r}; start a new run to change it (--from takes up its weights)"
            )
