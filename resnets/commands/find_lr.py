"""`resnets find-lr`: suggest a learning rate from a range test."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from resnets.commands.arguments import parse
from resnets.commands.flags import Cache
from resnets.commands.train import given_by, recipe_of, start_of
from resnets.deployment.bench.figures import check_ending
from resnets.errors import UsageError
from resnets.escaping import say, say_text
from resnets.runs.job import SCRATCH, Job, names_weights
from resnets.training.lr_finder import RangeTest, plot, range_test
from resnets.training.recipe import Recipe

if TYPE_CHECKING:
    from resnets.data.batches import Batch
    from resnets.training.trainer import Trainer


@dataclass(frozen=True)
class Arguments:
    """Run a learning-rate range test: raise the rate at every step and plot the loss against it.

    The suggestion is the rate at which the loss falls fastest (arXiv:1506.01186). With one-cycle
    or a warm-up, rates up to three times as high are common.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """What to train on, as for `resnets train`."""
    start: Annotated[str | None, arg(name="from", metavar="FILE")] = None
    """Start from the weights of this run, model file or checkpoint."""
    group_by: Annotated[str | None, arg(metavar="HOW")] = None
    """Keep related images in the same split, as for `resnets train`."""
    class_level: int | None = None
    """Which folders are the classes, as for `resnets train`."""
    train_folder: str | None = None
    """Folder of the training images, as for `resnets train`."""
    cache: Cache = None
    """For shards at an address, how much of them to keep on the local disk, such as 50GB."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, mps, xpu, or one GPU such as cuda:1."""
    plot: str = "learning-rate.png"
    """Where to draw the curve; the ending is the format (png, svg, pdf)."""
    smallest: float = 1e-4
    """The first learning rate."""
    largest: float = 10.0
    """The last learning rate; the test ends before it if the loss diverges."""
    tries: int = 100
    """The number of rates to try, one per step."""
    recipe_name: Annotated[str, arg(name="recipe", metavar="NAME|FILE.toml")] = "quick"
    """Recipe to start from: quick, transfer (used with --from if you name none), paper, strong,
    imagenet, or a TOML file."""
    recipe: OmitArgPrefixes[Recipe] = field(default_factory=Recipe)


def main(argv: Sequence[str]) -> int:
    """Find a learning rate. Returns the exit code."""
    default = Arguments(recipe=recipe_of(argv), start=start_of(argv))
    arguments = parse(Arguments, "resnets find-lr", argv, default=default)
    if not arguments.data:
        raise UsageError(
            "no data given: name a data set or a folder, such as `resnets find-lr digits`"
        )
    check_ending(Path(arguments.plot), _inputs_of(arguments))
    job = Job(
        data=arguments.data,
        cache=arguments.cache,
        start=None if arguments.start == SCRATCH else arguments.start,
        device=arguments.device,
        group_by=arguments.group_by,
        class_level=arguments.class_level,
        train_folder=arguments.train_folder,
        set_by_user=given_by(argv, arguments.start),
        recipe=arguments.recipe,
    )
    step = _stepper(_trainer_of(job))
    result = range_test(step, arguments.smallest, arguments.largest, arguments.tries)
    plot(result, Path(arguments.plot))
    say_text(_report(result))
    say(f"The curve is in {arguments.plot}. To train: --learning-rate {result.suggestion:.2g}")
    return 0


def _inputs_of(arguments: Arguments) -> Iterator[Path]:
    """The files that are read."""
    from resnets import model_path
    from resnets.data.sources import opening

    yield from opening.files_of(arguments.data)
    yield Path(arguments.recipe_name)
    if arguments.start and names_weights(arguments.start):
        yield from model_path.files_of(arguments.start)


def _trainer_of(job: Job) -> "Trainer":
    """A trainer that has not begun. It needs torch, which --help does not wait for."""
    from resnets.data.batches import ProcessRank
    from resnets.runs.custom_parts import NO_CUSTOM_PARTS, refuse_fit
    from resnets.runs.prepare import prepare
    from resnets.runs.train import configure_process
    from resnets.runs.trainers import head_first_trainer
    from resnets.training.devices import choose_device

    device = choose_device(job.device)
    refuse_fit(NO_CUSTOM_PARTS, job.recipe, job.start)
    configure_process(job)
    setup = prepare(job, None, device, ProcessRank(), say)
    if not setup.fits_head_first:
        return setup.trainer(setup.network)
    trainer = head_first_trainer(setup)
    for _ in trainer.fit_head():
        pass  # the rate is for the steps that follow
    return trainer


def _stepper(trainer: "Trainer") -> Callable[[float], float]:
    """A function that trains one step with a rate and returns its loss; NaN if not finite."""
    from resnets.training.trainer import NotFiniteError

    batches = _endless(trainer)
    trainer.network.train()

    def step(rate: float) -> float:
        trainer.epoch_tally.zero_()
        try:
            trainer.update(next(batches), rate)
            trainer.check_losses()
        except NotFiniteError:
            return math.nan
        loss, _, images = trainer.epoch_tally.tolist()
        return float(loss / images)

    return step


def _endless(trainer: "Trainer") -> "Iterator[Batch]":
    """Epoch after epoch of the training images."""
    epoch = 0
    while True:
        yield from trainer.batches.epoch(epoch)
        epoch += 1


def _report(result: RangeTest, width: int = 40, rows: int = 16) -> str:
    """The curve as text: one row for each of some rates, with a bar for the smoothed loss.

    Args:
        result: of the range test.
        width: characters of the longest bar.
        rows: the largest number of rows, not counting one for the suggestion.
    """
    count = len(result.rates)
    chosen = {round(i * (count - 1) / (rows - 1)) for i in range(rows)}
    best = result.rates.index(result.suggestion)
    highest = max(result.smoothed)
    lines = ["    rate    loss"]
    for index in sorted(chosen | {best}):
        rate, loss = result.rates[index], result.smoothed[index]
        mark = "  <- falls fastest" if index == best else ""
        lines.append(f"{rate:8.2g}  {loss:6.3f}  {'#' * round(width * loss / highest)}{mark}")
    end = "The loss diverged." if result.diverged else "The loss never diverged."
    return "\n".join([*lines, end])
