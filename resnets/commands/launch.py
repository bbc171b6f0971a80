"""``resnets launch``: train on many machines, by SLURM or Kubernetes, or rehearse it here."""

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from resnets.commands.arguments import parse
from resnets.commands.help_text import asks_for_help
from resnets.commands.mistakes import parts_of
from resnets.commands.parser import parser_of
from resnets.commands.train import check_words, set_by_flags
from resnets.errors import UsageError
from resnets.escaping import say, say_text
from resnets.format import duration_of_flag, plural
from resnets.runs.job import Job
from resnets.runs.launch import (
    IMAGE,
    Launch,
    System,
    launch_file,
    outside_volume,
    refuse_outside_volume,
    refuse_short,
)

_PROGRAM = "resnets launch"
_CONFIG = (tyro.conf.FlagCreatePairsOff,)
_ELSEWHERE = {  # what --on does not take, and the command for it
    "torchrun": "torchrun is started by hand: `torchrun --nproc-per-node GPUS -m resnets train "
    "DATA ...`; --rehearse N starts it here, and the files for slurm and kubernetes start it",
    "ray": "Ray predicts, and does not train: `resnets predict MODEL IMAGES --on ray`; a training "
    "takes slurm, kubernetes or --rehearse N",
}
_MINUTE = 60  # seconds


def main(argv: Sequence[str]) -> int:
    """Run ``resnets launch`` with ``argv``. Returns the exit code."""
    own, words = _own_and_others(argv)
    _refuse_other_systems(own)
    if asks_for_help(argv):
        own, words = ["--help"], []
    code: int = parse(launch, _PROGRAM, own, config=_CONFIG)(words=words)
    return code


def launch(
    *,
    on: System | None = None,
    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    nodes: int = 1,
    gpus: int = 8,
    cpus: int = 8,
    time_limit: Annotated[str | None, tyro.conf.arg(metavar="TIME")] = None,
    max_restarts: int = 3,
    image: str = IMAGE,
    print_: Annotated[bool, tyro.conf.arg(name="print")] = False,
    rehearse: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    words: tyro.conf.Suppress[tuple[str, ...]] = (),
) -> int:
    """Train on many machines: print the file for SLURM or Kubernetes, or rehearse it here.

    DATA and all other flags are those of `resnets train`, and are checked as there.

        resnets launch photos --output run --on slurm --nodes 16 --print > job.sh
        resnets launch photos --output run --rehearse 2

    torchrun starts a process for each GPU. A run that was begun is resumed, whatever starts the
    job again: torchrun after a process has died, SLURM or Kubernetes after a node has.

    Args:
        on: slurm (a script for sbatch) or kubernetes (a JobSet).
        output: folder of the run, which every machine can reach under this path.
        nodes: machines.
        gpus: GPUs of each machine, with a process each; 0: one process on the CPU.
        cpus: cores of each process.
        time_limit: limit for the job, such as 24h; SLURM saves a checkpoint before it, and queues
            the job again.
        max_restarts: how often the processes are started again after one has died.
        image: the container's image, for kubernetes.
        print_: print the file; nothing is submitted.
        rehearse: run the same on this machine, as N processes.
        words: of `resnets train`.
    """
    words = (*words, "--output", str(output or "run"))
    asked = check_words(words, "resnets launch")
    if output is None:
        raise UsageError("--output FOLDER is missing: a job that is started again resumes the run")
    job = Launch(
        words,
        output,
        nodes,
        gpus,
        cpus,
        max_restarts,
        _minutes(time_limit),
        image,
    )
    if rehearse is not None:
        if print_ or on:
            raise UsageError("--rehearse runs here: leave out --on and --print")
        command = job.rehearsal(rehearse)
        _tell_unused(job, time_limit)
        _refuse(asked, job, None, rehearse)
        if not asked.recipe.steps:
            say(
                f"Trains the whole run here, as {plural(rehearse, 'process')}; --steps 2 makes a "
                "short try of it",
                file=sys.stderr,
            )
        _become(command)
    if on is None or not print_:
        raise UsageError(
            "give --on slurm --print or --on kubernetes --print, which print a file to submit, or "
            "--rehearse N, which runs here"
        )
    text = launch_file(on, job).rstrip("\n")
    _refuse(asked, job, on, job.processes)
    if nodes == 1:
        devices = f"with {plural(gpus, 'GPU')}" if gpus else "without a GPU"
        say(f"for 1 machine {devices}; --nodes N is for N machines", file=sys.stderr)
    if on == "slurm" and image != IMAGE:
        say("--image is for kubernetes: it will have no effect", file=sys.stderr)
    if on == "kubernetes" and image == IMAGE:
        say(
            "--image is missing: no registry has `resnets`; give the name under which yours has "
            "the image of the Dockerfile",
            file=sys.stderr,
        )
    say_text(text)
    return 0


def _refuse_other_systems(words: Sequence[str]) -> None:
    """Refuse what others take for a system, with the command that they look for.

    Raises:
        UsageError: --on names one of these.
    """
    values = [after for word, after in pairwise(words) if word == "--on"]
    values += [word.partition("=")[2] for word in words if word.startswith("--on=")]
    for value in values:
        if value in _ELSEWHERE:
            raise UsageError(f"--on {value}: {_ELSEWHERE[value]}")


def _become(command: Sequence[str]) -> NoReturn:
    """Run a command in place of this process, so that signals to this process reach it.

    Windows has nothing like that: a new process would go on beside the shell.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        sys.exit(subprocess.run(command, check=False).returncode)
    else:
        os.execv(command[0], [*command])


def _tell_unused(job: Launch, time_limit: str | None) -> None:
    """Tell which flags of a job a rehearsal takes no heed of."""
    usual = Launch(job.words, job.folder)
    names = ("nodes", "gpus", "cpus", "image")
    unused = [f"--{name}" for name in names if getattr(job, name) != getattr(usual, name)]
    unused += ["--time-limit"] * (time_limit is not None)
    if unused:
        say(f"--rehearse runs here: {', '.join(unused)} will have no effect", file=sys.stderr)


def _refuse(asked: Job, job: Launch, on: System | None, on_machine: int) -> None:
    """Refuse a training that its processes would refuse, as far as this machine can tell.

    The paths of a job of SLURM are those of this machine, unless nothing is there. Those of
    Kubernetes are in a container.

    Args:
        asked: what its words ask for.
        job: that runs it.
        on: where it runs; None: here.
        on_machine: processes of each machine.
    """
    from resnets.data.sources.opening import leads_nowhere
    from resnets.runs.preconditions import (
        refuse_data,
        refuse_folder,
        refuse_in_use,
        refuse_processes,
    )
    from resnets.runs.train import refuse_settings  # imports torch, which --help does not need

    refuse_settings(asked)
    refuse_processes(asked, on_machine, on_machine * (1 if on is None else job.nodes))
    if on == "kubernetes":
        refuse_outside_volume(job.folder)
        for path in outside_volume(job.words):
            say(
                f"{path}: not on the volume, which a pod has as /data: it must be in the image; or "
                "copy it to the volume, and give its path from there",
                file=sys.stderr,
            )
        return
    if on is None or job.folder.exists():
        refuse_folder(asked, job.folder, set_by_flags(job.words))
    if on is None:
        refuse_in_use(job.folder)
    if on is not None and leads_nowhere(asked.data):
        say(f"{asked.data}: not on this machine, so it was not looked at", file=sys.stderr)
    else:
        refuse_data(asked.data)


def _minutes(time_limit: str | None) -> int | None:
    """A time limit in whole minutes, which SLURM counts; told where it is rounded up.

    Raises:
        UsageError: it is no duration, or too short.
    """
    if time_limit is None:
        return None
    seconds = duration_of_flag("--time-limit", time_limit)
    minutes = math.ceil(seconds / _MINUTE)
    refuse_short(minutes, time_limit)
    if minutes * _MINUTE != seconds:
        say(
            f"--time-limit {time_limit}: SLURM counts whole minutes, so it is {minutes}m",
            file=sys.stderr,
        )
    return minutes


def _own_and_others(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of this command, and those of `resnets train`."""
    actions = parser_of(launch, config=_CONFIG)._actions
    flags = {name: action for action in actions for name in action.option_strings}
    own: list[str] = []
    others: list[str] = []
    for part in parts_of(argv, flags):
        (others if part.action is None else own).extend(part.words)
    return own, others
