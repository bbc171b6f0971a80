"""Stop training once a figure of one's own is good enough: here, the recall of the worst class.

    python examples/early_stop.py DATA --least 0.9

DATA is what `resnets train` takes. A callback gets the records of the run one after the other. By
`model()` of the first, the Plan, it gets a copy of the network at any time, and measures that after
each Epoch with whatever it likes. StopTraining ends the run as if it were over: the network is
scored, calibrated and saved.
"""

import tyro

import resnets
from resnets.data.sources.opening import open_data


class StopAtRecall:
    """Ends training once the network finds enough images of every class."""

    def __init__(self, data: str, least: float) -> None:
        """Read the validation images.

        Args:
            data: as for `resnets.train`.
            least: recall of the worst class, 0 to 1.
        """
        images = open_data(data).validation  # those that training does not learn from
        if images is None:
            raise ValueError(f"{data} has no validation images")
        self.images, self.labels, self.least = images.stacked(), images.labels, least
        self.recalls: list[float] = []

    def __call__(self, record: object) -> None:
        """Take a record of the run."""
        if isinstance(record, resnets.Plan):
            self.plan = record
        elif isinstance(record, resnets.Epoch):
            metrics = resnets.evaluate(self.plan.model(), self.images, self.labels).metrics
            self.recalls.append(min(row.recall or 0.0 for row in metrics.classes))
            if self.recalls[-1] >= self.least:
                raise resnets.StopTraining(f"the recall of every class is {self.least:g} or more")


def main(data: str, least: float = 0.9, epochs: int = 24) -> None:
    """Train until the worst class is good enough.

    Args:
        data: as for `resnets train`.
        least: recall of the worst class at which to stop.
        epochs: at most so many.
    """
    run = resnets.train(data, epochs=epochs, callbacks=[StopAtRecall(data, least)])
    print(run.stopped or "it never got there", run.metrics)


if __name__ == "__main__":
    tyro.cli(main)
