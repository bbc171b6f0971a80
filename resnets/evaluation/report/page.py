"""A report on one network: whether to rely on it, what it gets wrong and why, how to repeat it.

Everything is gathered into a `Report`, which `write_report` writes as one HTML file.
"""

import datetime
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from numpy.typing import ArrayLike

from resnets.data.labelled import LabelledImages
from resnets.data.membership import TrainedOn
from resnets.errors import ContentError, MissingExtra, UsageError
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.doctor.duplicates import Copies, accuracy_without, find_copies, found_new
from resnets.evaluation.evaluate import judge
from resnets.evaluation.explain import Heat, grad_cam
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.familiarity import UNPROTECTED, familiarity_of
from resnets.evaluation.history import History
from resnets.evaluation.label_errors import find_label_errors
from resnets.evaluation.logits import Booleans, Floats, log_softmax
from resnets.evaluation.metrics import better_than_chance
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.report.charts import reliability_diagram
from resnets.evaluation.report.confusion import chosen_classes, confusion_matrix
from resnets.evaluation.report.learning_curves import learning_curves
from resnets.evaluation.report.thumbnails import Thumbnail, heated, part, thumbnail
from resnets.evaluation.report.verdict import Evidence, Remark, Verdict, remarks, verdict
from resnets.fields import from_table
from resnets.files import read_text, write_atomically
from resnets.format import NO_BREAK, duration, percent, plural
from resnets.model_file import Description, Model, current_versions, own_class
from resnets.networks import Architecture
from resnets.networks.catalog import display_name
from resnets.training.recipe import Recipe

_MISTAKES = 12  # shown, the worst ones
_SUSPECTS = 12  # shown, of the labels that look wrong
_COPIES = 8  # shown, of the images that are there twice
REPORT_COMPARED = 20_000  # training images decoded to look for copies; half as many to judge by


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        model: the network, on any device.
        images: N images to judge it by.
        what: which ones, in words.
        logits: (N, K), what it says of them.
        exposure: how many of them it has seen before, and which were left out.
        familiar: (N,), whether each of them is familiar; None where the network has no such score.
        train: images that it has learnt from, or may have; None if there are none at hand.
        history: of its training; None if its log is not at hand.
        repeat: the command that trains it again; empty if too little is known of its training.
    """

    model: Model
    images: LabelledImages
    what: str
    logits: ArrayLike
    exposure: Exposure = field(default_factory=Exposure)
    familiar: Booleans | None = None
    train: LabelledImages | None = None
    history: History | None = None
    repeat: str = ""

    @property
    def seen(self) -> str:
        """How many of the images the network has seen before, and which were left out."""
        found = self.exposure
        hidden = found.not_looked_for(self.train is not None)
        texts = filter(None, (found.in_words(), hidden, found.left_out()))
        return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


@dataclass(frozen=True)
class Shown:
    """An image with what the network says of it.

    Attributes:
        name: what a person finds it by.
        label: the class it is labelled as.
        answer: the class that the network takes it for, or suggests.
        confidence: probability of `answer`, 0 to 1.
        own: probability of `label`, 0 to 1.
        picture: of it.
        heat: the same under the traces of `answer`; None if there is no captum, or no need.
    """

    name: str
    label: str
    answer: str
    confidence: float
    own: float
    picture: Thumbnail
    heat: Thumbnail | None = None


@dataclass(frozen=True)
class _Twins:
    """An image to judge by and a training image that show the same; names, labels and pictures."""

    names: tuple[str, str]
    labels: tuple[str, str]
    pictures: tuple[Thumbnail, Thumbnail]
    similarity: float
    exact: bool


@dataclass(frozen=True)
class Report:
    """What the page shows. Charts are <svg> elements; see `Evidence` for the figures."""

    subject: Subject
    made: datetime.datetime
    evidence: Evidence
    verdict: Verdict
    remarks: tuple[Remark, ...]
    curves: list[str]
    confusion: str
    confusion_classes: int
    reliability: str
    mistakes: tuple[Shown, ...]
    explained: str
    suspects: tuple[Shown, ...]
    twins: tuple[_Twins, ...]


def make_report(subject: Subject, compared: int = REPORT_COMPARED) -> Report:
    """Look into everything.

    Args:
        subject: what the report is about.
        compared: training images in which to look for copies of the images to judge by; 0: none.

    Raises:
        UsageError: there is no image.
        ContentError: a logit is NaN or infinite, or an image cannot be read any more.
    """
    evidence = _gather(subject, compared)
    judged, metrics = evidence.judged, evidence.judged.metrics
    mistakes, explained = _worst_mistakes(subject, judged.temperature)
    classes = chosen_classes(metrics)
    return Report(
        subject=subject,
        made=datetime.datetime.now(datetime.UTC),
        evidence=evidence,
        verdict=verdict(evidence),
        remarks=tuple(remarks(evidence)),
        curves=learning_curves(subject.history) if subject.history else [],
        confusion=confusion_matrix(metrics, classes),
        confusion_classes=len(classes),
        reliability=reliability_diagram(
            judged.before, judged.after if evidence.calibration else None
        ),
        mistakes=mistakes,
        explained=explained,
        suspects=_suspected(subject, evidence),
        twins=tuple(_twins(subject, evidence.copies)),
    )


def _gather(subject: Subject, compared: int) -> Evidence:
    """All figures."""
    description, labels = subject.model.description, subject.images.labels
    judged = judge(description, subject.logits, labels, subject.what, subject.familiar)
    fitted = description.calibration
    copies = None
    if subject.train is not None and compared:
        copies = find_copies(subject.images, subject.train, compared)
    doubts = find_label_errors(_calibrated(subject.logits, judged.temperature), labels)
    return Evidence(
        judged=judged,
        calibration=Calibration.from_dict(fitted) if fitted else None,
        exposure=subject.exposure,
        labels=doubts if _may_doubt(subject, copies) else doubts.withheld(),
        copies=copies,
        without_copies=_accuracy_besides(copies, subject),
    )


def _calibrated(logits: ArrayLike, temperature: float) -> Floats:
    """Logits at a temperature, (N, K)."""
    return np.asarray(logits, dtype=np.float64) / temperature


def _may_doubt(subject: Subject, copies: Copies | None) -> bool:
    """Whether the network may doubt labels: it must be better than chance on images new to it.

    On all images together, copies of training images would make up for what it cannot do.
    """
    if subject.exposure.trained:
        return False
    if copies is None or not copies.pairs:
        return True  # judged by all images
    new = found_new(copies)
    if not len(new):
        return False
    labels = subject.images.labels[new]
    right = np.asarray(subject.logits)[new].argmax(axis=1) == labels
    largest = Proportion(int(np.bincount(labels).max()), len(new))
    return better_than_chance(Proportion(int(right.sum()), len(new)), largest)


def _accuracy_besides(copies: Copies | None, subject: Subject) -> Proportion | None:
    """The accuracy on the images that are no copies; None if there are none, or none besides."""
    if copies is None or not copies.pairs:
        return None
    right = np.asarray(subject.logits).argmax(axis=1) == subject.images.labels
    return accuracy_without(copies, right)


def _worst_mistakes(subject: Subject, temperature: float) -> tuple[tuple[Shown, ...], str]:
    """The images whose label got the least probability, with where the network saw its answer.

    Returns:
        The images; and why there are no heat maps, if there are none.
    """
    images, labels = subject.images, subject.images.labels
    logarithms = log_softmax(_calibrated(subject.logits, temperature))
    answers = logarithms.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    worst = wrong[np.argsort(logarithms[wrong, labels[wrong]], kind="stable")][:_MISTAKES]
    if not len(worst):
        return (), ""
    heats, why = _heat_maps(subject, worst, answers[worst])
    probabilities = np.exp(logarithms)
    preprocessing = subject.model.description.preprocessing
    found = []
    for index, heat in zip(map(int, worst), heats, strict=True):
        pixels = images.image(index)
        pixels = part(pixels, preprocessing.box(*pixels.shape[:2]))
        label, answer = int(labels[index]), int(answers[index])
        pictures = thumbnail(pixels), None if heat is None else heated(pixels, heat)
        figures = float(probabilities[index, answer]), float(probabilities[index, label])
        names = images.class_names[label], images.class_names[answer]
        found.append(Shown(images.names[index], *names, *figures, *pictures))
    return tuple(found), why


def _heat_maps(
    subject: Subject, indices: Iterable[int], classes: Iterable[int]
) -> tuple[list[Heat] | list[None], str]:
    """Grad-CAM of images for classes; or none, and why."""
    preprocessing = subject.model.description.preprocessing
    images, numbers = subject.images, list(map(int, indices))
    seen = [preprocessing.pixels(images.image(i, preprocessing.channels)) for i in numbers]
    batch = torch.from_numpy(preprocessing.normalise(np.stack(seen)))
    try:
        return list(grad_cam(subject.model.network, batch, list(map(int, classes)))), ""
    except (MissingExtra, UsageError) as error:
        return [None] * len(numbers), str(error)


def _suspected(subject: Subject, evidence: Evidence) -> tuple[Shown, ...]:
    """The images whose labels look most wrong."""
    images = subject.images
    return tuple(
        Shown(
            name=images.names[suspect.index],
            label=images.class_names[suspect.label],
            answer=images.class_names[suspect.suggested],
            confidence=suspect.probability + suspect.margin,
            own=suspect.probability,
            picture=thumbnail(images.image(suspect.index)),
        )
        for suspect in evidence.labels.suspects[:_SUSPECTS]
    )


def _twins(subject: Subject, copies: Copies | None) -> Iterable[_Twins]:
    """The most alike of the images that are there twice."""
    if copies is None or subject.train is None:
        return
    for pair in copies.pairs[:_COPIES]:
        both = ((subject.images, pair.second), (subject.train, pair.first))
        judged, learnt = (
            (images.names[i], images.class_names[images.labels[i]], thumbnail(images.image(i)))
            for images, i in both
        )
        names, labels, pictures = zip(judged, learnt, strict=True)
        yield _Twins(names, labels, pictures, pair.similarity, pair.exact)


def write_report(report: Report, path: Path) -> None:
    """Write the page, at once or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(path, _page(report).encode())


_TITLES = {
    "figures": "the figures",
    "curves": "learning curves",
    "classes": "classes",
    "confusion": "confusion matrix",
    "calibration": "calibration",
    "mistakes": "worst mistakes",
    "labels": "labels that look wrong",
    "copies": "copies of training images",
    "recipe": "how to repeat it",
}

# control characters, surrogates and non-characters, which no HTML file may have, and what would
# turn the direction of the text around a name
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def _page(report: Report) -> str:
    """The whole page.

    Raises:
        ContentError: what the model file says of its data is damaged.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": _percent, "count": "{:,}".format}
    folder = Path(__file__).parent
    template = environment.from_string(read_text(folder / "page.html.jinja"))
    metrics = report.evidence.judged.metrics
    description = report.subject.model.description
    known = [row for row in metrics.classes if row.recall is not None]
    text = template.render(
        report=report,
        subject=report.subject,
        evidence=report.evidence,
        metrics=metrics,
        name=_network_name(description),
        titles=_TITLES,
        css=read_text(folder / "page.css"),
        weakest=sorted(known, key=lambda row: row.recall or 0),
        confused=metrics.most_confused(8),
        facts=_known_facts(report),
        recipe=_recipe_text(description),
        unprotected=UNPROTECTED,
        familiarity=familiarity_of(description.familiarity),
        version=current_versions().get("resnets", ""),
    )
    return _visible(text)


def _visible(text: str) -> str:
    r"""A text with what HTML does not allow written out.

    >>> _visible("a\x00b\u202ec")
    'a\\x00b\\u202ec'
    """
    return _FORBIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)


def _percent(share: float | None, digits: int = 1) -> str:
    """As on a screen, but never at the end of one line and the beginning of the next."""
    return percent(share, digits).replace(" ", NO_BREAK)


def _network_name(description: Description) -> str:
    """What people call the network."""
    own = own_class(description.architecture)
    return own or display_name(Architecture.from_dict(description.architecture))


def _recipe_text(description: Description) -> str:
    """The recipe as TOML; empty if the model file has none that this version understands."""
    try:
        return from_table(Recipe, description.recipe).to_toml() if description.recipe else ""
    except ContentError:
        return ""


def _known_facts(report: Report) -> list[tuple[str, str]]:
    """All facts; a header may hold anything. Raises ContentError."""
    try:
        return list(_facts(report))
    except (AttributeError, TypeError, ValueError) as error:
        raise ContentError(f"the model file's account of its data is damaged: {error}") from None


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """What is known of the network's making, as name and value."""
    description, data = report.subject.model.description, report.subject.model.description.data
    weights = sum(weight.numel() for weight in report.subject.model.network.parameters())
    yield "network", f"{_network_name(description)}, {plural(weights, 'weight')}"
    yield (
        "image size",
        "{0} x {0} pixels, {1}".format(
            description.preprocessing.size,
            {1: "grey", 3: "RGB", 4: "RGBA"}[description.preprocessing.channels],
        ),
    )
    if data.get("source"):
        yield "data", str(data["source"])
    if data.get("counts"):
        yield "images", _amounts(data["counts"])
    yield from _of_start(TrainedOn.from_dict(description.trained_on).ancestors)
    for split in ("validation", "test"):
        if data.get(split):
            yield f"{split} split", _origin(data[split])
    if data.get("fingerprint"):
        yield "data fingerprint", str(data["fingerprint"])
    if "seed" in description.recipe:
        yield "seed", str(description.recipe["seed"])
    if report.subject.history:
        yield from _of_run(report.subject.history)
    yield (
        "versions",
        ", ".join(f"{name} {number}" for name, number in sorted(description.versions.items())),
    )


def _amounts(counts: dict[str, dict[str, int]]) -> str:
    """How many images each split has.

    >>> _amounts({"test": {"cat": 1}, "train": {"cat": 5, "dog": 3}})
    '8 train, 1 test'
    """
    sums = {split: sum(counts.get(split, {}).values()) for split in ("train", "validation", "test")}
    return ", ".join(f"{total:,} {split}" for split, total in sums.items() if total)


def _origin(split: dict[str, Any]) -> str:
    """Where a split is from.

    >>> _origin({"from": "all", "fraction": 0.1, "seed": 0})
    'a fraction of 0.1, drawn from all images with seed 0'
    """
    if split.get("from") == "source":
        return "of the data itself"
    whence = {"all": "all", "train": "the other"}.get(str(split.get("from")), "the")
    return f"a fraction of {split.get('fraction')}, drawn from {whence} images with seed " + str(
        split.get("seed")
    )


def _of_start(history: TrainedOn) -> Iterator[tuple[str, str]]:
    """What is known of the training of the network that this one started from."""
    if history:
        unknown = f"; it cannot be checked which ({history.unknown})" if history.unknown else ""
        yield "started from", f"a network trained on {history.in_words()}{unknown}"


def _of_run(history: History) -> Iterator[tuple[str, str]]:
    """What the log says of the run."""
    start = history.start
    if "time" in start:
        yield "started", str(start["time"])
    yield "time", f"{duration(history.seconds)} for {plural(history.step, 'weight update')}"
    if "device" in start:
        processes, threads = start.get("processes", 1), start.get("threads", 1)
        several = f", {processes} processes" if processes != 1 else ""
        yield "device", f"{start['device']}, {threads} thread{'s' * (threads != 1)}{several}"
