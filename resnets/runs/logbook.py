"""The records of a run, on their way to its log and to services."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resnets.runs.background import Background, LogRecord, Outcome
from resnets.runs.loggers import Lines
from resnets.training.trainer import Epoch, Interval, Score, Step, TrainerRecord


class Logbook:
    """Writes a run's records, with the speed at which it went.

    As a context it closes at the end, and lets services know how the run ended.

    Args:
        lines: the log.
        loggers: services.
        elapsed: seconds that the run took before.
        notify: takes what the user should know of the services.

    Attributes:
        outcome: how the run ends, unless an exception ends it.
    """

    def __init__(
        self,
        lines: Lines,
        loggers: Sequence[Background],
        elapsed: float = 0.0,
        notify: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.lines, self.loggers, self.notify = lines, loggers, notify
        self.outcome: Outcome = "finished"
        self.began = time.monotonic() - elapsed
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0

    @property
    def elapsed(self) -> float:
        """Seconds that the run has taken, over all its parts."""
        return round(time.monotonic() - self.began, 2)

    def note(self, record: TrainerRecord) -> None:
        """Take a record of the trainer."""
        if isinstance(record, Step):
            self.images += record.images
            self.seconds += record.seconds
            self.waiting += record.waiting
        elif isinstance(record, Interval | Epoch):
            self.write(_as_dict(record) | self.speed())
        self.tell()

    def speed(self) -> dict[str, float]:
        """Of the steps since the last record."""
        if not self.images:
            return {"seconds": self.elapsed}
        speed = {
            "seconds": self.elapsed,
            "images_per_second": round(self.images / self.seconds, 1),
            "waiting_share": round(self.waiting / self.seconds, 3),
        }
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0
        return speed

    def write(self, record: LogRecord) -> None:
        """Write a record to the file, and let every service have it."""
        self.lines.write(record)
        for logger in self.loggers:
            logger.write(record)

    def store(self, files: Sequence[Path]) -> None:
        """Send every service those of the run's files that exist."""
        present = [path for path in files if path.is_file()]
        for logger in self.loggers if present else ():
            logger.store(present)

    def tell(self) -> None:
        """Let the user know what there is to know of the services."""
        for logger in self.loggers:
            for text in logger.messages():
                self.notify(text)

    def close(self) -> None:
        """Close the file, and end the run at every service."""
        self.lines.close()
        for logger in self.loggers:
            logger.close(self.outcome)
        self.tell()

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.outcome = "stopped" if issubclass(kind, KeyboardInterrupt) else "failed"
        self.close()


def _as_dict(record: Interval | Epoch) -> dict[str, Any]:
    """A record as it stands in the log."""
    values: dict[str, Any] = {"kind": type(record).__name__.lower()}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Score):
            value = dataclasses.asdict(value) | {"accuracy": value.accuracy}
        if value is not None:
            values[item.name] = value
    return values
