"""A model card: what a network is, how it was measured and how to use it, from its model file."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from resnets.data.membership import Generation, TrainedOn
from resnets.errors import require
from resnets.escaping import escaped
from resnets.evaluation.calibration import Calibration
from resnets.evaluation.familiarity import UNPROTECTED, Familiarity, familiarity_of
from resnets.evaluation.next_steps import wide_interval
from resnets.evaluation.proportion import Proportion
from resnets.files.reading import read_text
from resnets.format import fraction, percent, percent_interval, plural
from resnets.model_file import Description
from resnets.networks import Architecture
from resnets.networks.catalog import display_name
from resnets.pretrained.table import is_non_commercial

_NAMED = 20  # classes in the first sentence
_MARKUP = re.compile(r"([\\`*_\[\]<>|#])")  # what Markdown or HTML would obey
_OF_HUB = re.compile(r"\b(?:hf-)?(?:hub:|timm/|microsoft/|torchvision/)\S+")
_HUB = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)")
_FOLDS = "cross_validation"  # of networks that were each trained without a part of the images
_SPLITS = ("validation", _FOLDS, "test")  # in `Description.metrics`, the most telling one last
_OTHERS = re.compile(r"([\d,]+ of )(.*?)(; [\d,]+ more cannot be read)?", re.DOTALL)
_START = re.compile(  # the network of --from, in the reason why no promise is made
    r"(?<=^the classifier is that of ).*(?=, trained on other images before$)"
    r"|^.*(?= was validated on some of the validation images$)",
    re.DOTALL,
)
_IN_WORDS = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's modes by number of channels


@dataclass(frozen=True)
class CardSubject:
    """What a card is about.

    Attributes:
        description: of the network, from its model file.
        repository: OWNER/NAME on the hub.
        weights: number of them.
        licence: of these weights; empty if nobody says.
        onnx: whether the repository has an .onnx file.
        report: whether it has a report.
        timm: whether timm reads it, too.
        revision: the branch; empty is the main one.
    """

    description: Description
    repository: str
    weights: int
    licence: str = ""
    onnx: bool = False
    report: bool = False
    timm: bool = False
    revision: str = ""

    @property
    def model_id(self) -> str:
        """By which commands and timm read it."""
        return f"hf-hub:{self.repository}{f'@{self.revision}' if self.revision else ''}"

    @property
    def names_folders(self) -> bool:
        """Whether the model file holds the path of a folder of somebody's machine."""
        about = self.description
        texts = [
            about.data.get("source", ""),
            *(generation.source for generation in self.history.generations),
        ]
        texts += [about.calibration.get(name, "") for name in ("images", "withheld")]
        texts += [about.familiarity.get("others", "")]
        return any(re.search(r"[\\/]", _OF_HUB.sub("", str(text))) for text in texts)

    @property
    def history(self) -> TrainedOn:
        """What the network was trained on. Raises ContentError."""
        return TrainedOn.from_dict(self.description.trained_on)

    @property
    def network(self) -> str:
        """What screens call the network."""
        return display_name(Architecture.from_dict(self.description.architecture))


@dataclass(frozen=True)
class Row:
    """A split or a class, and how many of its images are predicted correctly.

    Attributes:
        name: of the split or class.
        right: share of its images.
        remark: on who predicted them; empty for the network itself.
    """

    name: str
    right: Proportion
    remark: str = ""

    @property
    def count(self) -> str:
        """The images that are right, and all."""
        return fraction(self.right.count, self.right.total)

    @property
    def interval(self) -> str:
        """In percent."""
        return percent_interval(*self.right.interval, 1)


def make_card(subject: CardSubject) -> str:
    """The card as Markdown, with the metadata that the hub reads as YAML in front.

    Raises:
        ContentError: what the model file says is damaged.
        MissingExtra: huggingface_hub is not installed.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"plain": _plain, "plural": plural, "percent": percent}
    template = environment.from_string(read_text(Path(__file__).parent / "card.md.jinja"))
    description, history = subject.description, subject.history
    splits = list(accuracies(description))
    return template.render(
        subject=subject,
        about=description,
        seen=description.preprocessing,
        mode=_IN_WORDS[description.preprocessing.channels],
        names=description.class_names[:_NAMED],
        data=_data_in_words(history.generations, description),
        ancestors=[generation_in_words(generation) for generation in history.ancestors.generations],
        origin=history.origin,
        as_published=history.origin if len(history.generations) == 1 else {},
        restricted=is_non_commercial(history.origin.get("licence", "")),
        splits=splits,
        classes=recalls(description),
        how=list(_how_measured(description)),
        calibration=calibration_of(description),
        familiarity=familiarity_in_words(familiarity_of(description.familiarity)),
        unprotected=UNPROTECTED,
        wide=wide_interval(splits[-1].right) if splits else "",
        recipe=_recipe(description.recipe),
        metadata=_metadata(subject, splits),
    )


def _plain(text: object) -> str:
    r"""A name from a file, which Markdown shows as it is.

    >>> print(_plain("a|b <i>_c_"))
    a\|b \<i\>\_c\_
    """
    return _MARKUP.sub(r"\\\1", escaped(str(text)))


def _source_name(source: object) -> str:
    """The name of a data set without the folders of somebody's machine above it.

    >>> _source_name("/home/ann/photos"), _source_name("hub:owner/name@v1"), _source_name("digits")
    ('photos', 'hub:owner/name@v1', 'digits')
    """
    text = str(source)
    return text if text.startswith("hub:") else re.split(r"[\\/]", text.rstrip("\\/"))[-1]


def generation_in_words(generation: Generation) -> str:
    """The images of a training run, in words."""
    if not generation.source:
        return "unknown images"
    name = _source_name(generation.source)
    return f"{plural(generation.train, 'image')} of {name}" if generation.train else name


def _data_in_words(generations: Sequence[Generation], description: Description) -> str:
    """The images that the network itself was trained on."""
    if generations:
        return generation_in_words(generations[0])
    source = description.data.get("source")
    return _source_name(source) if source else "unknown images"


def accuracies(description: Description) -> Iterator[Row]:
    """The accuracy on each split, the most telling one last."""
    for name in _SPLITS:
        scores = description.metrics.get(name, {})
        top1 = scores.get("top1")
        if top1 and top1["total"]:
            of_folds = name == _FOLDS
            remark = f" ({scores.get('folds')} networks, not this one)" if of_folds else ""
            right = Proportion(top1["count"], top1["total"])
            yield Row(name.replace("_", "-"), right, remark)


def recalls(description: Description) -> list[Row]:
    """The recall of each class on the most telling split."""
    scores = [description.metrics[name] for name in _SPLITS if description.metrics.get(name)]
    counts = scores[-1].get("classes", ()) if scores else ()
    if isinstance(counts, Mapping):  # of the folds, as earlier files hold them, by name
        rows = [counts.get(name, {}) for name in description.class_names]
        totals = [int(row.get("images") or 0) for row in rows]
        counts = [
            (round((row.get("recall") or 0) * total), total)
            for row, total in zip(rows, totals, strict=True)
        ]
    pairs = zip(description.class_names, counts, strict=False)
    return [Row(name, Proportion(right, total)) for name, (right, total) in pairs if total]


def _how_measured(description: Description) -> Iterator[str]:
    """What the images of the splits were used for, a sentence each."""
    if description.metrics.get(_FOLDS):
        yield (
            "In cross-validation, each image is predicted by a network that was trained without "
            "it; the network of this repository was trained on all of them."
        )
    recipe, calibration = description.recipe, description.calibration
    of_training = bool(calibration) and not calibration.get("images")
    chosen = {
        "the penalty of the classifier": recipe.get("freeze") == "all",
        "the epoch": bool(recipe.get("patience")) and recipe.get("freeze") != "all",
        "the temperature and the threshold of the probabilities": of_training,
    }
    if description.metrics.get("validation") and any(chosen.values()):
        names = [name for name, is_chosen in chosen.items() if is_chosen]
        yield f"Validation images chose {', and '.join(names)}."
    if description.metrics.get("test"):
        yield "Test images are kept apart from those that train the network."


def calibration_of(description: Description) -> Calibration | None:
    """The calibration, in the words of which there is no path; None if it was never fitted."""
    if not description.calibration:
        return None
    calibration = Calibration.from_dict(description.calibration)
    images = (
        calibration.images and f"{plural(calibration.total, 'image')}, by which it was calibrated"
    )
    withheld = _START.sub(lambda match: _source_name(match[0]), calibration.withheld)
    return replace(calibration, images=images, withheld=withheld)


def familiarity_in_words(known: Familiarity | None) -> str:
    """What the status unfamiliar catches, without the path of --other; empty if never fitted."""
    if known is None:
        return ""
    if known.detected is None:  # the images may be those of `calibrate`, too
        return (
            f"Status unfamiliar: {known.lost} of the images that chose its threshold, though they "
            "are of the classes. How many images of other things get it was not measured."
        )
    match = _OTHERS.fullmatch(known.others)
    count, source, more = match.groups("") if match else ("", known.others, "")
    text = replace(known, others=f"{count}{_source_name(source)}{more}").in_words()
    return f"{text[0].upper()}{text[1:]}."


def _recipe(recipe: Mapping[str, Any]) -> str:
    """The main settings of the training, in words; empty if they are unknown."""
    shown = ("epochs", "batch_size", "optimizer", "learning_rate", "freeze", "seed")
    settings = [f"{name} {recipe[name]}" for name in shown if recipe.get(name) is not None]
    return ", ".join(settings)


def _metadata(subject: CardSubject, splits: Sequence[Row]) -> str:
    """What the hub reads, as YAML."""
    hub: Any = require("huggingface_hub", "pretrained")
    published = _HUB.fullmatch(subject.history.origin.get("id", ""))
    torchvision = subject.history.origin.get("id", "").startswith("torchvision/")
    results = [
        hub.EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name=_source_name(subject.description.data.get("source", "images")),
            dataset_split=row.name,
            metric_type="accuracy",
            metric_value=round(row.right.value, 4),
        )
        for row in splits[-1:]
    ]
    data = hub.ModelCardData(
        library_name="resnets",
        pipeline_tag="image-classification",
        tags=["image-classification", "resnets", *(["timm"] if subject.timm else [])],
        license=subject.licence or None,
        base_model=published[1] if published and not torchvision else None,
        model_name=subject.repository.partition("/")[2],
        eval_results=results or None,
    )
    return str(data.to_yaml())
