"""`resnets train`: from labelled images to a trained network."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg

from resnets.commands.arguments import parse as parse_words
from resnets.commands.help_text import asks_for_help
from resnets.commands.mistakes import EMPTY
from resnets.commands.train_help import train_help
from resnets.errors import UsageError
from resnets.escaping import say, say_text
from resnets.runs.freezing import refuse_unused
from resnets.runs.job import (
    AUTO,
    SCRATCH,
    Job,
    asked_by,
    names_weights,
    refuse_changes,
    refuse_other_words,
    starting_recipe,
)
from resnets.runs.launch import repeated_words
from resnets.runs.refusals import note_refusal
from resnets.training.recipe import Recipe

_OUTPUT = "--output"  # the folder of --resume where none follows it


@dataclass(frozen=True)
class Arguments(Job):
    """Train a network on labelled images.

    The run is a folder: config.toml, log.jsonl, checkpoints/ and, in the end, model.safetensors,
    which every other command takes. Ctrl-C saves a checkpoint and stops; --resume goes on from it.

        resnets train digits --network resnet14
        resnets train photos --budget 20m
        resnets train photos --from model.safetensors --freeze 2 --epochs 5
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
    """Continue the run in this folder (without a value: in --output), as if it had not stopped."""
    overwrite: bool = False
    """Replace the run that is in --output."""
    recipe_name: Annotated[str, arg(name="recipe", metavar="NAME|FILE.toml")] = "quick"
    """Recipe to start from: quick, transfer (used with --from if you name none), paper, strong,
    imagenet, or a TOML file. Other flags change it; their defaults are its values. docs/recipes.md
    lists the source of each recipe, and where it differs (paper: mean per channel, not per pixel;
    imagenet: mixing per image, rate per step)."""
    own: Suppress[str | None] = None
    start_sha256: Suppress[str | None] = None
    set_by_user: Suppress[tuple[str, ...] | None] = None
    torchrun_id: Suppress[str | None] = None
    asked: Suppress[str | None] = None
    fold: Suppress[int] = 0
    recipe: OmitArgPrefixes[Recipe] = field(default_factory=Recipe)


def main(argv: Sequence[str]) -> int:
    """Train as the flags say. Returns the exit code."""
    if asks_for_help(argv):
        words = [word for word in argv if word not in ("-h", "--help", "--help-all")]
        default = Arguments(recipe=recipe_of(words))
        say_text(train_help(Arguments, default, everything="--help-all" in argv).rstrip("\n"))
        return 0
    try:
        return _main(argv)
    except UsageError as error:
        note_refusal(error)
        raise


def _main(argv: Sequence[str]) -> int:
    """Train, or go on with a run. Returns the exit code."""
    folder, words = _take_resume(argv)
    if folder is not None:
        job_before = Job.of_run(folder)
        began_by = repeated_words(argv)
        if job_before.asked is not None and began_by is not None and _names_data(began_by):
            asked = _new_job(began_by)[0]
            refuse_other_words(job_before, asked, folder, set_by_flags(began_by))
            return _run_training(job_before, folder, resume=True)
        _check_beside_resume(words, folder)
        job = _job_of(_parse(words, Arguments(**_fields_of(job_before))))
        refuse_changes(job_before, job)
        return _run_training(job, folder, resume=True)
    job, output, overwrite = _new_job(words)
    return _run_training(replace(job, asked=asked_by(job)), output, overwrite=overwrite)


def _new_job(words: Sequence[str]) -> tuple[Job, Path | None, bool]:
    """What the words of a new run ask for; its folder; and whether it may replace another run."""
    default = Arguments(recipe=recipe_of(words), start=start_of(words))
    arguments = _parse(words, default)
    if not arguments.data:
        raise UsageError(
            "no data given: name a data set or a folder, such as `resnets train digits`"
        )
    refuse_unused(arguments.recipe, default.recipe, _flag(words, "--optimizer"))
    output = Path(arguments.output) if arguments.output else None
    job = replace(_job_of(arguments), set_by_user=given_by(words, arguments.start))
    return job, output, arguments.overwrite


def _names_data(words: Sequence[str]) -> bool:
    """Whether DATA is among words, as in those that begin a run."""
    return bool(_parse(words, Arguments(recipe=recipe_of(words), start=start_of(words))).data)


def check_words(words: Sequence[str], program: str) -> Job:
    """What the words of a training ask for that is to run elsewhere.

    Args:
        words: as for `main`.
        program: the command that got them, for its error messages.

    Raises:
        UsageError: `resnets train` would refuse them before it looks at the data.
    """
    if _take_resume(words)[0] is not None:
        raise UsageError("--resume: leave it out; a run that has begun is resumed by itself")
    default = Arguments(recipe=recipe_of(words), start=start_of(words))
    arguments = _parse(words, default, program)
    if arguments.overwrite:
        raise UsageError(
            "--overwrite: leave it out; a job that is started again goes on with its run, and must "
            "not replace it: delete the older run, or name another --output"
        )
    if not arguments.data:
        raise UsageError("no data given: name a data set or a folder that every machine can reach")
    if arguments.recipe.network != AUTO:
        from resnets.networks.catalog import select  # imports torch, which --help does not need

        select(arguments.recipe.network)
    refuse_unused(arguments.recipe, default.recipe, _flag(words, "--optimizer"))
    return replace(_job_of(arguments), set_by_user=given_by(words, arguments.start))


def _run_training(
    job: Job, output: Path | None, *, resume: bool = False, overwrite: bool = False
) -> int:
    """Train with a progress display; Ctrl-C saves and stops. Returns the exit code."""
    began = time.monotonic()
    from resnets.runs.progress import open_display  # imports torch, which --help does not need
    from resnets.runs.stop_signals import Interrupted
    from resnets.runs.train import train_as_command

    try:
        with open_display() as display:
            train_as_command(
                job,
                output,
                resume=resume,
                overwrite=overwrite,
                callbacks=[display],
                began=began,
            )
    except Interrupted as stop:
        for line in stop.in_words():
            say(line, flush=True)
        return 128 + stop.signal
    return 0


def _parse(words: Sequence[str], default: Arguments, program: str = "resnets train") -> Arguments:
    """Let flags change the default."""
    parsed: Arguments = parse_words(Arguments, program, words, default=default)
    return parsed


def _job_of(arguments: Arguments) -> Job:
    """The part of the arguments that a run keeps in its folder."""
    job = Job(**_fields_of(arguments))
    return replace(job, start=None) if job.start == SCRATCH else job


def _fields_of(job: Job) -> dict[str, Any]:
    """The fields of a job by name."""
    return {item.name: getattr(job, item.name) for item in fields(Job)}


def _take_resume(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder to resume (None for a new run) and the other words.

    >>> folder, words = _take_resume(["--resume", "--output", "runs/a"])
    >>> folder.as_posix(), words
    ('runs/a', ['--output', 'runs/a'])

    Raises:
        UsageError: if no folder is named.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?", const=_OUTPUT, action="append", default=[])
    asked, words = parser.parse_known_args(argv)
    if not asked.resume:
        return None, words
    if len(asked.resume) > 1:
        raise UsageError(f"--resume is given twice, {' and '.join(asked.resume)}; give it once")
    (folder,) = asked.resume
    if not folder:
        raise UsageError(EMPTY.format("--resume"))
    folder = _flag(words, "--output") if folder is _OUTPUT else folder
    if not folder:
        raise UsageError("--resume needs the folder of a run, such as one below runs/")
    return Path(folder), words


def _check_beside_resume(words: Sequence[str], folder: Path) -> None:
    """Say which flags mean nothing where a run goes on.

    Raises:
        UsageError: another folder is named.
    """
    output = _flag(words, "--output")
    if output is not None and Path(output) != folder:
        raise UsageError(
            f"--output {output}: a run that is resumed stays in its folder, {folder}; leave it out"
        )
    for flag in ("--overwrite", "--recipe"):
        if any(word.partition("=")[0] == flag for word in words):
            say(f"{flag} is not used: the run goes on as it began", file=sys.stderr)


def _flag(words: Sequence[str], name: str) -> str | None:
    """The value of one flag, before all of them are parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(name, dest="value", nargs="?")
    return parser.parse_known_args(words)[0].value  # type: ignore[no-any-return]


def start_of(words: Sequence[str]) -> str | None:
    """Where a training starts from if the flags do not say: a recipe that is named, from scratch.

    Without one, photos start from published weights in the cache.
    """
    return AUTO if _flag(words, "--recipe") is None else None


def given_by(words: Sequence[str], start: str | None) -> tuple[str, ...] | None:
    """Names of what flags set, where trained weights choose the recipe; None where they do not.

    >>> given_by(["photos", "--learning-rate=0.1", "--no-nesterov"], AUTO)
    ('learning_rate', 'nesterov')
    """
    if start != AUTO and not (names_weights(start) and _flag(words, "--recipe") is None):
        return None
    return set_by_flags(words)


def set_by_flags(words: Sequence[str]) -> tuple[str, ...]:
    """Names of what flags set.

    >>> set_by_flags(["photos", "--learning-rate=0.1", "--no-nesterov"])
    ('learning_rate', 'nesterov')
    """
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    return tuple(sorted(flag[2:].replace("-", "_").removeprefix("no_") for flag in flags))


def recipe_of(words: Sequence[str]) -> Recipe:
    """The recipe that the flags start from: by --recipe, --network and --optimizer.

    Raises:
        UsageError: if there is no such recipe or file.
        ContentError: if the file is not a recipe.
    """
    names = [_flag(words, name) for name in ("--recipe", "--network", "--optimizer")]
    start = _flag(words, "--from")
    return starting_recipe(*names, from_weights=names_weights(start))
