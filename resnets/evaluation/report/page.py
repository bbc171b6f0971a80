"""The report on a network, as one HTML page: verdict, figures, mistakes, and how to reproduce it.

`make_report` computes a `Report`, which `write_report` writes as one HTML file.
"""

import contextlib
import datetime
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from numpy.typing import ArrayLike

from resnets.data.labelled import LabelledImages
from resnets.data.membership import TrainedOn
from resnets.errors import ContentError, MissingExtra, UsageError
from resnets.evaluation.calibration import NOT_LOWERED, Calibration
from resnets.evaluation.doctor.duplicates import (
    Duplicates,
    accuracy_without,
    find_duplicates,
    indices_of_new,
    near_duplicates,
)
from resnets.evaluation.evaluate import evaluate_logits
from resnets.evaluation.explain import Heat, grad_cam
from resnets.evaluation.exposure import Exposure
from resnets.evaluation.familiarity import UNPROTECTED, familiarity_of
from resnets.evaluation.history import History
from resnets.evaluation.label_errors import find_label_errors
from resnets.evaluation.logits import Booleans, Floats, log_softmax
from resnets.evaluation.metrics import better_than_chance
from resnets.evaluation.next_steps import TRUSTED, NextStep, findings_of, next_steps
from resnets.evaluation.proportion import Proportion
from resnets.evaluation.report.charts import reliability_diagram
from resnets.evaluation.report.confusion import chosen_classes, confusion_matrix
from resnets.evaluation.report.learning_curves import learning_curves
from resnets.evaluation.report.thumbnails import Thumbnail, heat_thumbnail, part, thumbnail
from resnets.evaluation.report.verdict import Evidence, Remark, Verdict, remarks, verdict
from resnets.fields import from_table
from resnets.files.reading import read_text
from resnets.files.writing import write_atomically
from resnets.format import NO_BREAK, duration, percent, plural
from resnets.model_file import Description, Model, current_versions, custom_class
from resnets.networks import Architecture
from resnets.networks.catalog import display_name
from resnets.run_files import REPORT
from resnets.training.recipe import Recipe

_CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}
_MISTAKES = 12  # shown, the worst ones
_SUSPECTS = 12  # shown, of the labels that look wrong
_DUPLICATES = 8  # shown, of the duplicates of images that it has seen
REPORT_COMPARED = 20_000  # seen images to look for duplicates in; of the others, half as many


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Attributes:
        model: the network, on any device.
        images: N images to evaluate it on.
        what: a phrase that describes them.
        logits: (N, K), of these images.
        exposure: on how many of them it was trained or validated, and how many were left out.
        familiar: (N,), whether each of them is familiar; None where the network has no such score.
        seen_images: images that it was or may have been trained or validated on; None if there are
            none at hand.
        seen_kind: which of these there may be: "training", or "training or validation".
        history: of its training; None if its log is not at hand.
        repeat: the command that trains it again; empty if too little is known of its training.
        again: the same in one line, to which other flags can be added.
        by_default: the command that trains on the same data by default settings.
        budget: time that its training was allowed, such as 10m; empty if any.
        by_folds: where the logits are those of a cross-validation: how they were measured, as a
            clause.
    """

    model: Model
    images: LabelledImages
    what: str
    logits: ArrayLike
    exposure: Exposure = field(default_factory=Exposure)
    familiar: Booleans | None = None
    seen_images: LabelledImages | None = None
    seen_kind: str = "training or validation"
    history: History | None = None
    repeat: str = ""
    again: str = ""
    by_default: str = ""
    budget: str = ""
    by_folds: str = ""

    @property
    def seen(self) -> str:
        """How many of the images the network has seen before, and how many were left out."""
        if self.by_folds:
            texts: tuple[str, ...] = (
                f"the accuracy is an estimate: {self.by_folds}",
                "the network of this file was trained on all of these images; heat maps are its "
                "own",
            )
        else:
            unchecked = self.exposure.not_looked_for(self.seen_images is not None)
            texts = (self.exposure.in_words(), unchecked, self.exposure.left_out())
        texts = (*texts, self.exposure.copies_left_out)
        return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts if text)

    @property
    def fit(self) -> str:
        """How the classifier was fitted where all else was frozen, in place of learning curves."""
        if self.model.description.recipe.get("freeze") != "all":
            return ""
        chosen = "the validation images"
        scores = []
        for record in self.history.epochs[-1:] if self.history else ():
            if not record.get("validation"):
                chosen = "cross-validation among the training images"
            scores = [
                f"{percent(record[group]['accuracy'])} of the {group} images are predicted "
                f"correctly (loss {record[group]['loss']:.3f})"
                for group in ("training", "validation")
                if record.get(group)
            ]
        measured = f" With it, {', and '.join(scores)}." if scores else ""
        return (
            "There are none: all layers but the classifier were frozen, and nothing was trained "
            "step by step. The classifier is a logistic regression on the features that the other "
            "layers compute, fitted until it no longer changes, with an L2 penalty that was chosen "
            f"by {chosen}.{measured}"
        )


@dataclass(frozen=True)
class ShownImage:
    """An image with its label and its prediction.

    Attributes:
        name: of the image, by which a user finds it.
        label: the class it is labelled as.
        prediction: the class that the network predicts.
        confidence: probability of `prediction`, 0 to 1.
        label_probability: probability of `label`, 0 to 1.
        picture: the image itself.
        heat: the image under the heat map of `prediction`; None without captum, or where no heat
            map is shown.
        suggested: the class that speaks against the label, where it is not the predicted one: it
            has more than images of that class usually get; else empty.
        suggested_probability: probability of `suggested`, 0 to 1.
    """

    name: str
    label: str
    prediction: str
    confidence: float
    label_probability: float
    picture: Thumbnail
    heat: Thumbnail | None = None
    suggested: str = ""
    suggested_probability: float = 0.0


@dataclass(frozen=True)
class _ShownDuplicate:
    """An evaluated image and a training image that show the same: names, labels and pictures."""

    names: tuple[str, str]
    labels: tuple[str, str]
    pictures: tuple[Thumbnail, Thumbnail]
    similarity: float
    exact: bool


@dataclass(frozen=True)
class Report:
    """What the page shows. Charts are <svg> elements; see `Evidence` for the figures."""

    subject: Subject
    date: datetime.datetime
    evidence: Evidence
    verdict: Verdict
    remarks: tuple[Remark, ...]
    next_steps: tuple[NextStep, ...]
    curves: list[str]
    confusion: str
    confusion_classes: int
    reliability: str
    mistakes: tuple[ShownImage, ...]
    explained: str
    suspects: tuple[ShownImage, ...]
    searched: str
    duplicates: tuple[_ShownDuplicate, ...]

    @property
    def dependent(self) -> str:
        """That images of the report look like one another; empty if none are known to."""
        near = near_duplicates(self.evidence.duplicates, None)
        return "" if near is None else near.dependent


def make_report(subject: Subject, compared: int = REPORT_COMPARED) -> Report:
    """Compute all figures, charts and pictures of a report.

    Args:
        subject: the network and the images to evaluate it on.
        compared: images that the network has seen in which to look for duplicates of these; 0:
            none.

    Raises:
        UsageError: the subject has no images.
        ContentError: a logit is NaN or infinite, or an image cannot be read any more.
    """
    evidence = _gather_evidence(subject, compared)
    evaluation, metrics = evidence.evaluation, evidence.evaluation.metrics
    mistakes, explained = _worst_mistakes(subject, evaluation.temperature)
    classes = chosen_classes(metrics)
    return Report(
        subject=subject,
        date=datetime.datetime.now(datetime.UTC),
        evidence=evidence,
        verdict=verdict(evidence),
        remarks=tuple(remarks(evidence)),
        next_steps=_next_steps(subject, evidence),
        curves=learning_curves(subject.history) if subject.history and not subject.fit else [],
        confusion=confusion_matrix(metrics, classes),
        confusion_classes=len(classes),
        reliability=reliability_diagram(
            evaluation.before, evaluation.after if evidence.calibration else None
        ),
        mistakes=mistakes,
        explained=explained,
        suspects=_shown_suspects(subject, evidence),
        searched=_searched(subject),
        duplicates=tuple(_shown_duplicates(subject, evidence.duplicates)),
    )


def _next_steps(subject: Subject, evidence: Evidence) -> tuple[NextStep, ...]:
    """What to do next; nothing where images that the network has seen say little."""
    if subject.exposure.trained:
        return ()
    with _reading_account():
        findings = findings_of(
            subject.model.description,
            evidence.evaluation.metrics,
            len(evidence.labels.suspects),
            subject.history,
            subject.again,
            subject.by_default,
            subject.budget,
        )
    if subject.by_folds:  # `resnets report` finds no image that is new to the network
        log = subject.history.path if subject.history else None
        page = log and ["python", "-m", "webbrowser", log.with_name(REPORT).as_posix()]
        findings = replace(findings, report=shlex.join(page or ()))
    return next_steps(findings)


def _gather_evidence(subject: Subject, compared: int) -> Evidence:
    """Compute all figures that the verdict is based on."""
    description, labels = subject.model.description, subject.images.labels
    evaluation = evaluate_logits(
        description, subject.logits, labels, subject.what, subject.familiar
    )
    calibration = description.calibration
    duplicates = None
    if subject.seen_images is not None and compared:
        duplicates = find_duplicates(subject.images, subject.seen_images, compared)
    label_errors = find_label_errors(subject.logits, labels, evaluation.temperature)
    return Evidence(
        evaluation=evaluation,
        seen_kind=subject.seen_kind,
        calibration=Calibration.from_dict(calibration) if calibration else None,
        exposure=subject.exposure,
        labels=(
            label_errors if _may_suspect_labels(subject, duplicates) else label_errors.withheld()
        ),
        duplicates=duplicates,
        without_duplicates=_accuracy_without_duplicates(duplicates, subject),
    )


def _calibrated(logits: ArrayLike, temperature: float) -> Floats:
    """Logits at a temperature, (N, K)."""
    return np.asarray(logits, dtype=np.float64) / temperature


def _may_suspect_labels(subject: Subject, duplicates: Duplicates | None) -> bool:
    """Whether the network may doubt labels: it must be better than chance on images new to it.

    Duplicates of training and validation images do not count, as it knows their labels.
    """
    if subject.exposure.trained:
        return False
    if duplicates is None or not duplicates.pairs:
        return True  # all images are new: `find_label_errors` itself compares with chance
    new = indices_of_new(duplicates)
    if not len(new):
        return False
    labels = subject.images.labels[new]
    right = np.asarray(subject.logits)[new].argmax(axis=1) == labels
    largest = Proportion(int(np.bincount(labels).max()), len(new))
    return better_than_chance(Proportion(int(right.sum()), len(new)), largest)


def _accuracy_without_duplicates(
    duplicates: Duplicates | None, subject: Subject
) -> Proportion | None:
    """The accuracy on the other images; None if there are no duplicates, or no other images."""
    if duplicates is None or not duplicates.pairs:
        return None
    right = np.asarray(subject.logits).argmax(axis=1) == subject.images.labels
    return accuracy_without(duplicates, right)


def _worst_mistakes(subject: Subject, temperature: float) -> tuple[tuple[ShownImage, ...], str]:
    """The images whose label has the lowest probability, with heat maps of the predicted class.

    Returns:
        The images; and why there are no heat maps, if there are none.
    """
    images, labels = subject.images, subject.images.labels
    log_probabilities = log_softmax(_calibrated(subject.logits, temperature))
    predictions = log_probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    order = np.argsort(log_probabilities[wrong, labels[wrong]], kind="stable")
    worst = wrong[order][:_MISTAKES]
    if not len(worst):
        return (), ""
    heats, why = _heat_maps(subject, worst, predictions[worst])
    probabilities = np.exp(log_probabilities)
    preprocessing = subject.model.description.preprocessing
    mistakes = []
    for index, heat in zip(map(int, worst), heats, strict=True):
        pixels = images.image(index)
        pixels = part(pixels, preprocessing.box(*pixels.shape[:2]))
        label, predicted = int(labels[index]), int(predictions[index])
        mistakes.append(
            ShownImage(
                name=images.names[index],
                label=images.class_names[label],
                prediction=images.class_names[predicted],
                confidence=float(probabilities[index, predicted]),
                label_probability=float(probabilities[index, label]),
                picture=thumbnail(pixels),
                heat=None if heat is None else heat_thumbnail(pixels, heat),
            )
        )
    return tuple(mistakes), why


def _heat_maps(
    subject: Subject, indices: Iterable[int], classes: Iterable[int]
) -> tuple[list[Heat] | list[None], str]:
    """The Grad-CAM heat map of each image for its class; or none, and why."""
    preprocessing = subject.model.description.preprocessing
    images, numbers = subject.images, list(map(int, indices))
    pixels = [preprocessing.pixels(images.image(i, preprocessing.channels)) for i in numbers]
    batch = torch.from_numpy(preprocessing.normalise(np.stack(pixels)))
    try:
        return list(grad_cam(subject.model.network, batch, list(map(int, classes)))), ""
    except (MissingExtra, UsageError) as error:
        return [None] * len(numbers), str(error)


def _shown_suspects(subject: Subject, evidence: Evidence) -> tuple[ShownImage, ...]:
    """The images whose labels look most wrong."""
    images, logits = subject.images, _calibrated(subject.logits, evidence.evaluation.temperature)
    shown = []
    for suspect in evidence.labels.suspects[:_SUSPECTS]:
        probabilities = np.exp(log_softmax(logits[suspect.index]))
        predicted = int(probabilities.argmax())
        is_other = predicted != suspect.suggested
        shown.append(
            ShownImage(
                name=images.names[suspect.index],
                label=images.class_names[suspect.label],
                prediction=images.class_names[predicted],
                confidence=float(probabilities[predicted]),
                label_probability=suspect.probability,
                picture=thumbnail(images.image(suspect.index)),
                suggested=images.class_names[suspect.suggested] if is_other else "",
                suggested_probability=float(probabilities[suspect.suggested]),
            )
        )
    return tuple(shown)


def _searched(subject: Subject) -> str:
    """Which images were searched for wrong labels, and how to search the others."""
    if subject.by_folds or not subject.model.description.recipe:
        return f"Searched: {subject.what}."
    return (
        f"Searched: {subject.what}. Others that the network was trained or validated on were not, "
        "as it knows their labels: `resnets train DATA --folds 5` searches every image, by a "
        "network that was trained without it."
    )


def _shown_duplicates(subject: Subject, duplicates: Duplicates | None) -> Iterable[_ShownDuplicate]:
    """The duplicates of training or validation images with the greatest similarity."""
    if duplicates is None or subject.seen_images is None:
        return
    for pair in duplicates.pairs[:_DUPLICATES]:
        both = ((subject.images, pair.second), (subject.seen_images, pair.first))
        evaluated, trained_on = (
            (images.names[i], images.class_names[images.labels[i]], thumbnail(images.image(i)))
            for images, i in both
        )
        names, labels, pictures = zip(evaluated, trained_on, strict=True)
        yield _ShownDuplicate(names, labels, pictures, pair.similarity, pair.exact)


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
    "others": "images of other things",
    "mistakes": "worst mistakes",
    "labels": "labels that look wrong",
    "recipe": "how to reproduce it",
}

# control characters, surrogates and non-characters, which HTML forbids, and characters that change
# the direction of text
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def _all_seen(subject: Subject) -> str:
    """The kinds of images that the measured ones were compared with, in the heading's words."""
    return subject.seen_kind.replace(" or ", " and ")


def _page(report: Report) -> str:
    """The whole page.

    Raises:
        ContentError: what the model file says of its data is damaged.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": _percent, "count": "{:,}".format, "plural": plural}
    folder = Path(__file__).parent
    template = environment.from_string(read_text(folder / "page.html.jinja"))
    metrics = report.evidence.evaluation.metrics
    description = report.subject.model.description
    with_recall = [row for row in metrics.classes if row.recall is not None]
    text = template.render(
        report=report,
        subject=report.subject,
        evidence=report.evidence,
        metrics=metrics,
        name=_network_name(description),
        titles=_TITLES | {"duplicates": f"duplicates of {_all_seen(report.subject)} images"},
        seen_kind=report.subject.seen_kind,
        all_seen=_all_seen(report.subject),
        css=read_text(folder / "page.css"),
        weakest=sorted(with_recall, key=lambda row: row.recall or 0),
        confused=metrics.most_confused(8),
        facts=_known_facts(report),
        recipe=_recipe_text(description),
        unprotected=UNPROTECTED,
        trusted=TRUSTED,
        not_lowered=NOT_LOWERED,
        familiarity=familiarity_of(description.familiarity),
        version=current_versions().get("resnets", ""),
    )
    return _visible(text)


def _visible(text: str) -> str:
    r"""A text with the characters that HTML forbids written as escapes.

    >>> _visible("a\x00b\u202ec")
    'a\\x00b\\u202ec'
    """
    return _FORBIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)


def _percent(share: float | None, digits: int = 1) -> str:
    """A share in percent, with a no-break space before the sign."""
    return percent(share, digits).replace(" ", NO_BREAK)


def _network_name(description: Description) -> str:
    """The name of the network as a user knows it."""
    custom = custom_class(description.architecture)
    return custom or display_name(Architecture.from_dict(description.architecture))


def _recipe_text(description: Description) -> str:
    """The recipe as TOML; empty if the model file has none that this version understands."""
    try:
        return from_table(Recipe, description.recipe).to_toml() if description.recipe else ""
    except ContentError:
        return ""


def _known_facts(report: Report) -> list[tuple[str, str]]:
    """All facts as a list. Raises ContentError where the header is damaged."""
    with _reading_account():
        return list(_facts(report))


@contextlib.contextmanager
def _reading_account() -> Iterator[None]:
    """Raise ContentError where what the model file says of its data has other types."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise ContentError(f"the model file's account of its data is damaged: {error}") from None


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """How the network was made: name and value of each fact."""
    description, data = report.subject.model.description, report.subject.model.description.data
    weights = sum(weight.numel() for weight in report.subject.model.network.parameters())
    yield "network", f"{_network_name(description)}, {plural(weights, 'weight')}"
    side, channels = description.preprocessing.size, description.preprocessing.channels
    yield "image size", f"{side} x {side} pixels, {_CHANNELS[channels]}"
    if data.get("source"):
        yield "data", str(data["source"])
    if data.get("counts"):
        yield "images", _counts_in_words(data["counts"])
    history = TrainedOn.from_dict(description.trained_on)
    yield from _facts_of_start(history.ancestors)
    if history.origin:
        yield "published weights", ", ".join(f"{k} {v}" for k, v in history.origin.items())
    for split in ("validation", "test"):
        if data.get(split):
            yield f"{split} split", _split_in_words(data, split)
    if data.get("fingerprint"):
        yield "data fingerprint", str(data["fingerprint"])
    if "seed" in description.recipe:
        yield "seed", str(description.recipe["seed"])
    if report.subject.history:
        yield from _facts_of_run(report.subject)
    yield (
        "versions",
        ", ".join(f"{name} {number}" for name, number in sorted(description.versions.items())),
    )


def _counts_in_words(counts: dict[str, dict[str, int]]) -> str:
    """The number of images in each split, in words.

    >>> _counts_in_words({"test": {"cat": 1}, "train": {"cat": 5, "dog": 3}})
    '8 train, 1 test'
    """
    sums = {split: sum(counts.get(split, {}).values()) for split in ("train", "validation", "test")}
    return ", ".join(f"{total:,} {split}" for split, total in sums.items() if total)


def _split_in_words(data: dict[str, Any], name: str) -> str:
    """How a split was made, in words.

    >>> drawn = {"from": "all", "fraction": 0.1, "seed": 0}
    >>> _split_in_words({"test": drawn}, "test").partition(" (")[0]
    'a fraction of 0.1 of each class, drawn from all images with seed 0'
    >>> other = {"test": drawn, "validation": {"from": "source"}}
    >>> _split_in_words(other, "test").partition("drawn ")[2]
    'from the other images with seed 0 (at least one image of a class that has three or more)'
    """
    split = data[name]
    if split.get("from") == "source":
        return "of the data itself"
    if split.get("from") == "fold":
        return "one part of a cross-validation"
    source = {"all": "all", "train": "the other"}.get(str(split.get("from")), "the")
    other = data.get("validation" if name == "test" else "test") or {}
    if other.get("from") == "source":  # whose images are not among those drawn from
        source = "the other"
    return (
        f"a fraction of {split.get('fraction')} of each class, drawn from {source} images with "
        f"seed {split.get('seed')} (at least one image of a class that has three or more)"
    )


def _facts_of_start(history: TrainedOn) -> Iterator[tuple[str, str]]:
    """Facts about the training of the network that this one started from."""
    if history:
        unknown = (
            f"; it cannot be checked which images these were ({history.unknown})"
            if history.unknown
            else ""
        )
        yield "started from", f"a network trained on {history.in_words()}{unknown}"


def _facts_of_run(subject: Subject) -> Iterator[tuple[str, str]]:
    """Facts about the run, from its log, which has the final network and none of the folds'."""
    history = subject.history
    assert history is not None
    start = history.start
    if "time" in start:
        yield "started", str(start["time"])
    alone = ", without the networks of the folds" if subject.by_folds else ""
    steps = "" if subject.fit else f" for {plural(history.step, 'step')}"  # there are none
    yield "time", f"{duration(history.seconds)}{steps}{alone}"
    if "device" in start:
        processes, threads = start.get("processes", 1), start.get("threads", 1)
        several = f", {plural(processes, 'process')}" if processes != 1 else ""
        yield "device", f"{start['device']}, {plural(threads, 'thread')}{several}"
