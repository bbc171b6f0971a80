"""What happens to a network once it is trained: a list of steps, each of which adds to the result.

A step is a function of a `Result` that returns another. To add one, write it into `FINISHING`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from resnets import model_file
from resnets.commands.job import Ready, Say
from resnets.evaluation.proportion import Proportion
from resnets.model_file import Description
from resnets.networks import ResNet
from resnets.training.run import RunFolder
from resnets.training.score import score


@dataclass(frozen=True)
class Result:
    """A trained network.

    Attributes:
        ready: what it was trained on, and how.
        network: in evaluation mode; the same in every process.
        description: what its file says of it.
        folder: of the run; None in every process but the first, which alone writes.
        say: tells a person.
    """

    ready: Ready
    network: ResNet
    description: Description
    folder: RunFolder | None
    say: Say


def describe(ready: Ready, network: ResNet) -> Description:
    """What a model file says of the network before it is measured."""
    splits, job = ready.splits, ready.job
    return Description(
        architecture=network.architecture.to_dict(),
        class_names=splits.class_names,
        preprocessing=ready.preprocessing,
        recipe=asdict(job.recipe),
        data={"fingerprint": splits.fingerprint, "skipped": len(splits.skipped)} | splits.split,
    )


def measure(result: Result) -> Result:
    """Score the network on the validation images, and once on the test images."""
    ready, metrics = result.ready, dict(result.description.metrics)
    for name in ("validation", "test"):
        images = getattr(ready.splits, name)
        if images is None:
            result.say(f"There are no {name} images.")
            continue
        scored = score(result.network, ready.in_order(images), ready.device)
        proportion = Proportion(scored.correct, scored.images)
        metrics[name] = {"top1": proportion.to_dict(), "loss": scored.loss}
        result.say(f"{name} accuracy {proportion}")
    return replace(result, description=replace(result.description, metrics=metrics))


def save(result: Result) -> Result:
    """Write the model file."""
    if result.folder is not None:
        model_file.save(result.folder.model, result.network, result.description)
        result.say(f"saved {result.folder.model}")
    return result


Step = Callable[[Result], Result]
FINISHING: tuple[Step, ...] = (measure, save)


def finish(result: Result) -> dict[str, Any]:
    """Take every step.

    Returns:
        The metrics that the model file has.
    """
    for step in FINISHING:
        result = step(result)
    return result.description.metrics
