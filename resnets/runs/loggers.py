"""Where a run's records go: a file of JSON lines, and whatever draws curves from them.

A record is a dict of plain values: `kind`, `epoch` and `step`, then figures, which may be grouped
in dicts of their own (`{"training": {"loss": 0.3}}` is drawn as `training/loss`). Averages over an
epoch and over the steps between two records are different things, so the latter are drawn as
`interval/training/loss`.
"""

import json
import netrc
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from resnets.addresses import why_unreachable
from resnets.errors import MissingExtra, UsageError, require
from resnets.files.folders import in_home
from resnets.files.reading import read_text
from resnets.files.writing import no_room_names, open_appending, write_atomically
from resnets.json_text import to_json
from resnets.runs.background import Background, Logger, LogRecord, Outcome

Service = Literal["tensorboard", "wandb", "mlflow"]


class Lines(Protocol):
    """The log of a run, from which its history is read."""

    def write(self, record: LogRecord) -> None:
        """Take the next record."""

    def close(self) -> None:
        """End the log."""

    def size(self) -> int:
        """Where it ends, so that a run that goes on can cut off what follows."""


class MemoryLines:
    """The log of a run that writes nothing.

    Attributes:
        records: all that were written, oldest first.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, record: LogRecord) -> None:
        """Keep a record, with the values that a file would give back."""
        self.records.append(json.loads(to_json(record)))

    def size(self) -> int:
        """How many records there are."""
        return len(self.records)

    def close(self) -> None:
        """Nothing is to be closed."""


class JsonLines:
    """A file with one JSON object a line.

    Args:
        path: appended to, made if need be.
        keep: bytes of it that stay; what follows is cut off. None keeps all.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.path = path
        self.file = open_appending(path)
        if keep is not None and keep < self.file.tell():
            self.file.truncate(keep)

    def write(self, record: LogRecord) -> None:
        """Add a line, which the system has when this returns."""
        with no_room_names(self.path):
            self.file.write(to_json(record).encode() + b"\n")
            self.file.flush()

    def size(self) -> int:
        """Bytes so far, all of them safe on the disk."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class _TensorBoard:
    """Event files for TensorBoard.

    Args:
        folder: of the run; the events go into `tensorboard` in it.
        step: from where the run goes on; later events of an earlier attempt are disregarded.
        config: what the run was asked to do; shown as a table.
    """

    def __init__(self, folder: Path, step: int, config: Mapping[str, Any] | None = None) -> None:
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        if config:
            self.writer.add_text("config", _table(_settings(config)), step)

    def write(self, record: LogRecord) -> None:
        """Add every figure as a scalar."""
        for name, value in _curves(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def store(self, files: Sequence[Path]) -> None:
        """Nothing: they are beside the events."""

    def close(self, outcome: Outcome = "finished") -> None:
        """Write what is still in memory, and how the run ended."""
        if outcome != "finished":
            self.writer.add_text("outcome", outcome)
        self.writer.close()


class _WeightsAndBiases:
    """A run of the project `resnets` on Weights & Biases (or offline, as WANDB_MODE says)."""

    EXIT_CODES: Mapping[Outcome, int] = {"finished": 0, "failed": 1, "stopped": 255}  # as its own

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.wandb = require("wandb", "wandb")
        self.name = _read_or_write(folder / "wandb.txt", secrets.token_hex(4))
        self.run = self.wandb.init(
            project="resnets",
            name=folder.name,
            dir=str(folder),
            id=self.name,
            resume="allow",
            config=dict(config),
        )

    def write(self, record: LogRecord) -> None:
        """Add the figures."""
        values = _curves(record)
        if values:
            self.run.log(values, step=record["step"])

    def store(self, files: Sequence[Path]) -> None:
        """Keep files as a version of one artifact."""
        artifact = self.wandb.Artifact(f"model-{self.name}", type="model")
        for path in files:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def close(self, outcome: Outcome = "finished") -> None:
        """End the run over there."""
        self.run.finish(exit_code=self.EXIT_CODES[outcome])


def _experiment(mlflow: Any) -> Any:
    """The id of the experiment in MLflow that all runs belong to; it is made if need be."""
    return mlflow.set_experiment("resnets").experiment_id


class _MLflow:
    """A run of the experiment `resnets` on the MLflow server that MLFLOW_TRACKING_URI names."""

    STATUS: Mapping[Outcome, str] = {
        "finished": "FINISHED",
        "failed": "FAILED",
        "stopped": "KILLED",
    }

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        mlflow = require("mlflow", "mlflow")
        client = mlflow.MlflowClient()
        self.client, path = client, folder / "mlflow.txt"
        if path.exists():
            self.id = read_text(path)
            client.update_run(self.id, status="RUNNING")
            return
        run = client.create_run(_experiment(mlflow), run_name=folder.name)
        self.id = _read_or_write(path, run.info.run_id)
        for name, value in _settings(config).items():
            client.log_param(self.id, name, value)

    def write(self, record: LogRecord) -> None:
        """Add the figures."""
        for name, value in _curves(record).items():
            self.client.log_metric(self.id, name, value, step=record["step"])

    def store(self, files: Sequence[Path]) -> None:
        """Keep files as artifacts."""
        for path in files:
            self.client.log_artifact(self.id, str(path))

    def close(self, outcome: Outcome = "finished") -> None:
        """End the run over there."""
        self.client.set_terminated(self.id, status=self.STATUS[outcome])


def require_services(services: tuple[Service, ...]) -> None:
    """Find out whether a run can log to services, before anything else is done for it.

    Raises:
        MissingExtra: for a service whose extra is not installed.
        UsageError: Weights & Biases has no API key.
        ConnectionError: nothing answers where the MLflow server should be.
    """
    for service in services:
        require(service, service)
    if "wandb" in services:
        _require_key()
    if "mlflow" in services:
        _require_server(os.environ.get("MLFLOW_TRACKING_URI", ""))


def _require_key() -> None:
    """Refuse to begin a run that Weights & Biases would refuse, or ask for a key in its middle."""
    settings = require("wandb", "wandb").setup().settings
    modes = {os.environ.get("WANDB_MODE"), getattr(settings, "mode", None)}
    if modes & {"offline", "disabled", "dryrun"}:
        return
    names = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if any(os.environ.get(name) for name in names) or getattr(settings, "api_key", None):
        return
    url = getattr(settings, "base_url", None) or os.environ.get("WANDB_BASE_URL")
    if not _in_netrc(urlsplit(url or "https://api.wandb.ai").hostname or ""):
        raise UsageError(
            "--log-to wandb: no API key; run `wandb login`, or set WANDB_API_KEY, or "
            "WANDB_MODE=offline"
        )


def _in_netrc(host: str) -> bool:
    """Whether a password for a host is where `wandb login` puts it."""
    variable = os.environ.get("NETRC")
    paths = [Path(variable)] if variable else [in_home("~/.netrc"), in_home("~/_netrc")]
    try:
        logins = [netrc.netrc(path).authenticators(host) for path in paths if path.is_file()]
    except (OSError, netrc.NetrcParseError):
        return False
    return any(logins)


def _require_server(uri: str) -> None:
    """Refuse to begin a run for an MLflow server that is away; its own client tries for minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if reason := why_unreachable(parts.hostname, port):
        raise ConnectionError(
            f"--log-to mlflow: nothing answers at {parts.hostname}:{port} ({reason}); start the "
            "server, or set MLFLOW_TRACKING_URI"
        )


def reach_services(services: tuple[Service, ...]) -> None:
    """Reach what a run will log to, which may refuse although `require_services` found no fault.

    Raises:
        ConnectionError: a service refuses; the reason is its own.
    """
    if "mlflow" not in services:
        return
    try:
        _experiment(require("mlflow", "mlflow"))
    except ImportError as error:  # the extra brings what talks to a server, and no database
        raise ConnectionError(
            f"cannot log to mlflow: {error}; set MLFLOW_TRACKING_URI to the address of a server, "
            "or pip install mlflow, which keeps runs on this machine"
        ) from error
    except Exception as error:  # it has errors of its own
        raise ConnectionError(f"cannot log to mlflow: {error}") from error


def open_loggers(
    folder: Path,
    services: tuple[Service, ...],
    step: int,
    config: Mapping[str, Any],
    going_on: Callable[[str], None] | None = None,
) -> list[Background]:
    """Open what a run logs to beside its file: TensorBoard where it is installed, and services.

    Args:
        folder: of the run.
        services: those asked for.
        step: from where the run goes on.
        config: what the run was asked to do, and what is known when it begins.
        going_on: takes a line for each service that fails; the run goes on without it. None: the
            error is raised.

    Raises:
        MissingExtra: for a service whose extra is not installed.
        UsageError: for a service that has no key.
        ConnectionError: for a service that refuses; the reason is its own.
    """
    makers: dict[str, Callable[[], Logger]] = {}
    if "tensorboard" in services or find_spec("tensorboard"):
        makers["tensorboard"] = partial(_TensorBoard, folder, step, config)
    online: dict[Service, Callable[[Path, Mapping[str, Any]], Logger]]
    online = {"mlflow": _MLflow, "wandb": _WeightsAndBiases}
    for service in sorted(online.keys() & set(services)):
        makers[service] = partial(online[service], folder, config)
    loggers = []
    for name, make in makers.items():
        try:
            if going_on is not None:  # else it was found out before
                require_services(tuple(service for service in services if service == name))
            loggers.append(Background(name, make()))
        except (MissingExtra, UsageError, ConnectionError) as error:
            if going_on is None:
                raise
            going_on(f"going on without {name}: {error}")
        except Exception as error:  # each has errors of its own
            if going_on is None:
                raise ConnectionError(f"cannot log to {name}: {error}") from error
            going_on(f"going on without {name}: {error}")
    return loggers


_COUNTS = {"images", "correct", "count", "total"}  # the same in every record, or another's part


def _curves(record: LogRecord) -> dict[str, float]:
    """The figures of a record that change from one to the next, by name; none of other kinds.

    >>> _curves({"kind": "epoch", "epoch": 2, "step": 9, "training": {"loss": 0.5, "images": 64}})
    {'training/loss': 0.5, 'epoch': 2}
    >>> _curves({"kind": "interval", "epoch": 2, "step": 9, "training": {"loss": 0.5}})
    {'interval/training/loss': 0.5, 'epoch': 2}
    """
    group = {"interval": "interval/", "epoch": "", "end": "end/"}.get(record["kind"])
    if group is None:
        return {}
    values = {
        group + name: value
        for name, value in _flat(record).items()
        if type(value) in (int, float) and not {"step", "epoch", *_COUNTS} & set(name.split("/"))
    }
    return values | ({"epoch": record["epoch"]} if "epoch" in record else {})


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The values of a configuration by name, shortened to what every service takes."""
    return {name: str(value)[:250] for name, value in _flat(config).items()}


def _flat(values: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """The values of nested dicts by the names on the way to them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{group}{name}/")
        else:
            flat[group + name] = value
    return flat


def _table(values: Mapping[str, str]) -> str:
    """Values by name as a table in Markdown."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in values.items()]
    return "\n".join(["| name | value |", "| --- | --- |", *rows])


def _read_or_write(path: Path, value: str) -> str:
    """What a small file says, which is `value` if there is none yet."""
    if not path.exists():
        write_atomically(path, value.encode())
    return read_text(path)
