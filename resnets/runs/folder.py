"""The folder of a run: its settings, log, checkpoints and result."""

import datetime
import os
import shutil
from pathlib import Path

from resnets.addresses import AS_FILE, refuse_address
from resnets.errors import ContentError, UsageError
from resnets.escaping import escaped, shell_line
from resnets.files.outputs import writable_folder
from resnets.files.reading import read_text
from resnets.files.writing import write_atomically
from resnets.locks import LOCK, lock
from resnets.model_path import RUNS
from resnets.run_files import CONFIG, LOG, MODEL, REPORT, STATES
from resnets.runs.checkpoint import Checkpoints
from resnets.runs.refusals import is_in_job
from resnets.torchrun import is_under_torchrun

FOLD = "fold-{}"  # the folder of the run of one fold, in that of a cross-validation
_MADE_BY_A_RUN = (
    *(LOG, MODEL, STATES, "tensorboard", "wandb", REPORT),
    *("wandb.txt", "mlflow.txt"),
    *("model.onnx", "model.xml", "model.bin", "model.pt2"),  # what `resnets export` made of it
    CONFIG,  # last: a folder is that of a run as long as it has this
)


class RunFolder:
    """The folder of one run, held by this process until it is closed.

    Attributes:
        log: one JSON object a line; see `loggers`.
        model: the result, for every other command.
        checkpoints: the states from which the run can go on.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.config = path / CONFIG
        self.log = path / LOG
        self.model = path / MODEL
        self.checkpoints = Checkpoints(path / STATES, keep)
        self.lock = lock(path)

    def write_config(self, toml: str) -> None:
        """Write the settings of the run."""
        resume = escaped(shell_line("resnets", "train", "--resume", self.path))  # in one line
        text = f"# The settings of this run. To continue: {resume}\n\n"
        write_atomically(self.config, (text + toml).encode())

    def close(self) -> None:
        """Unlock the folder for other processes."""
        os.close(self.lock)


def refuse(output: Path | None, overwrite: bool = False, start: str | None = None) -> None:
    """Refuse a folder that must not or cannot be written to; None is a fresh one below `runs`.

    Args:
        output: the folder.
        overwrite: whether a run that is there already may go.
        start: the run or file that the training starts from, which may not go.

    Raises:
        UsageError: if it cannot be written, has content and is no run's, or is a run's that may
            not be replaced.
    """
    if output is None:
        writable_folder(RUNS)
        return
    content = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if content - {LOCK} and CONFIG not in content:
        raise UsageError(f"{output}: holds files that are not from a run; choose another --output")
    writable_folder(output)
    if CONFIG in content and not overwrite:
        raise UsageError(
            f"{output}: holds a run already; --resume continues it, --overwrite replaces it"
        )
    begun = Path(start).resolve() if start else None
    if begun and CONFIG in content and output.resolve() in (begun, *begun.parents):
        raise UsageError(f"{output}: is an input of this command (--from); choose another --output")


def new_run(output: Path | None, network: str, overwrite: bool = False, keep: int = 2) -> RunFolder:
    """A folder for a new run.

    Args:
        output: which; None takes a fresh `runs/NETWORK-DATE-NUMBER`.
        network: goes into the fresh folder's name.
        overwrite: whether a run that is there already may go.
        keep: how many of the newest states to keep.

    Raises:
        UsageError: if the folder is in use, or `refuse` refuses it.
    """
    if output is None:
        return RunFolder(_make_fresh_folder(RUNS, network), keep)
    refuse(output, overwrite)
    output.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(output, keep)
    for name in (*_MADE_BY_A_RUN[:-1], *(path.name for path in folds_in(output)), CONFIG):
        _remove(output / name)
    return folder


def folds_in(path: Path) -> list[Path]:
    """The folders of the runs of single folds in that of a cross-validation."""
    return [config.parent for config in path.glob(f"{FOLD.format('*')}/{CONFIG}")]


def how_to_continue(path: Path, begin: str = "To continue") -> str:
    """What to say of a run that ends early: the command that goes on, begun as this process was."""
    if is_in_job():
        return f"{begin}: start the same job again; it goes on with {path}"
    command: list[object] = ["resnets", "train", "--resume", path]
    _, machines = processes_here()
    meet = "with the --rdzv-* or the --master-* and --node-rank flags of before"
    where = f", on each machine, {meet}" if machines > 1 else ""
    return f"{begin}: {shell_line(*_torchrun(*processes_here()), *command)}{where}"


def how_to_repeat() -> str:
    """What to say where there is nothing to go on with yet."""
    again = "start the same job again" if is_in_job() else "run the same command again"
    return f"To begin: {again}"


def processes_here() -> tuple[int, int]:
    """How many processes torchrun has started on each machine, and on how many machines.

    (0, 1) where it has not started this one.
    """
    if not is_under_torchrun():
        return 0, 1
    each, machines = (
        os.environ.get(name, "1") for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    )
    return int(each), int(machines)


def as_launched(command: str, processes: tuple[int, int] | None = None) -> str:
    """A command that trains, for as many processes as a run had, if it can be shared.

    Args:
        command: as a shell takes it; another than `resnets train` stays as it is.
        processes: of the run, see `processes_here`; None: as many as train here.
    """
    each, machines = processes or processes_here()
    torchrun = _torchrun(each, machines)
    alone = {"--folds", "all"} & {*command.split()}  # as in --freeze all
    if not command.startswith("resnets train ") or alone or not torchrun:
        return command
    if machines > 1:
        torchrun.insert(-1, "...")  # flags by which machines meet, which nobody has noted
    return f"{' '.join(torchrun)} {command}"


def _torchrun(each: int, machines: int) -> list[str]:
    """The words that start a command in several processes."""
    if not each:
        return []
    several = ["--nnodes", str(machines)] if machines != 1 else []
    return ["torchrun", *several, "--nproc-per-node", str(each), "-m"]


def has_state(path: Path) -> bool:
    """Whether a state of the run in a folder was saved."""
    return bool(Checkpoints(path / STATES).paths())


def _make_fresh_folder(root: Path, network: str) -> Path:
    """Make `NETWORK-DATE-NUMBER` with the first number that is free."""
    root.mkdir(parents=True, exist_ok=True)
    day, number = datetime.date.today().isoformat(), 1
    while True:
        path = root / f"{network}-{day}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def existing_run(path: Path, keep: int = 2) -> RunFolder:
    """The folder of a run to continue.

    Raises:
        UsageError: if it is none, or is in use.
    """
    if not (path / CONFIG).is_file():
        refuse_address(path, AS_FILE)
        raise UsageError(f"{path}: no run to resume (it has no {CONFIG})")
    return RunFolder(path, keep)


def read_config(path: Path) -> str:
    """The TOML text with the settings of a run."""
    try:
        return read_text(path / CONFIG)
    except FileNotFoundError:
        refuse_address(path, AS_FILE)
        raise UsageError(f"{path}: no run to resume (it has no {CONFIG})") from None
    except NotADirectoryError:
        raise UsageError(f"{path}: a file, not the folder of a run to resume") from None
    except UnicodeDecodeError:
        raise ContentError(f"{path / CONFIG}: not a text") from None


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
