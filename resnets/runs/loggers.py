"""Where a run's records go: a file of JSON lines, and whatever draws curves from them.

A record is a dict of plain values: `kind`, `epoch` and `step`, then figures, which may be grouped
in dicts of their own (`{"training": {"loss": 0.3}}` is drawn as `training/loss`).
"""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from resnets.errors import MissingExtra, require
from resnets.files import open_appending, read_text, write_atomically
from resnets.json_text import to_json

LogRecord = Mapping[str, Any]
Service = Literal["tensorboard", "wandb", "mlflow"]


class Logger(Protocol):
    """What takes the records of a run."""

    def write(self, record: LogRecord) -> None:
        """Take the next record."""

    def close(self) -> None:
        """Nothing comes any more."""


class Lines(Logger, Protocol):
    """The log of a run, from which its history is read."""

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
        self.file = open_appending(path)
        if keep is not None and keep < self.file.tell():
            self.file.truncate(keep)

    def write(self, record: LogRecord) -> None:
        """Add a line, which the system has when this returns."""
        self.file.write(to_json(record).encode() + b"\n")
        self.file.flush()

    def size(self) -> int:
        """Bytes so far, all of them safe on the disk."""
        os.fsync(self.file.fileno())
        return self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class TensorBoard:
    """Event files for TensorBoard.

    Args:
        folder: of the run; the events go into `tensorboard` in it.
        step: from where the run goes on; later events of an earlier attempt are disregarded.
    """

    def __init__(self, folder: Path, step: int) -> None:
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, record: LogRecord) -> None:
        """Add every figure as a scalar."""
        for name, value in _figures(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        self.writer.close()


class _WeightsAndBiases:
    """A run of the project `resnets` on Weights & Biases (or offline, as WANDB_MODE says)."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = require("wandb", "wandb")
        name = _remembered(folder / "wandb.txt", secrets.token_hex(4))
        self.run = wandb.init(
            project="resnets",
            name=folder.name,
            dir=str(folder),
            id=name,
            resume="allow",
            config=dict(config),
        )

    def write(self, record: LogRecord) -> None:
        """Add the figures."""
        self.run.log(_figures(record), step=record["step"])

    def close(self) -> None:
        """End the run over there."""
        self.run.finish()


class _MLflow:
    """A run of the experiment `resnets` on the MLflow server that MLFLOW_TRACKING_URI names."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        mlflow = require("mlflow", "mlflow")
        client = mlflow.MlflowClient()
        self.client, path = client, folder / "mlflow.txt"
        if not path.exists():
            experiment = mlflow.set_experiment("resnets").experiment_id
            run = client.create_run(experiment, run_name=folder.name)
            _remembered(path, run.info.run_id)
            for name, value in _figures(config, texts=True).items():
                client.log_param(run.info.run_id, name, value)
        self.id = _remembered(path, "")

    def write(self, record: LogRecord) -> None:
        """Add the figures."""
        for name, value in _figures(record).items():
            self.client.log_metric(self.id, name, value, step=record["step"])

    def close(self) -> None:
        """End the run over there."""
        self.client.set_terminated(self.id)


def require_services(services: tuple[Service, ...]) -> None:
    """Find out whether a run can log to services, before anything else is done for it.

    Raises:
        MissingExtra: for a service whose extra is not installed.
    """
    for service in services:
        require(service, service)


def open_loggers(
    folder: Path, services: tuple[Service, ...], step: int, config: Mapping[str, Any]
) -> list[Logger]:
    """Open what a run logs to beside its file: TensorBoard where it is installed, and services.

    Args:
        folder: of the run.
        services: those asked for.
        step: from where the run goes on.
        config: what the run was asked to do.

    Raises:
        MissingExtra: for a service whose extra is not installed.
        ConnectionError: for a service that refuses; the reason is its own.
    """
    loggers: list[Logger] = []
    if "tensorboard" in services or find_spec("tensorboard"):
        loggers.append(TensorBoard(folder, step))
    online: dict[Service, Callable[[Path, Mapping[str, Any]], Logger]]
    online = {"wandb": _WeightsAndBiases, "mlflow": _MLflow}
    for service in sorted(online.keys() & set(services)):
        try:
            loggers.append(online[service](folder, config))
        except MissingExtra:
            raise
        except Exception as error:  # each has errors of its own
            raise ConnectionError(f"cannot log to {service}: {error}") from error
    return loggers


def _figures(record: LogRecord, texts: bool = False, group: str = "") -> dict[str, Any]:
    """The numbers of a record by name, those of a dict in it after the dict's name.

    >>> figures({"kind": "epoch", "step": 9, "training": {"loss": 0.5}, "best": True})
    {'training/loss': 0.5}
    """
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= _figures(value, texts, f"{group}{name}/")
        elif name not in ("epoch", "step") and (texts or type(value) in (int, float)):
            found[group + name] = value
    return found


def _remembered(path: Path, value: str) -> str:
    """What a small file says, which is `value` if there is none yet."""
    if not path.exists():
        write_atomically(path, value.encode())
    return read_text(path)
