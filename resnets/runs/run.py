"""The result of a training run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from resnets.evaluation.history import History
from resnets.format import percent
from resnets.model_file import Description, Model, load
from resnets.model_path import find_model
from resnets.notebook import html_table
from resnets.run_files import LOG


@dataclass(frozen=True)
class Run:
    """A trained network, how it was trained and how good it is.

    Attributes:
        model: the network in evaluation mode on the CPU, and its description, as `resnets.load`
            returns it; every other function takes it.
        history: the records of the log, oldest first; `history.plot()` draws them.
        path: the run's folder; None where nothing was written.
        stopped: why it ended before its last step: the name of a signal, or what a callback said.
            None if it went to its end.
    """

    model: Model
    history: History
    path: Path | None = None
    stopped: str | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], network: nn.Module | None = None) -> "Run":
        """The run in a folder, with the network that is there.

        Args:
            path: the folder.
            network: where the run is of a network of your own: such a module, which gets its
                weights.

        Raises:
            UsageError: there is no trained network yet; `resnets.resume` goes on with the run.
            ContentError: its files are damaged.
        """
        folder = Path(path)
        model = load(find_model(folder), network=network)
        return cls(model, History.read(folder / LOG), folder)

    @property
    def description(self) -> Description:
        """What the model file says of the network."""
        return self.model.description

    @property
    def metrics(self) -> dict[str, float]:
        """Scores on the validation and test images, as there are any.

        validation_accuracy and test_accuracy (0 to 1), validation_loss and test_loss (nats). The
        losses are, like those of the log, of the logits as the network computes them; `evaluate`
        and the report divide them by the temperature first, so that their losses differ from these.
        Counts and intervals are in `description.metrics`.
        """
        return _plain_metrics(self.description.metrics)

    def __repr__(self) -> str:
        network = self.description.recipe.get("network", "network")
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        where = "nothing written" if self.path is None else str(self.path)
        stopped = f", stopped: {self.stopped}" if self.stopped else ""
        return f"<Run: {network}, {scores or 'not scored'}, {where}{stopped}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        about = self.description
        rows = [
            ("network", about.recipe.get("network", "")),
            ("data", about.data.get("source", "")),
            ("classes", len(about.class_names)),
            ("epochs", len(self.history.epochs)),
            *(_shown(name, value) for name, value in self.metrics.items()),
            ("folder", "" if self.path is None else self.path),
            ("stopped", self.stopped or ""),
        ]
        return html_table([row for row in rows if row[1] != ""], title="Run")


def _plain_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scores in a description, by flat names.

    >>> _plain_metrics({"test": {"top1": {"count": 9, "total": 10}, "loss": 0.5}})
    {'test_accuracy': 0.9, 'test_loss': 0.5}
    """
    plain = {}
    for split, scores in metrics.items():
        top1 = scores["top1"]
        plain[f"{split}_accuracy"] = top1["count"] / top1["total"]
        plain[f"{split}_loss"] = scores["loss"]
    return plain


def _shown(name: str, value: float) -> tuple[str, str]:
    """A score and its name, for users."""
    number = percent(value, 2) if name.endswith("accuracy") else f"{value:.4f}"
    return name.replace("_", " "), number
