"""A report as one HTML page that needs nothing from outside: no script, no font, no picture.

Nothing that a class or a file is called can become markup: Jinja escapes every value, and what HTML
does not allow at all is written out as its number.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from resnets.data.membership import TrainedOn
from resnets.errors import ContentError
from resnets.evaluation.familiarity import UNPROTECTED, familiarity_of
from resnets.evaluation.history import History
from resnets.evaluation.report import Report
from resnets.files import read_text
from resnets.model_file import Description, current_versions
from resnets.networks import Architecture
from resnets.networks.recognise import name_of
from resnets.training.fields import from_table
from resnets.training.recipe import Recipe

TITLES = {
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
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def page(report: Report) -> str:
    """The whole page.

    Raises:
        ContentError: what the model file says of its data is damaged.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"percent": percent, "count": count}
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
        name=network_name(description),
        titles=TITLES,
        css=read_text(folder / "page.css"),
        weakest=sorted(known, key=lambda row: row.recall or 0),
        confused=metrics.most_confused(8),
        facts=known_facts(report),
        recipe=recipe_text(description),
        unprotected=UNPROTECTED,
        familiarity=familiarity_of(description.familiarity),
        version=current_versions().get("resnets", ""),
    )
    return visible(text)


def visible(text: str) -> str:
    r"""A text with what HTML does not allow written out.

    >>> visible("a\x00b\u202ec")
    'a\\x00b\\u202ec'
    """
    return FORBIDDEN.sub(lambda match: ascii(match[0])[1:-1], text)


def percent(share: float | None, digits: int = 1) -> str:
    r"""A share in percent; a dash where it is not defined.

    >>> percent(0.5), percent(None)
    ('50.0\xa0%', '–')
    """
    return "–" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def count(number: int) -> str:
    """A number of things.

    >>> count(10000)
    '10,000'
    """
    return f"{number:,}"


def network_name(description: Description) -> str:
    """What people call the network."""
    named = name_of(Architecture.from_dict(description.architecture))
    return named or str(description.recipe.get("network", "A residual network"))


def recipe_text(description: Description) -> str:
    """The recipe as TOML; empty if the model file has none that this version understands."""
    try:
        return from_table(Recipe, description.recipe).to_toml() if description.recipe else ""
    except ContentError:
        return ""


def known_facts(report: Report) -> list[tuple[str, str]]:
    """All facts; a header may hold anything. Raises ContentError."""
    try:
        return list(facts(report))
    except (AttributeError, TypeError, ValueError) as error:
        raise ContentError(f"the model file's account of its data is damaged: {error}") from None


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """What is known of the network's making, as name and value."""
    description, data = report.subject.model.description, report.subject.model.description.data
    weights = sum(weight.numel() for weight in report.subject.model.network.parameters())
    yield "network", f"{network_name(description)}, {weights:,} weights"
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
        yield "images", amounts(data["counts"])
    yield from of_start(TrainedOn.from_dict(description.trained_on).ancestors)
    for split in ("validation", "test"):
        if data.get(split):
            yield f"{split} split", origin(data[split])
    if data.get("fingerprint"):
        yield "data fingerprint", str(data["fingerprint"])
    if "seed" in description.recipe:
        yield "seed", str(description.recipe["seed"])
    if report.subject.history:
        yield from of_run(report.subject.history)
    yield (
        "versions",
        ", ".join(f"{name} {number}" for name, number in sorted(description.versions.items())),
    )


def amounts(counts: dict[str, dict[str, int]]) -> str:
    """How many images each split has.

    >>> amounts({"test": {"cat": 1}, "train": {"cat": 5, "dog": 3}})
    '8 train, 1 test'
    """
    sums = {split: sum(counts.get(split, {}).values()) for split in ("train", "validation", "test")}
    return ", ".join(f"{total:,} {split}" for split, total in sums.items() if total)


def origin(split: dict[str, Any]) -> str:
    """Where a split is from.

    >>> origin({"from": "all", "fraction": 0.1, "seed": 0})
    'a fraction of 0.1, drawn from all images with seed 0'
    """
    if split.get("from") == "source":
        return "of the data itself"
    whence = {"all": "all", "train": "the other"}.get(str(split.get("from")), "the")
    return f"a fraction of {split.get('fraction')}, drawn from {whence} images with seed " + str(
        split.get("seed")
    )


def of_start(history: TrainedOn) -> Iterator[tuple[str, str]]:
    """What is known of the training of the network that this one started from."""
    if history:
        unknown = f"; it cannot be checked which ({history.unknown})" if history.unknown else ""
        yield "started from", f"a network trained on {history.in_words()}{unknown}"


def of_run(history: History) -> Iterator[tuple[str, str]]:
    """What the log says of the run."""
    start = history.start
    if "time" in start:
        yield "started", str(start["time"])
    yield "time", f"{duration(history.seconds)} for {history.step:,} weight updates"
    if "device" in start:
        processes, threads = start.get("processes", 1), start.get("threads", 1)
        several = f", {processes} processes" if processes != 1 else ""
        yield "device", f"{start['device']}, {threads} thread{'s' * (threads != 1)}{several}"


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(7.2), duration(330), duration(7300)
    ('7 s', '5 min 30 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
