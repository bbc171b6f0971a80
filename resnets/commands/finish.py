"""What happens to a network once it is trained: a list of steps, each of which adds to the result.

A step is a function of a `Result` that returns another. To add one, write it into `FINISHING`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from resnets import model_file
from resnets.commands.ready import Ready, Say
from resnets.data.labelled import LabelledImages
from resnets.evaluation.calibration import calibrate
from resnets.evaluation.metrics import measure as figures
from resnets.evaluation.outputs import Logits, logits_of
from resnets.model_file import Description
from resnets.networks import ResNet
from resnets.training.run import RunFolder


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


def fit(result: Result) -> Result:
    """Make the probabilities mean what they say, by the validation images."""
    ready, images = result.ready, result.ready.splits.validation
    if images is None:
        result.say("No validation images: the probabilities are not calibrated.")
        return result
    calibration = calibrate(outputs(result, images), images.labels, ready.job.max_error)
    result.say(calibration.in_words())
    return replace(
        result, description=replace(result.description, calibration=calibration.to_dict())
    )


def measure(result: Result) -> Result:
    """Score the network on the validation images, and once on the test images."""
    splits, metrics = result.ready.splits, dict(result.description.metrics)
    for name, images in (("validation", splits.validation), ("test", splits.test)):
        if images is None:
            result.say(f"There are no {name} images.")
            continue
        found = figures(outputs(result, images), images.labels)
        metrics[name] = {"top1": found.top1.to_dict(), "loss": found.loss}
        result.say(f"{name} accuracy {found.top1}")
    return replace(result, description=replace(result.description, metrics=metrics))


def outputs(result: Result, images: LabelledImages) -> Logits:
    """The network's logits for images, in every process."""
    ready = result.ready
    return logits_of(result.network, ready.in_order(images), len(images))


def save(result: Result) -> Result:
    """Write the model file."""
    if result.folder is not None:
        model_file.save(result.folder.model, result.network, result.description)
        result.say(f"saved {result.folder.model}")
    return result


Step = Callable[[Result], Result]
FINISHING: tuple[Step, ...] = (measure, fit, save)


def finish(result: Result) -> dict[str, Any]:
    """Take every step.

    Returns:
        The metrics that the model file has.
    """
    for step in FINISHING:
        result = step(result)
    return result.description.metrics
