"""What happens to a network once it is trained: a list of steps, each of which adds to the result.

A step is a function of a `Result` that returns another. To add one, write it into `FINISHING`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from resnets import model_file
from resnets.data.labelled import LabelledImages
from resnets.data.membership import TrainedOn
from resnets.errors import UsageError
from resnets.evaluation.calibration import calibrate
from resnets.evaluation.eager import Eager
from resnets.evaluation.exposure import Exposure, Memory, counted
from resnets.evaluation.familiarity import UNPROTECTED, OtherImages
from resnets.evaluation.fit_familiarity import familiarise
from resnets.evaluation.history import History
from resnets.evaluation.logits import Booleans
from resnets.evaluation.metrics import measure as figures
from resnets.evaluation.other_images import see, statuses_of
from resnets.evaluation.outputs import Logits, logits_of
from resnets.model_file import Description
from resnets.networks import ResNet
from resnets.runs.folder import RunFolder
from resnets.runs.prepare import NOT_KEPT, Ready, Say, withheld
from resnets.runs.repeat import repeating


@dataclass(frozen=True)
class Result:
    """A trained network.

    Attributes:
        ready: what it was trained on, and how.
        network: in evaluation mode; the same in every process.
        description: what its file says of it.
        folder: of the run; None in every process but the first, which alone writes.
        say: tells a person.
        candidates: among how many networks the validation images chose this one.
        logits: what it says of the images of a split, (N, K), once it was measured on them.
        familiar: whether each image of the split that is reported on is familiar, (N,), once that
            was learnt.
    """

    ready: Ready
    network: ResNet
    description: Description
    folder: RunFolder | None
    say: Say
    candidates: int = 1
    logits: Mapping[str, Logits] = field(default_factory=dict)
    familiar: Booleans | None = None

    @property
    def reported(self) -> str:
        """The split that the report measures: test, or validation if there are no test images."""
        return "test" if "test" in self.logits else "validation"


def describe(ready: Ready, network: ResNet) -> Description:
    """What a model file says of the network before it is measured."""
    splits, job = ready.splits, ready.job
    return Description(
        architecture=network.architecture.to_dict(),
        class_names=splits.class_names,
        preprocessing=ready.preprocessing,
        recipe=job.recipe.to_dict(),
        data={"fingerprint": splits.fingerprint, "skipped": len(splits.skipped)} | splits.split,
        trained_on=kept(ready).to_dict(),
    )


def kept(ready: Ready) -> TrainedOn:
    """What the model file tells of the images that the network was trained on."""
    known = ready.trained_on
    return known if ready.job.image_digests else known.without_digests(NOT_KEPT)


def fit(result: Result) -> Result:
    """Make the probabilities mean what they say, by the validation images."""
    ready, images = result.ready, result.ready.splits.validation
    if images is None:
        result.say("No validation images: the probabilities are not calibrated.")
        return result
    calibration = calibrate(
        result.logits["validation"], images.labels, ready.job.max_error, result.candidates
    )
    why = withheld(ready)
    if why:
        calibration = calibration.without_promises(why)
    for line in calibration.in_words().splitlines():  # a break inside a line would be escaped
        result.say(line)
    return replace(
        result, description=replace(result.description, calibration=calibration.to_dict())
    )


def learn_familiar(result: Result) -> Result:
    """Learn which images are familiar, from training images; choose by the validation images."""
    ready, validation = result.ready, result.ready.splits.validation
    if validation is None:
        result.say("No validation images: no image gets the status unfamiliar.")
        return result
    look, seed = partial(features, result), ready.job.recipe.seed
    learn = partial(familiarise, look, ready.splits.train, validation)
    try:
        known = learn(other_images(result), seed)
    except UsageError as error:  # too few other images: no reason to lose what was trained
        result.say(f"--other {ready.job.other}: {error}")
        known = learn(None, seed)
    result.say(f"{known.in_words()}. {UNPROTECTED}")
    description = replace(result.description, familiarity=known.to_dict())
    images = ready.splits.validation if result.reported == "validation" else ready.splits.test
    assert images is not None
    found = known.familiar(features(result, images)) if ready.job.report else None
    return replace(result, description=description, familiar=found)


def features(result: Result, images: LabelledImages) -> Logits:
    """What the classifier sees of images, (N, F), in every process."""
    network, batches = result.network, result.ready.in_order(images)
    return logits_of(network, batches, len(images), network.embed)


def other_images(result: Result) -> OtherImages | None:
    """What the network computes for the images of --other; None where there are none."""
    others = result.ready.others
    if not others:
        return None
    engine = Eager(model_file.Model(result.network, result.description))
    seen = see(engine, others)
    confident = [each == "ok" for each in statuses_of(engine, seen)]
    what = f"{len(seen.features):,} of {result.ready.job.other}"
    if seen.unreadable:
        what += f"; {seen.unreadable:,} more cannot be read"
    return OtherImages(seen.features, confident, what)


def measure(result: Result) -> Result:
    """Score the network on the validation images, and once on the test images."""
    splits, metrics, logits = result.ready.splits, dict(result.description.metrics), {}
    for name, images in (("validation", splits.validation), ("test", splits.test)):
        if images is None:
            result.say(f"There are no {name} images.")
            continue
        logits[name] = outputs(result, images)
        found = figures(logits[name], images.labels)
        metrics[name] = {"top1": found.top1.to_dict(), "loss": found.loss}
        flattered = name == "validation" and result.candidates > 1
        why = "; these images chose the epoch, so it is somewhat too high" if flattered else ""
        result.say(f"{name} accuracy {found.top1}{why}{trained_among(result, name)}")
    description = replace(result.description, metrics=metrics)
    return replace(result, description=description, logits=logits)


def trained_among(result: Result, split: str) -> str:
    """How many images of a split are training images, too; empty if none is."""
    trained = (result.folder and exposure_of(result, split).trained) or 0
    return f"; the network was trained on {trained:,} of these images, too" if trained else ""


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


def report(result: Result) -> Result:
    """Write a page on how good the network is and why; the model file is safe whatever happens."""
    folder = result.folder
    if folder is None or not result.logits or not result.ready.job.report:
        return result
    page = folder.path / "report.html"
    try:
        write_page(result, folder, page)
    except Exception as error:  # hours of training do not end in an error for want of a page
        result.say(f"no report ({type(error).__name__}: {error}); resnets report tries again")
    else:
        result.say(f"wrote {page}")
    return result


def write_page(result: Result, folder: RunFolder, page: Path) -> None:
    """Write a report on the test images, or on the validation images if there are none."""
    from resnets.evaluation.report.page import Subject, make_report, write_report

    splits, source = result.ready.splits, result.ready.job.data
    name, images, remark = "test", splits.test, ""
    if result.reported == "validation":
        name, images, remark = "validation", splits.validation, ", by which it was calibrated"
    assert images is not None
    subject = Subject(
        model=model_file.Model(result.network, result.description),
        images=images,
        what=f"{len(images):,} images, the {name} split of {source}{remark}",
        logits=result.logits[name],
        familiar=result.familiar,
        exposure=exposure_of(result, name),
        train=splits.train,
        history=History.read(folder.log),
        repeat=repeating(result.description, folder.path),
    )
    write_report(make_report(subject), page)


def exposure_of(result: Result, split: str) -> Exposure:
    """How many images of a split the network has seen, in this training and before."""
    memory = Memory(result.ready.trained_on)
    return counted(memory.seen(result.ready.members[split]), memory)


Step = Callable[[Result], Result]
FINISHING: tuple[Step, ...] = (measure, fit, learn_familiar, save, report)


def finish(result: Result) -> dict[str, Any]:
    """Take every step.

    Returns:
        The metrics that the model file has.
    """
    for step in FINISHING:
        result = step(result)
    return result.description.metrics
