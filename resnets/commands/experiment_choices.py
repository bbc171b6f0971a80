"""What a person may choose about a published experiment. No torch here: it is the help's text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Choices:
    """What a person may choose about an experiment."""

    data: str = "hub:uoft-cs/cifar10"
    """CIFAR-10: a folder of its parquet files, its archive for Python, or hub:NAME."""
    rows: str | None = None
    """Networks to train, by their layers: 20,32. Unset: as the experiment says."""
    seeds: int | None = None
    """Trainings of each network, with the seeds 0, 1 ... Unset: as the experiment says."""
    epochs: int | None = None
    """Train for so many epochs instead, for a short trial."""
    steps: int | None = None
    """Train for so many weight updates instead, for a short trial."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda, or one GPU such as cuda:1."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the arithmetic. auto: bf16 on a GPU, float32 on a CPU."""
    compile: bool = False
    """Compile each network with torch.compile."""
    output: Path | None = None
    """Folder of the runs. Unset: runs/EXPERIMENT."""

    @property
    def changes(self) -> dict[str, int]:
        """What makes it a trial: the length that was asked for instead of the paper's."""
        lengths = {"epochs": self.epochs, "steps": self.steps}
        return {name: length for name, length in lengths.items() if length is not None}
