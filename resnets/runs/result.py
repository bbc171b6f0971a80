"""Scores, calibrates and saves a trained network, in actions that each add to the result.

An action is a function of a `Result` that returns another. To add one, write it into `_ACTIONS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from resnets import model_file
from resnets.data.labelled import LabelledImages
from resnets.data.membership import TrainedOn, first_of_copies
from resnets.errors import UsageError
from resnets.evaluation.calibration import Calibration, calibrate
from resnets.evaluation.eager import Eager
from resnets.evaluation.exposure import (
    Exposure,
    SeenImages,
    copies_in_words,
    exposure_from,
    seen_kind,
)
from resnets.evaluation.familiarity import UNPROTECTED, OtherImages
from resnets.evaluation.fit_familiarity import (
    familiarise,
    familiarise_by_folds,
    scores_of_held_out,
)
from resnets.evaluation.history import History
from resnets.evaluation.label_errors import find_label_errors
from resnets.evaluation.logits import Booleans, Floats
from resnets.evaluation.metrics import Metrics
from resnets.evaluation.metrics import measure as figures
from resnets.evaluation.next_steps import (
    NextStep,
    findings_of,
    in_words,
    next_steps,
    wide_interval,
)
from resnets.evaluation.other_images import compute_outputs, statuses_of
from resnets.evaluation.outputs import Logits, logits_of
from resnets.evaluation.predict import is_accepted
from resnets.format import percent, plural
from resnets.model_file import Description, Model, architecture_of, custom_class
from resnets.networks import ResNet
from resnets.run_files import REPORT
from resnets.runs.command_line import command_by_default, command_to_change, training_command
from resnets.runs.cross_validation import CrossValidation, in_lines
from resnets.runs.folder import RunFolder, as_launched
from resnets.runs.frozen_features import features_of
from resnets.runs.notices import withheld
from resnets.runs.prepare import Notify
from resnets.runs.setup import NOT_KEPT, Setup
from resnets.training.parallel import from_first


@dataclass(frozen=True)
class Result:
    """A trained network.

    Attributes:
        setup: what it was trained on, and how.
        network: in evaluation mode; the same in every process.
        description: of the network, as in its model file.
        folder: of the run; None in every process but the first, which alone writes.
        notify: takes lines for the user.
        candidates: among how many networks the validation images chose this one.
        interrupted: whether the training was cut short by a signal; then there is no report.
        images: by split, those that the network was measured on: exact copies are left out.
        logits: by split, (N, K), once the network was measured on it.
        familiar: whether each image of the reported split is familiar, (N,), once that was
            fitted.
        steps: what to do next, by the report; None where there is none.
        cross_validation: what networks of the folds predict; None without folds.
    """

    setup: Setup
    network: nn.Module
    description: Description
    folder: RunFolder | None
    notify: Notify
    candidates: int = 1
    interrupted: bool = False
    images: Mapping[str, LabelledImages] = field(default_factory=dict)
    logits: Mapping[str, Logits] = field(default_factory=dict)
    familiar: Booleans | None = None
    steps: tuple[NextStep, ...] | None = None
    cross_validation: CrossValidation | None = None

    @property
    def model(self) -> Model:
        """The network and its description as one."""
        return Model(cast("ResNet", self.network), self.description)

    @property
    def reported(self) -> str:
        """The split that the report measures: test, or validation if there are no test images."""
        return "test" if "test" in self.logits else "validation"

    @property
    def measured(self) -> tuple[LabelledImages, Logits] | None:
        """The images that the report is about, and their logits; None if nothing was measured."""
        name = self.reported
        if name not in self.logits:
            folds = self.cross_validation
            return None if folds is None else (folds.images, folds.logits)
        return self.images[name], self.logits[name]

    def left_copies(self, split: str) -> int:
        """How many images of a split are exact copies of those that were measured."""
        splits = {"validation": self.setup.splits.validation, "test": self.setup.splits.test}
        return len(splits[split] or ()) - len(self.images[split])


def describe(setup: Setup, network: nn.Module) -> Description:
    """The description of the network in its model file, before it is measured."""
    splits, job = setup.splits, setup.job
    return Description(
        architecture=architecture_of(network),
        class_names=splits.class_names,
        preprocessing=setup.preprocessing,
        recipe=job.recipe.to_dict(),
        data={"fingerprint": splits.fingerprint, "skipped": len(splits.skipped)} | splits.split,
        trained_on=_kept(setup).to_dict(),
    )


def _kept(setup: Setup) -> TrainedOn:
    """What the model file tells of the images that the network was trained on."""
    trained_on = setup.trained_on
    return trained_on if setup.job.image_digests else trained_on.without_digests(NOT_KEPT)


def _fit(result: Result) -> Result:
    """Calibrate the probabilities on the validation images, or on those of all folds."""
    if result.cross_validation is not None:
        return _calibrated(result, _by_folds(result.setup.job.max_error, result.cross_validation))
    setup, images = result.setup, result.images.get("validation")
    if images is None:
        result.notify("No validation images: the probabilities are not calibrated.")
        return result
    calibration = calibrate(
        result.logits["validation"], images.labels, setup.job.max_error, result.candidates
    )
    why = withheld(setup)
    if why:
        calibration = calibration.without_promises(why)
    return _calibrated(result, calibration)


def _by_folds(max_error: float, known: CrossValidation) -> Calibration:
    """The calibration of the networks of the folds, which stands for that of the one that stays."""
    calibration = calibrate(known.logits, known.images.labels, max_error, images=known.in_words)
    return calibration.without_promises(known.withheld)


def _calibrated(result: Result, calibration: Calibration) -> Result:
    """The result with a calibration, which is put in words."""
    for line in calibration.in_words().splitlines():  # a break inside a line would be escaped
        result.notify(line)
    return replace(
        result, description=replace(result.description, calibration=calibration.to_dict())
    )


def _fit_familiarity(result: Result) -> Result:
    """Fit the status unfamiliar on training images, its threshold on the validation images."""
    setup, validation = result.setup, result.images.get("validation")
    scores = None if result.cross_validation is None else result.cross_validation.scores
    if scores is not None and not np.isnan(scores).all():  # it is, if classes have an image each
        return _fit_familiarity_by_folds(result, scores)
    if validation is None and setup.job.fold:
        return result  # `familiarity_scores` come after this
    if validation is None:
        result.notify("No validation images: no image gets the status unfamiliar.")
        return result
    if not isinstance(result.network, ResNet):
        kind = type(result.network).__name__
        result.notify(f"No image gets the status unfamiliar: the features of {kind} are not known.")
        return result
    look, seed = partial(_features, result), setup.job.recipe.seed
    learn = partial(familiarise, look, setup.splits.train, validation)
    try:
        known = learn(_other_images(result), seed)
    except UsageError as error:  # too few other images: no reason to lose what was trained
        result.notify(f"--other {setup.job.other}: {error}")
        known = learn(None, seed)
    result.notify(f"{known.in_words()}. {UNPROTECTED}")
    description = replace(result.description, familiarity=known.to_dict())
    images = result.images[result.reported]
    familiar = known.familiar(_features(result, images)) if setup.job.report else None
    return replace(result, description=description, familiar=familiar)


def _fit_familiarity_by_folds(result: Result, scores: Floats) -> Result:
    """Fit the status unfamiliar on all images, its threshold on what the folds held out."""
    setup, recipe = result.setup, result.setup.job.recipe
    known = familiarise_by_folds(
        partial(_features, result),
        setup.splits.train,
        scores,
        setup.job.folds or 0,
        same_features=recipe.freeze == "all",
        seed=recipe.seed,
    )
    result.notify(f"{known.in_words()}. {UNPROTECTED}")
    description = replace(result.description, familiarity=known.to_dict())
    familiar = ~(scores < known.threshold)  # NaN, where it is not known, counts as familiar
    if "test" in result.logits:
        familiar = known.familiar(_features(result, result.images["test"]))
    return replace(result, description=description, familiar=familiar)


def familiarity_scores(result: Result, held_out: LabelledImages) -> Floats | None:
    """The familiarity of images that a network was not trained on, (N,).

    None where its features are not known.
    """
    if not isinstance(result.network, ResNet):
        return None
    setup = result.setup
    look, seed = partial(_features, result), setup.job.recipe.seed
    return scores_of_held_out(look, setup.splits.train, held_out, seed)


def _features(result: Result, images: LabelledImages) -> Logits:
    """What the classifier sees of images, (N, F), in every process."""
    if result.setup.job.recipe.freeze == "all":
        return features_of(result.setup, images)
    network, batches = result.network, result.setup.in_order(images)
    assert isinstance(network, ResNet)
    return logits_of(network, batches, len(images), network.embed)


def _other_images(result: Result) -> OtherImages | None:
    """What the network computes for the images of --other; None where there are none."""
    others = result.setup.others
    if not others:
        return None
    engine = Eager(result.model)
    outputs = compute_outputs(engine, others)
    confident = [is_accepted(status) for status in statuses_of(engine, outputs)]
    what = f"{len(outputs.features):,} of {result.setup.job.other}"
    if outputs.unreadable:
        what += f"; {outputs.unreadable:,} more cannot be read"
    return OtherImages(outputs.features, confident, what)


def _measure(result: Result) -> Result:
    """Score the network on the validation images, and once on the test images.

    After a cross-validation, the score of its networks comes first.
    """
    if result.cross_validation is not None:
        result = _measure_folds(result, result.cross_validation)
    result = replace(result, images=_each_once(result.setup))
    metrics, logits = dict(result.description.metrics), {}
    for name in _MEASURED:
        images = result.images.get(name)
        if images is None and result.cross_validation is not None:
            continue
        if images is None:
            result.notify(f"There are no {name} images.")
            continue
        if left := result.left_copies(name):
            result.notify(f"{copies_in_words(left, f'{name} images')}.")
        logits[name] = _outputs(result, images)
        measured = figures(logits[name], images.labels)
        metrics[name] = measured.for_header()
        flattered = name == "validation" and result.candidates > 1
        chosen = "penalty" if result.setup.job.recipe.freeze == "all" else "epoch"
        why = f"; these images chose the {chosen}, so it is somewhat too high" if flattered else ""
        if not measured.better_than_chance:
            why += f"; {_guessing(measured)}"
        result.notify(f"{name} accuracy {measured.top1}{why}{_trained_among(result, name)}")
    description = replace(result.description, metrics=metrics)
    return replace(result, description=description, logits=logits)


def _guessing(measured: Metrics) -> str:
    """What guessing reaches, beside an accuracy that is not shown to be better."""
    largest = percent(measured.largest_class.value)
    return f"always predicting the most frequent class would be right on {largest}"


_MEASURED = ("validation", "test")  # splits


def _each_once(setup: Setup) -> dict[str, LabelledImages]:
    """The images of each split that is measured, in every process: of exact copies the first."""
    splits = setup.splits
    both = {"validation": splits.validation, "test": splits.test}
    parts = {name: images for name, images in both.items() if images is not None}
    masks = {}
    if setup.process.rank == 0:
        masks = {
            name: first_of_copies(setup.members[name], images.labels)[0]
            for name, images in parts.items()
        }
    kept = from_first(masks)
    return {
        name: images if kept[name].all() else images.subset(kept[name])
        for name, images in parts.items()
    }


_MOST_CLASSES = 30  # whose recall is told; the report has all of them


def _measure_folds(result: Result, known: CrossValidation) -> Result:
    """Score what the networks of all folds predict, as one."""
    measured = figures(known.logits, known.images.labels, known.images.class_names)
    if known.left_copies:
        result.notify(f"{copies_in_words(known.left_copies, 'other images')}.")
    for line in in_lines(known, measured.top1, result.setup.splits.test is not None):
        result.notify(line)
    if not measured.better_than_chance:
        result.notify(f"Not shown to be better than guessing: {_guessing(measured)}.")
    for row in measured.classes[:_MOST_CLASSES]:
        result.notify(
            f"  {row.name}: recall {percent(row.recall)} of {plural(row.support, 'image')}"
        )
    scores = measured.for_header() | {"folds": known.folds}
    metrics = result.description.metrics | {"cross_validation": scores}
    return replace(result, description=replace(result.description, metrics=metrics))


def _trained_among(result: Result, split: str) -> str:
    """How many images of a split are training images, too; empty if none is."""
    first = result.setup.process.rank == 0
    trained = (first and _exposure_of(result, split).trained) or 0
    return f"; the network was trained on {trained:,} of these images, too" if trained else ""


def _outputs(result: Result, images: LabelledImages) -> Logits:
    """The network's logits for images, in every process."""
    setup, network = result.setup, result.network
    if setup.job.recipe.freeze == "all":
        features = torch.from_numpy(features_of(setup, images)).to(setup.device)
        with torch.inference_mode():
            logits: Logits = network.get_submodule("fc")(features).cpu().numpy()
        return logits
    return logits_of(network, setup.in_order(images), len(images))


def _save(result: Result) -> Result:
    """Write the model file."""
    if result.folder is not None:
        model_file.save(result.folder.model, result.model.network, result.description)
        result.notify(f"saved {result.folder.model}{_by_hand(result.description)}")
    return result


def _by_hand(description: Description) -> str:
    """What a file does not hold of a network of the user's own; empty for any other."""
    name = custom_class(description.architecture)
    return name and (
        f": the weights of {name} and all that is known of it, without its code; "
        "resnets.load(folder, network=...) puts them together"
    )


def _report(result: Result) -> Result:
    """Write a page on how good the network is and why; the model file is safe whatever happens."""
    folder = result.folder
    if folder is None or not result.setup.job.report or result.interrupted:
        return result
    if result.measured is None:
        result.notify("No report: there are no images to measure the network on.")
        return result
    page = folder.path / REPORT
    try:
        steps = _write_page(result, folder, page)
    except Exception as error:  # a missing report must not cost hours of training
        result.notify(f"no report ({type(error).__name__}: {error}); resnets report tries again")
        return result
    result.notify(f"wrote {page}")
    return replace(result, steps=steps)


def _write_page(result: Result, folder: RunFolder, page: Path) -> tuple[NextStep, ...]:
    """Write a report on the test images, or on the validation images if there are none.

    Returns:
        The next steps that it shows.
    """
    from resnets.evaluation.report import Subject, make_report, write_report

    assert result.measured is not None
    images, logits = result.measured
    name, folds = result.reported, result.cross_validation
    remark = ", by which it was calibrated" if name == "validation" else ""
    by_folds = folds is not None and name not in result.logits
    what = f"{plural(len(images), 'image')}, the {name} split of {result.setup.job.data}{remark}"
    subject = Subject(
        model=result.model,
        images=images,
        what=folds.in_words if folds is not None and by_folds else what,
        logits=logits,
        familiar=result.familiar,
        exposure=_exposure_of(result, name) if folds is None or not by_folds else folds.exposure,
        seen_images=None if by_folds else _seen_images(result, name),
        seen_kind=seen_kind(result.description, name),
        history=History.read(folder.log),
        repeat=as_launched(training_command(result.description, folder.path)),
        again=command_to_change(result.description, folder.path),
        by_default=command_by_default(result.description, folder.path),
        budget=result.setup.job.budget or "",
        by_folds=folds.withheld if folds is not None and by_folds else "",
    )
    report = make_report(subject)
    report = replace(report, next_steps=_as_launched(report.next_steps))
    write_report(report, page)
    return report.next_steps


def _seen_images(result: Result, reported: str) -> LabelledImages:
    """The images that the network has seen, apart from those that the report is about."""
    splits = result.setup.splits
    return splits.train if reported == "validation" else splits.training_and_validation


def _advise(result: Result) -> Result:
    """Say how sure the accuracy is, and what to do next."""
    if result.setup.process.rank or result.interrupted or result.measured is None:
        return result
    images, logits = result.measured
    measured = figures(logits, images.labels, images.class_names)
    steps = _steps(result, measured, logits, images) if result.steps is None else result.steps
    for line in (wide_interval(measured.top1), *in_words(steps)):
        if line:
            result.notify(line)
    return result


def _steps(
    result: Result, measured: Metrics, logits: Logits, images: LabelledImages
) -> tuple[NextStep, ...]:
    """What to do next, where no report has worked it out."""
    folder, name = result.folder, result.reported
    path = None if folder is None else folder.path
    temperature = float(result.description.calibration.get("temperature", 1.0))
    trained = name in result.logits and _exposure_of(result, name).trained
    doubts = () if trained else find_label_errors(logits, images.labels, temperature).suspects
    findings = findings_of(
        result.description,
        measured,
        len(doubts),
        None if folder is None else History.read(folder.log),
        command_to_change(result.description, path),
        command_by_default(result.description, path),
        result.setup.job.budget or "",
    )
    if name not in result.logits:  # `resnets report` finds no image that is new to this network
        findings = replace(findings, report="")
    return _as_launched(next_steps(replace(findings, is_on_page=False)))


def _as_launched(steps: Sequence[NextStep]) -> tuple[NextStep, ...]:
    """Steps whose commands train in as many processes as this run."""
    return tuple(replace(step, command=as_launched(step.command)) for step in steps)


def _exposure_of(result: Result, split: str) -> Exposure:
    """How many images of a split the network has seen, in this training and before."""
    memory, members = SeenImages(result.setup.trained_on), result.setup.members[split]
    images = result.setup.splits.test if split == "test" else result.setup.splits.validation
    assert images is not None
    once, _ = first_of_copies(members, images.labels)
    exposure = exposure_from(memory.seen(members[once]), memory)
    return replace(exposure, left_copies=result.left_copies(split))


_Action = Callable[[Result], Result]
_ACTIONS: tuple[_Action, ...] = (_measure, _fit, _fit_familiarity, _save, _report, _advise)


def score_and_save(result: Result, may_be_cut_short: bool = False) -> Result:
    """Score, calibrate and save a trained network, and write its report.

    Args:
        result: a trained network.
        may_be_cut_short: whether KeyboardInterrupt ends this with what is there by then.
    """
    for action in _ACTIONS:
        try:
            result = action(result)
        except KeyboardInterrupt:
            if not may_be_cut_short:
                raise
            return _save(replace(result, interrupted=True))
    return result
