"""A report on one network: whether to rely on it, what it gets wrong and why, how to repeat it.

Everything is gathered into a `Report`, which `page` writes as one HTML file.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from resnets.data.labelled import LabelledImages
from resnets.errors import MissingExtra
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.charts import reliability_diagram
from resnets.evaluation.confusion import chosen_classes, confusion_matrix
from resnets.evaluation.copies import Copies, accuracy_without, find_copies, found_new
from resnets.evaluation.evaluate import judge
from resnets.evaluation.explain import Heat, grad_cam
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.history import History
from resnets.evaluation.label_errors import find_label_errors
from resnets.evaluation.learning_curves import learning_curves
from resnets.evaluation.logits import Booleans, Floats, log_softmax
from resnets.evaluation.metrics import better_than_chance
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.thumbnails import Thumbnail, heated, part, thumbnail
from resnets.evaluation.verdict import Evidence, Remark, Verdict, remarks, verdict
from resnets.model_file import Model

MISTAKES = 12  # shown, the worst ones
SUSPECTS = 12  # shown, of the labels that look wrong
COPIES = 8  # shown, of the images that are there twice
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
class Twins:
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
    twins: tuple[Twins, ...]


def make_report(subject: Subject, compared: int = REPORT_COMPARED) -> Report:
    """Look into everything.

    Args:
        subject: what the report is about.
        compared: training images in which to look for copies of the images to judge by; 0: none.

    Raises:
        UsageError: there is no image.
        ContentError: a logit is NaN or infinite, or an image cannot be read any more.
    """
    evidence = gather(subject, compared)
    judged, metrics = evidence.judged, evidence.judged.metrics
    mistakes, explained = worst_mistakes(subject, judged.temperature)
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
        suspects=suspected(subject, evidence),
        twins=tuple(twins(subject, evidence.copies)),
    )


def gather(subject: Subject, compared: int) -> Evidence:
    """All figures."""
    description, labels = subject.model.description, subject.images.labels
    judged = judge(description, subject.logits, labels, subject.what, subject.familiar)
    fitted = description.calibration
    copies = None
    if subject.train is not None and compared:
        copies = find_copies(subject.images, subject.train, compared)
    doubts = find_label_errors(calibrated(subject.logits, judged.temperature), labels)
    return Evidence(
        judged=judged,
        calibration=Calibration.from_dict(fitted) if fitted else None,
        exposure=subject.exposure,
        labels=doubts if may_doubt(subject, copies) else doubts.withheld(),
        copies=copies,
        without_copies=accuracy_besides(copies, subject),
    )


def calibrated(logits: ArrayLike, temperature: float) -> Floats:
    """Logits at a temperature, (N, K)."""
    return np.asarray(logits, dtype=np.float64) / temperature


def may_doubt(subject: Subject, copies: Copies | None) -> bool:
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


def accuracy_besides(copies: Copies | None, subject: Subject) -> Proportion | None:
    """The accuracy on the images that are no copies; None if there are none, or none besides."""
    if copies is None or not copies.pairs:
        return None
    right = np.asarray(subject.logits).argmax(axis=1) == subject.images.labels
    return accuracy_without(copies, right)


def worst_mistakes(subject: Subject, temperature: float) -> tuple[tuple[Shown, ...], str]:
    """The images whose label got the least probability, with where the network saw its answer.

    Returns:
        The images; and why there are no heat maps, if there are none.
    """
    images, labels = subject.images, subject.images.labels
    logarithms = log_softmax(calibrated(subject.logits, temperature))
    answers = logarithms.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)
    worst = wrong[np.argsort(logarithms[wrong, labels[wrong]], kind="stable")][:MISTAKES]
    if not len(worst):
        return (), ""
    heats, why = heat_maps(subject, worst, answers[worst])
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


def heat_maps(
    subject: Subject, indices: Iterable[int], classes: Iterable[int]
) -> tuple[list[Heat] | list[None], str]:
    """Grad-CAM of images for classes; or none, and why."""
    preprocessing = subject.model.description.preprocessing
    images, numbers = subject.images, list(map(int, indices))
    seen = [preprocessing.pixels(images.image(i, preprocessing.channels)) for i in numbers]
    batch = torch.from_numpy(preprocessing.normalise(np.stack(seen)))
    try:
        return list(grad_cam(subject.model.network, batch, list(map(int, classes)))), ""
    except MissingExtra as error:
        return [None] * len(numbers), str(error)


def suspected(subject: Subject, evidence: Evidence) -> tuple[Shown, ...]:
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
        for suspect in evidence.labels.suspects[:SUSPECTS]
    )


def twins(subject: Subject, copies: Copies | None) -> Iterable[Twins]:
    """The most alike of the images that are there twice."""
    if copies is None or subject.train is None:
        return
    for pair in copies.pairs[:COPIES]:
        both = ((subject.images, pair.second), (subject.train, pair.first))
        judged, learnt = (
            (images.names[i], images.class_names[images.labels[i]], thumbnail(images.image(i)))
            for images, i in both
        )
        names, labels, pictures = zip(judged, learnt, strict=True)
        yield Twins(names, labels, pictures, pair.similarity, pair.exact)


def write_report(report: Report, path: Path) -> None:
    """Write the page, at once or not at all.

    Raises:
        OSError: it cannot be written.
    """
    from resnets.evaluation.page import page
    from resnets.files import write_atomically

    write_atomically(path, page(report).encode())
