"""The history of a training run, read from its log."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from resnets.errors import ContentError
from resnets.evaluation.proportion import Proportion
from resnets.files.reading import read_text
from resnets.format import percent, plural
from resnets.notebook import html_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST = 1 << 30  # bytes

_SHOWN = 20  # epochs in the table of a notebook


@dataclass(frozen=True)
class History(Sequence[dict[str, Any]]):
    """The records of a run, oldest first.

    Attributes:
        path: of the log; messages name it. None where it was not written.
        records: the content of its lines; see `resnets.runs.loggers`.

    >>> lines = ['{"kind": "start", "steps": 4}', '{"kind": "epoch", "step": 4, "seconds": 2.0}']
    >>> _ = (tmp / "log.jsonl").write_text(chr(10).join(lines))
    >>> history = History.read(tmp / "log.jsonl")
    >>> history.finished, history.step, history.seconds
    (False, 4, 2.0)
    """

    path: Path | None
    records: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[dict[str, Any], ...]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | tuple[dict[str, Any], ...]:
        return self.records[place]

    def __repr__(self) -> str:
        return f"<History: {plural(len(self.epochs), 'epoch')}, {plural(len(self), 'record')}>"

    def _repr_html_(self) -> str:
        """For notebooks: the last epochs, one a row."""
        epochs = self.epochs
        left_out = [(f"{len(epochs) - _SHOWN:,} earlier", *[""] * 4)] if epochs[_SHOWN:] else []
        rows = [_epoch_cells(record) for record in epochs[-_SHOWN:]]
        columns = ("epoch", "training loss", "accuracy", "validation loss", "accuracy")
        return html_table([*left_out, *rows], columns, title="History")

    def plot(self) -> "list[Axes]":
        """Draw accuracy and loss by epoch, and the learning rate, with matplotlib's pyplot.

        Returns:
            The axes, all of one figure: a notebook shows it, elsewhere `pyplot.show()` does or
            `axes[0].figure.savefig(path)` writes it.

        Raises:
            UsageError: no epoch is finished.
        """
        from resnets.evaluation.drawing import plot_records

        return plot_records(self.epochs, self.of("interval"))

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read a log. A last line that was cut off in writing is left out.

        Raises:
            ContentError: if there is none, or it is something else.
        """
        try:
            lines = read_text(path, _LARGEST).splitlines()
        except (FileNotFoundError, NotADirectoryError):
            raise ContentError(f"{path}: no such log; a run's folder has one") from None
        except UnicodeDecodeError:
            raise ContentError(f"{path}: not a run's log") from None
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                if number == len(lines):
                    break
                record = None
            if not isinstance(record, dict) or "kind" not in record:
                raise ContentError(f"{path}: line {number} is not a record of a run")
            records.append(record)
        if not records or records[0]["kind"] != "start":
            raise ContentError(f"{path}: does not begin with the start of a run")
        return cls(path, tuple(records))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind: start, resume, interval, epoch, plan or end."""
        return [record for record in self.records if record["kind"] == kind]

    @property
    def start(self) -> dict[str, Any]:
        """How the run began."""
        return self.records[0]

    @property
    def processes(self) -> tuple[int, int]:
        """How many processes each machine had, and how many machines there were, at the last time.

        (0, 1) for a process that was alone.
        """
        last = [record for record in self.records if record["kind"] in ("start", "resume")][-1]
        processes, machines = int(last.get("processes", 1)), int(last.get("machines", 1))
        return (processes // machines if processes > 1 else 0), machines

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """One record an epoch."""
        return self.of("epoch")

    @property
    def finished(self) -> bool:
        """Whether the run went to its end and was scored."""
        return bool(self.records[-1]["kind"] == "end")

    @property
    def planned(self) -> int:
        """Number of steps that were to be done, as far as was known last; 0 if it is not known."""
        totals = [int(record["steps"]) for record in self.records if "steps" in record]
        return totals[-1] if totals else 0

    @property
    def step(self) -> int:
        """Number of steps in the log."""
        return max(int(record.get("step", 0)) for record in self.records)

    @property
    def seconds(self) -> float:
        """Duration of the training with validation and saving, over all parts of the run."""
        return max((float(record.get("seconds", 0)) for record in self.records), default=0.0)

    @property
    def images(self) -> int:
        """Number of images trained on, each counted as often as it was used."""
        return sum(int(epoch["training"]["images"]) for epoch in self.epochs)

    @property
    def images_per_second(self) -> float | None:
        """Speed of the steps alone: the harmonic mean of the median of each epoch.

        So a pause within an epoch does not count, while epochs of smaller images do.
        """
        speeds = defaultdict(list)
        for record in self.records:
            if "images_per_second" in record:
                speeds[record["epoch"]].append(record["images_per_second"])
        typical = map(statistics.median, speeds.values())
        return statistics.harmonic_mean(typical) if speeds else None

    @cached_property
    def test(self) -> Proportion:
        """How many test images the finished network got right.

        Raises:
            ContentError: if the run has not finished, or had no test images.
        """
        return self.score("test")

    def score(self, split: str) -> Proportion:
        """How many images of a split the finished network got right. Raises as `test` does."""
        if not self.finished:
            raise ContentError(f"{self.path}: the run has not finished (step {self.step})")
        try:
            top1 = self.records[-1][split]["top1"]
            return Proportion(top1["count"], top1["total"])
        except (KeyError, TypeError):
            raise ContentError(f"{self.path}: says nothing of {split} images") from None


def _epoch_cells(record: Mapping[str, Any]) -> tuple[object, ...]:
    """An epoch as a row of a table."""
    cells: list[object] = [record.get("epoch", "")]
    for split in ("training", "validation"):
        score = record.get(split) or {}
        loss, accuracy = score.get("loss"), score.get("accuracy")
        cells += ["" if loss is None else f"{loss:.4f}", percent(accuracy, 2) if score else ""]
    return tuple(cells)
