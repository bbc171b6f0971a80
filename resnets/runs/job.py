"""What a training run is asked to do. No torch here, so that `resnets train --help` is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from resnets.errors import ContentError
from resnets.fields import Between, from_toml, to_toml
from resnets.runs.loggers import Service
from resnets.training.recipe import Positive, Recipe


@dataclass(frozen=True)
class Job:
    """What a run is asked to do; its config.toml."""

    data: str = ""
    """What to train on: digits, a folder of class folders, a folder of parquet files, an archive,
    a table of paths and labels, or hub:NAME."""
    start: str | None = None
    """Train on from this run, model file or checkpoint."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda, or one GPU such as cuda:1."""
    budget: str | None = None
    """Time that training may take, such as 20m, with the scores at the end (the report comes
    after): measures a few steps, sets the epochs, and sets them anew as training goes on."""
    checkpoint_every: str = "2m"
    """Save the state so often besides after each epoch: a duration such as 90s, or steps."""
    keep: Positive = 2
    """States to keep, the newest ones; the best one stays besides."""
    log_every: Positive = 20
    """Weight updates between two records in log.jsonl."""
    log_to: tuple[Service, ...] = ()
    """Services to log to besides. TensorBoard events are written wherever it is installed."""
    follow_test: bool = False
    """Score the test images after every epoch too, for a curve; nothing is chosen by them."""
    group_by: str | None = None
    """Keep in one split what belongs together, such as the images of a patient: folder:LEVEL (1 is
    the folder below the class folder), pattern:REGEX (for the path, with one group) or column:NAME
    (of a table or parquet file)."""
    skip_unreadable: bool = False
    """Go on without the images that cannot be read, and report them."""
    max_error: Annotated[float, Between(0, 1)] = 0.02
    """Target error rate of what `predict` marks ok; less probable predictions are marked unsure."""
    other: str | None = None
    """Images of none of the classes (a folder): chooses the threshold of the status unfamiliar by
    one half of them, and measures by the other half how many of them get it."""
    mirror_characters: bool = False
    """Mirror images as the recipe says even if the classes are digits or letters."""
    image_digests: bool = True
    """Keep 8 bytes of a digest of each training and validation image in the model file, so that
    `evaluate` can tell which images are new to the network."""
    report: bool = True
    """Write report.html into the run's folder at the end."""
    recipe: Recipe = field(default_factory=Recipe)
    """How to train."""

    def to_toml(self) -> str:
        """As it stands in config.toml."""
        return to_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> "Job":
        """Read what `to_toml` wrote. Raises ContentError if it is something else."""
        return from_toml(cls, text)

    @classmethod
    def of_run(cls, folder: Path) -> "Job":
        """What the run in a folder was asked to do.

        Raises:
            UsageError: there is no run.
            ContentError: its configuration is damaged; the message names the file.
        """
        from resnets.model_file import CONFIG
        from resnets.runs.folder import read_config

        text = read_config(folder)
        try:
            return cls.from_toml(text)
        except ContentError as error:
            raise ContentError(f"{folder / CONFIG}: {error}") from None
