"""Time to the paper's accuracy compared with a common training loop, from logs alone.

    python benchmarks/training.py --networks resnet20 --data CIFAR10 --json-file results/speed.json
    python results/time_to_accuracy.py

The reference is 200 epochs of the plain loop that benchmarks/training.py measures: 200 times 50,000
images divided by its images/s. A second one is the paper's 64,000 steps of 128 images at the same
speed. The time of a run is its number of images divided by its images/s, both from its log. If the
benchmark has measured the run's recipe (``--recipe results/NAME/config.toml``), with this or
another seed, there is an estimate, too: the same images at the benchmark's speed. No run took that
time.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from entries import HERE, Entry, read_all

from resnets.errors import ContentError
from resnets.format import duration

NETWORK, ERROR, TEST_IMAGES = "resnet20", 8.75, 10_000  # He et al. 2015, table 6
REFERENCE_EPOCHS, IMAGES = 200, 50_000
PAPER_IMAGES = 64_000 * 128  # section 4.2
SPEED = "speed.json"
BY_LOG, ESTIMATE = "its log", "the benchmark (estimate)"


@dataclass(frozen=True)
class Speed:
    """The result of benchmarks/training.py.

    Attributes:
        reference: images/s of the plain loop, the median of the rounds.
        ratios: images/s of this project's trainer divided by the plain loop's, per round: if the
            speed of the machine changes, it changes for both.
        recipe: name or file of its recipe.
        machine: on which it ran.
    """

    reference: float
    ratios: Sequence[float]
    recipe: str
    machine: dict[str, Any]

    @property
    def ratio(self) -> float:
        """How many times as fast this project's trainer is: the median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def ours(self) -> float:
        """Images/s of this project's trainer, relative to the median of the reference."""
        return self.reference * self.ratio

    @property
    def seconds(self) -> float:
        """Seconds of the reference."""
        return REFERENCE_EPOCHS * IMAGES / self.reference

    def in_words(self) -> str:
        """A description of the reference."""
        return (
            f"The paper's ResNet-20 has an error of {ERROR} %. The reference is {REFERENCE_EPOCHS} "
            f"epochs of {IMAGES:,} images by the plain loop of `benchmarks/training.py`, measured "
            f"at {self.reference:,.0f} images/s: {duration(self.seconds)} on "
            f"{self.machine['processor']}, {self.machine['cores']} cores "
            f"(load before: {self.machine['load_before']:.1f}). This project's trainer took turns "
            f"with it and did {self.ratio:.2f} times as many (median of {len(self.ratios)} rounds; "
            f"{min(self.ratios):.2f} to {max(self.ratios):.2f}). Times are of the steps alone, "
            "the reference's, too; the last column is the whole time of the run. Rows by the "
            "benchmark are estimates: the run's images at the benchmark's speed. No run took that "
            "time.\n"
        )


@dataclass(frozen=True)
class Time:
    """The time of a run compared with the reference.

    Attributes:
        entry: the run.
        speed: the reference's.
        images_per_second: of the run.
        measured: how that was measured.
    """

    entry: Entry
    speed: Speed
    images_per_second: float
    measured: str

    columns: ClassVar[tuple[str, ...]] = (
        *("result", "seeds", "error", "reached", "images seen", "images/s", "measured by"),
        *("time", "reference / time", "64,000 steps / time", "with validation and saving"),
    )

    @property
    def error(self) -> float:
        """Test error in percent."""
        return 100 * (1 - self.entry.history.test.value)

    @property
    def reached(self) -> bool:
        """Whether the error is the paper's or less."""
        test = self.entry.history.test
        return 10_000 * (test.total - test.count) <= round(100 * ERROR) * test.total

    @property
    def seconds(self) -> float:
        """Seconds of the steps."""
        return self.entry.history.images / self.images_per_second

    @property
    def ratio(self) -> float:
        """Time of the reference divided by that of the run."""
        return self.speed.seconds / self.seconds

    @property
    def paper_ratio(self) -> float:
        """Time of the paper's 64,000 steps at the reference's speed divided by that of the run."""
        return self.ratio * PAPER_IMAGES / (REFERENCE_EPOCHS * IMAGES)

    @property
    def estimated(self) -> bool:
        """Whether no run took this time."""
        return self.measured != BY_LOG

    def cells(self) -> list[str]:
        """The cells of a row of a table."""
        estimate = "about " if self.estimated else ""
        elsewhere = self.speed.machine["processor"] != self.entry.metrics["machine"]["processor"]
        remark = " (another machine than the reference's)" if elsewhere else ""
        return [
            f"[{self.entry.name}]({self.entry.name})",
            f"1, on {'a CPU' if self.entry.metrics['device'] == 'cpu' else 'a GPU'}",
            f"{self.error:.2f} %",
            "yes" if self.reached else "no",
            f"{self.entry.history.images:,}",
            f"{self.images_per_second:,.0f}",
            self.measured + remark,
            f"{estimate}{duration(self.seconds)}",
            f"{estimate}{self.ratio:.1f}",
            f"{estimate}{self.paper_ratio:.1f}",
            "–" if self.estimated else duration(self.entry.history.seconds),
        ]


def read_speed(root: Path) -> Speed | None:
    """The benchmark's file in the folder of results; None if it is missing.

    Raises:
        ContentError: the benchmark did not write the file.
    """
    path = root / SPEED
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        network = content["networks"][NETWORK]
        plain, ours = (network["rounds"][name] for name in ("plain_loop", "trainer"))
        ratios = [
            trainer_rate / plain_rate for plain_rate, trainer_rate in zip(plain, ours, strict=True)
        ]
        machine, recipe = content["machine"], content.get("recipe", "paper")
        return Speed(network["images_per_second"]["plain_loop"], ratios, recipe, machine)
    except (ValueError, KeyError, TypeError) as error:  # JSON's errors are ValueErrors
        raise ContentError(f"{path}: not what benchmarks/training.py writes ({error!r})") from None


def times(entries: Sequence[Entry], speed: Speed) -> list[Time]:
    """Times of every run of the paper's ResNet-20 on CIFAR-10.

    The benchmark's speed counts for all runs that differ only in their seed from the measured one.
    """
    result, measured = [], Path(speed.recipe).parent.name
    timed = [entry.without_seed for entry in entries if entry.name == measured]
    for entry in entries:
        rate = entry.history.images_per_second
        if entry.metrics["network"] != NETWORK or entry.history.test.total != TEST_IMAGES:
            continue
        if rate is not None:
            result.append(Time(entry, speed, rate, BY_LOG))
        if entry.without_seed in timed:
            result.append(Time(entry, speed, speed.ours, ESTIMATE))
    return result


def main(root: Path = HERE, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> None:
    """Print the times of all results.

    Args:
        root: folder of the results and of speed.json.
        as_json: print them as JSON.
    """
    speed = read_speed(root)
    if speed is None:
        sys.exit(f"{root / SPEED}: missing; benchmarks/training.py --json-file writes it")
    run_times = times(read_all(root), speed)
    if as_json:
        rows = [
            {
                "result": time.entry.name,
                "error": time.error,
                "reached": time.reached,
                "images": time.entry.history.images,
                "images_per_second": time.images_per_second,
                "measured": time.measured,
                "seconds": time.seconds,
                "ratio": time.ratio,
                "paper_ratio": time.paper_ratio,
            }
            for time in run_times
        ]
        print(json.dumps({"reference_seconds": speed.seconds, "runs": rows}, indent=2))
        return
    print(speed.in_words())
    for time in run_times:
        print("  ".join(time.cells()))
    if not run_times:
        print(f"No result of {NETWORK} on CIFAR-10 yet.")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except ContentError as error:
        sys.exit(str(error))
