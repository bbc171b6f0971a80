"""Training on many machines: what SLURM or Kubernetes needs to start it, and a rehearsal here.

On each machine torchrun starts one process for each GPU. Whatever starts the training again, be it
torchrun, SLURM or Kubernetes, runs the same words: a run that has begun is resumed.
"""

import posixpath
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from resnets.errors import UsageError
from resnets.format import plural
from resnets.json_text import to_json
from resnets.run_files import CONFIG
from resnets.runs.refusals import MARK
from resnets.templates import filled_in

System = Literal["slurm", "kubernetes"]

IMAGE = "resnets"  # of a container, where none is named; no registry has it

_HERE = Path(__file__).parent
_PORT = 29500  # of the rendezvous in a pod, where no other job is
_USER = 1000  # that of the Dockerfile
_SAVE_SECONDS = 120  # between the signal that saves a checkpoint and the end
_LEAST_MINUTES = 4  # SLURM may send it a minute earlier (sbatch(1), --signal)
_REFUSED = f'"${MARK}"'
_DATA = "/data"  # the working directory in a container
_APART = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # each attempt gets a store of its own
_SHARED_MIB = 2048  # shared memory of each process, through which its data workers send batches


@dataclass(frozen=True)
class Launch:
    """A training that is to be started on many machines.

    Attributes:
        words: of `resnets train`.
        folder: of the run, which every machine can reach.
        nodes: machines.
        gpus: of each machine, with a process each; 0: one process on the CPU.
        cpus: cores of each process.
        max_restarts: how often torchrun starts all processes again after one has died.
        minutes: time limit; None: that of the system.
        image: of the container.
    """

    words: Sequence[str]
    folder: Path
    nodes: int = 1
    gpus: int = 8
    cpus: int = 8
    max_restarts: int = 3
    minutes: int | None = None
    image: str = IMAGE

    def __post_init__(self) -> None:
        """Refuse what no system can run.

        Raises:
            UsageError: a number is too small, or a word has a line break; or SLURM's signal would
                come as soon as the job begins, and queue it again for ever.
        """
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("max_restarts", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)}: it must be at least {least}")
        if self.minutes is not None:
            refuse_short(self.minutes, f"{self.minutes}m")
        if any("\n" in word for word in [*self.words, str(self.folder), self.image]):
            raise UsageError("a word has a line break; leave it out")

    @property
    def processes(self) -> int:
        """Of each machine."""
        return self.gpus or 1

    @property
    def name(self) -> str:
        """A name for the job, of small letters, digits and dashes (RFC 1123).

        The names of pods are longer and may have at most 63 characters.
        """
        word = re.sub("[^a-z0-9]+", "-", self.folder.name.lower()).strip("-")
        return f"resnets-{word}"[:40].rstrip("-")

    def worker(self, python: str = "python") -> str:
        """What each process runs, in the language of the shell: begin the run, or resume it.

        No process sees a run that another one has just begun: the first process writes the run's
        folder after all of them have met. Listing the folder first makes NFS look at the server.
        The words are repeated, so that a run of others is refused: see `repeated_words`. What was
        refused once is not tried again by torchrun, see `refusals`; JobSet starts a failed job as
        often as before, in new pods.
        """
        folder, train = shlex.quote(str(self.folder)), [python, "-m", "resnets", "train"]
        resume = shlex.join([*train, "--resume", str(self.folder), *self.words])
        return (
            f"export {MARK}=${{TMPDIR:-/tmp}}/resnets-refused-$TORCHELASTIC_RUN_ID\n"
            f"if [ ${{TORCHELASTIC_RESTART_COUNT:-0}} = 0 ]; then rm -f {_REFUSED}\n"
            f"elif [ -e {_REFUSED} ]; then exit 2\n"
            "fi\n"
            f"ls {folder} >/dev/null 2>&1\n"
            f"if [ -e {folder}/{CONFIG} ]; then\n"
            f"  exec {resume}\n"
            "fi\n"
            f"exec {shlex.join([*train, *self.words])}"
        )

    def rehearsal(self, processes: int) -> list[str]:
        """The command that runs the same on this machine, as so many processes.

        Raises:
            UsageError: `processes` is less than 1.
        """
        if processes < 1:
            raise UsageError(f"--rehearse {processes}: it must be at least 1")
        torchrun = [sys.executable, "-m", "resnets.runs.rehearsal", "--standalone"]
        # flags come before PET_* variables, as Kubeflow sets them in a pod of many nodes
        flags = ["--nnodes=1", f"--nproc-per-node={processes}"]
        flags.append(f"--max-restarts={self.max_restarts}")
        return [*torchrun, *flags, "--no-python", "bash", "-c", self.worker(sys.executable)]


def refuse_short(minutes: int, as_typed: str) -> None:
    """Refuse a time limit in which a job would do nothing but queue itself again.

    Raises:
        UsageError: it is too short.
    """
    if minutes < _LEAST_MINUTES:
        raise UsageError(
            f"--time-limit {as_typed}: up to {plural(_LEAST_MINUTES - 1, 'minute')} before the end "
            "SLURM has the job save a checkpoint and queue itself again; give at least "
            f"{_LEAST_MINUTES}m"
        )


def refuse_outside_volume(folder: Path) -> None:
    """Refuse a run's folder that a pod could not write to, or not keep.

    Raises:
        UsageError: it is not on the volume.
    """
    if _is_outside(str(folder)):
        raise UsageError(
            f"--output {folder}: not on the volume, which a pod has as {_DATA}, and nothing else "
            f"is kept; give a path that leads from its root, such as {folder.name or 'run'}"
        )


def outside_volume(words: Sequence[str]) -> list[str]:
    """The paths among words that do not lead to the volume of a pod, where its image may be meant.

    >>> outside_volume(["photos", "--from", "/home/me/a.safetensors", "--other=../b", "/data/c"])
    ['/home/me/a.safetensors', '../b']
    >>> outside_volume(["C:/photos", "s3://photos"])
    ['C:/photos']
    """
    values = (word.partition("=")[2] if word.startswith("--") else word for word in words)
    return [value for value in values if _is_outside(value)]


def _is_outside(path: str) -> bool:
    """Whether a path leads out of the volume, as seen from a pod, whose paths are POSIX's."""
    target = PurePosixPath(posixpath.normpath(posixpath.join(_DATA, path.replace("\\", "/"))))
    return PureWindowsPath(path).is_absolute() or not target.is_relative_to(_DATA)


def repeated_words(argv: Sequence[str]) -> list[str] | None:
    """The words that began a run, where a job repeats them to go on with it; None elsewhere.

    Every job that `resnets launch` has printed names the folder first and last, as nobody types
    it. The words may lack DATA, which a job always has.

    >>> repeated_words(["--resume", "run", "photos", "--output", "run"])
    ['photos', '--output', 'run']
    >>> repeated_words(["--resume", "run", "--epochs", "5"])
    """
    if len(argv) < 4 or argv[0] != "--resume" or [*argv[-2:]] != ["--output", argv[1]]:
        return None
    return [*argv[2:]]


def launch_file(system: System, launch: Launch) -> str:
    """The text of a file for a system, with comments that say how to use it.

    Raises:
        UsageError: a time limit is given where the system has none.
    """
    if system == "slurm":
        return _slurm(launch)
    if launch.minutes is not None:
        raise UsageError("--time-limit is for slurm: a JobSet runs until it is finished")
    return _jobset(launch)


def _slurm(launch: Launch) -> str:
    """A batch script (sbatch(1), srun(1), scontrol(1)); torchrun finds the first node.

    sbatch's --signal reaches only this script (B:), so that it can queue the job again; srun does
    not take over --cpus-per-task from sbatch (since 22.05).
    """
    wanted = [
        f"--job-name={launch.name}",
        f"--nodes={launch.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={launch.gpus}"] if launch.gpus else []),
        f"--cpus-per-task={launch.cpus * launch.processes}",
        *([f"--time={launch.minutes}"] if launch.minutes else []),
        "--output=%x-%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{_SAVE_SECONDS}",
    ]
    return filled_in(
        _HERE / "slurm.sh.jinja",
        launch=launch,
        flags=wanted,
        save_seconds=_SAVE_SECONDS,
        apart=_APART,
    )


def _jobset(launch: Launch) -> str:
    """A JobSet of Kubernetes (jobset.x-k8s.io/v1alpha2), whose pods have names in the DNS."""
    name = launch.name
    script = (
        '[ "$JOB_COMPLETION_INDEX" = 0 ] && host=1 || host=0; exec torchrun '
        f"--nnodes={launch.nodes} --nproc-per-node={launch.processes} "
        f"--max-restarts={launch.max_restarts} --rdzv-backend=c10d --rdzv-id={name} "
        f"--rdzv-endpoint={name}-node-0-0.{name}:{_PORT} --rdzv-conf=is_host=$host "
        '--no-python bash -c "$RESNETS_WORKER"'
    )
    return filled_in(
        _HERE / "jobset.yaml.jinja",
        launch=launch,
        worker=_yaml_lines(launch.worker().replace("$(", "$$("), indent=24),
        script=script,
        port=_PORT,
        user=_USER,
        data=_DATA,
        save_seconds=_SAVE_SECONDS,
        apart=_APART,
        shared_mib=_SHARED_MIB * launch.processes,
    )


def _yaml_lines(text: str, indent: int) -> str:
    """A text in YAML's double quotes, whose lines a backslash breaks."""
    lines = [to_json(line)[1:-1] for line in text.splitlines(keepends=True)]
    kept = ["\\" * line.startswith(" ") + line for line in lines]  # else YAML drops the spaces
    return '"' + ("\\\n" + " " * indent).join(kept) + '"'
