"""Published experiments, as data: what was trained, how, and what came out there. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnets.errors import UsageError


@dataclass(frozen=True)
class Choices:
    """What the user may choose about an experiment."""

    data: str = "hub:uoft-cs/cifar10"
    """CIFAR-10: a folder of its parquet files, its archive for Python, or hub:NAME."""
    rows: str | None = None
    """Networks to train, by their layers: 20,32. Unset: as the experiment says."""
    seeds: int | None = None
    """Trainings of each network, with the seeds 0, 1 ... Unset: as the experiment says."""
    epochs: int | None = None
    """Train for this many epochs instead, for a short trial."""
    steps: int | None = None
    """Train for this many steps instead, for a short trial."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda, mps, xpu, or such as cuda:1."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Number format of the arithmetic. auto: bf16 on a GPU, float32 on a CPU."""
    compile: bool = False
    """Compile each network with torch.compile."""
    output: Path | None = None
    """Folder of the runs. Unset: runs/EXPERIMENT."""

    @property
    def changes(self) -> dict[str, int]:
        """What makes it a trial: the length that was asked for instead of the paper's."""
        lengths = {"epochs": self.epochs, "steps": self.steps}
        return {name: length for name, length in lengths.items() if length is not None}


_HE_2015 = "He et al. 2015, arXiv:1512.03385"
_LAYERS = (20, 32, 44, 56, 110)
_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True)
class Row:
    """A network of an experiment.

    Attributes:
        network: its name in the catalog.
        layers: what ``--rows`` calls it.
        error: published test error in percent; None where the paper only draws a curve.
        remark: what must be known to compare with it.
    """

    network: str
    layers: int
    error: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Experiment:
    """What a paper did.

    Attributes:
        source: where it was published.
        what: in one sentence.
        rows: its networks.
        chosen: layers of those that are trained unless others are asked for.
        seeds: how many trainings of each, unless another number is asked for.
        recipe: name of the recipe.
        curves: whether it is about the errors on the way: the test images are then scored after
            every epoch, as in the paper, and nothing is chosen by them.
        class_names: of the data set, sorted.
        images: of its training and test splits.
    """

    source: str
    what: str
    rows: tuple[Row, ...]
    chosen: tuple[int, ...]
    seeds: int
    recipe: str = "paper"
    curves: bool = False
    class_names: tuple[str, ...] = _CIFAR10
    images: tuple[int, int] = (50_000, 10_000)


_BEST_OF_FIVE = "best of 5; their mean and deviation are 6.61 ± 0.16"

EXPERIMENTS = {
    "he2015-table6": Experiment(
        source=f"{_HE_2015}, table 6",
        what="test error on CIFAR-10 by depth",
        rows=(
            Row("resnet20", 20, 8.75),
            Row("resnet32", 32, 7.51),
            Row("resnet44", 44, 7.17),
            Row("resnet56", 56, 6.97),
            Row("resnet110", 110, 6.43, _BEST_OF_FIVE),
        ),
        chosen=_LAYERS,
        seeds=5,
    ),
    "he2015-figure6": Experiment(
        source=f"{_HE_2015}, figure 6",
        what="training and test error on CIFAR-10 while learning, with and without shortcuts",
        rows=(
            *(Row(f"plain{layers}", layers, None, "a curve only") for layers in _LAYERS[:-1]),
            Row("resnet20", 20, 8.75, "table 6"),
            Row("resnet32", 32, 7.51, "table 6"),
            Row("resnet44", 44, 7.17, "table 6"),
            Row("resnet56", 56, 6.97, "table 6"),
        ),
        chosen=(20, 56),
        seeds=1,
        curves=True,
    ),
}


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def rows(experiment: Experiment, asked: str | None) -> tuple[Row, ...]:
    """The rows that the user asks for by numbers of layers.

    >>> [row.network for row in rows(EXPERIMENTS["he2015-table6"], "56,20")]
    ['resnet20', 'resnet56']

    Raises:
        UsageError: for a row that the experiment does not have.
    """
    known = {row.layers for row in experiment.rows}
    words = [word.strip() for word in asked.split(",")] if asked is not None else []
    chosen = {int(word) if word.isdecimal() else word for word in words} or experiment.chosen
    for layers in chosen:
        if layers not in known:
            there = ", ".join(map(str, sorted(known)))
            raise UsageError(f"--rows {asked}: no row {layers!r}; there are {there}")
    return tuple(row for row in experiment.rows if row.layers in chosen)
