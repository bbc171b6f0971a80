"""The Python interface: train, load, predict, evaluate, compare, calibrate, explain and others.

The package `resnets` exports them. This module opens the arguments and calls the packages that do
the work.
"""

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnets.deployment import converting, inspection
from resnets.deployment.engines import AnyModel, EngineName, open_engine, open_network
from resnets.deployment.engines.swapped import refuse_swapped
from resnets.errors import ContentError, UsageError
from resnets.escaping import say
from resnets.evaluation import predict as prediction
from resnets.evaluation.engine import Engine
from resnets.evaluation.inputs import Images, names_of, sources_of
from resnets.evaluation.predict import Prediction
from resnets.evaluation.report.pictures import SIDE
from resnets.evaluation.sorting import refuse_sorted, sort_images, sortable
from resnets.evaluation.statuses import engine_with_target
from resnets.evaluation.tta import with_tta
from resnets.files.outputs import refuse_existing, writable
from resnets.format import plural
from resnets.images.arrays import is_tensor
from resnets.keywords import naming_keywords
from resnets.model_file import Description, Model, custom_class, save
from resnets.model_file import load as load_file
from resnets.model_path import fetch_weights, find_model, find_weights
from resnets.runs.job import CHANGES, Job, changed_job, new_job, refuse_changes

if TYPE_CHECKING:
    from torch.nn import Module

    from resnets.data.batches import CustomAugmentation
    from resnets.data.sources.opening import Data
    from resnets.deployment.converting import FilterName, Project, Weightless
    from resnets.deployment.inspection import InspectedExport, InspectedWeights
    from resnets.evaluation.compare import ComparedNetworks
    from resnets.evaluation.doctor import Diagnosis
    from resnets.evaluation.evaluate import Evaluation, Outputs
    from resnets.evaluation.explain import Explanation, Method
    from resnets.evaluation.source import Source
    from resnets.images.preprocessing import CropMode, Interpolation
    from resnets.runs.callbacks import Callback
    from resnets.runs.run import Run
    from resnets.training.optimisation import Loss
    from resnets.training.recipe import Recipe


@naming_keywords(**CHANGES)
def train(
    data: "Data",
    network: "str | Module" = "auto",
    recipe: "str | os.PathLike[str] | Recipe | None" = None,
    output: "str | os.PathLike[str] | Literal[False] | None" = None,
    callbacks: "Iterable[Callback]" = (),
    *,
    loss: "Loss | None" = None,
    augmentation: "CustomAugmentation | None" = None,
    progress: bool = True,
    overwrite: bool = False,
    **changes: Any,
) -> "Run":
    """Train a network on labelled images, score it, and save it with its description.

        run = resnets.train("digits", epochs=4)
        print(run.metrics["test_accuracy"])
        run.history.plot()

    The same arguments give the same weights, to the bit, as `resnets train` with the flags of the
    same names. Ctrl-C, a notebook's stop button, ends the training: the network so far is scored
    and returned, and `resnets.resume` goes on from there; so does a KeyboardInterrupt that your
    callback, network or loss raises, and `resume` then finds the last saved state. Pressed again
    before that is done, or raised before the first step is, it raises KeyboardInterrupt, and there
    is no `Run`. In one of `folds` Ctrl-C raises that the first time, once the state is saved;
    `resume` goes on in that fold. The random numbers, the threads and the signal handlers of the
    program are afterwards as they were before. A run can go on in any thread; a stop button reaches
    it in the main thread only.

    Args:
        data: labelled images: "digits", which comes with the package; a path of a folder of class
            folders, of parquet files, of CIFAR's or MNIST's files, of a table of paths and labels;
            "hub:NAME"; or what Python programs hold: a Dataset of (image, label), a pair (images,
            labels) of arrays, a list of (path, label), a frame with two such columns.
        network: a name that `resnets list` shows; "auto" is resnet20 for images of up to 64 pixels
            and resnet18d for others. Or a module of your own, from normalised images (N, C, S, S)
            to logits (N, K), which is trained in place; C is 3 (RGB), or 1 (grey) where it takes no
            others. The model file then has its weights, but not its code.
        recipe: "quick" (the default), "transfer" (the default with `start`), "paper", "strong" or
            "imagenet"; a TOML file; or a `Recipe`.
        output: folder of the run. None: a fresh one, runs/NETWORK-DATE-NUMBER. False: nothing is
            written at all, and the best network that `patience` looks for is kept in memory.
        callbacks: callables that get each record of the run: `Notice`, `Plan`, `Step`, `Interval`,
            `Validating`, `FeaturePass`, `Epoch` and `End` of this package. One that raises
            `StopTraining` ends the training after the present step; in one of `folds` that is a
            UsageError, as half-trained networks measure nothing. Any other exception ends the run
            once a checkpoint is saved, and is raised here.
        loss: a function of logits (N, K) float32 and targets, (N,) int64 or, after mixup and
            cutmix, (N, K) probabilities. It returns the mean over the images or one value for each,
            and takes the place of the recipe's cross-entropy; scores stay cross-entropy.
        augmentation: a function of the images of a training batch, a tensor (B, H, W, C) of uint8,
            that returns such a tensor. It takes the place of the recipe's augmentation, but for
            what `changes` ask for, which comes after it. Random numbers that it draws from the
            global generators of torch, NumPy and Python are the same in every such run, and after
            `resume`.
        progress: show a progress bar and what is worth knowing; False shows nothing.
        overwrite: replace the run that is in `output`.
        changes: whatever else `resnets train --help` lists, with underscores: epochs=10,
            learning_rate=0.05, flip="random", patience=5, seed=1, start="model.safetensors" (the
            flag --from), budget="20m", report=False ... group_by may also be the name of a column,
            or one value for each image, in a list or an array.

    Returns:
        A `Run`: `model`, which the other functions take; `metrics`, plain numbers by name;
        `history`, the records of its log, with `plot()`; `path`; `description`; `stopped`.

    Raises:
        UsageError: an argument is not allowed (an unknown one is a TypeError as well), there is no
            such data, or a callback has stopped a fold.
        ContentError: the images cannot be trained on as they are; the message says what to do.
    """
    from resnets.data.sources.objects import grouped, is_path
    from resnets.runs.custom_parts import CustomParts

    if data is None:
        raise UsageError('data is None; give labelled images, such as "digits" or a folder')
    if isinstance(output, bool) and output:
        raise UsageError("output is True; give a folder, None for a fresh one, or False for none")
    data, changes["group_by"] = grouped(data, changes.get("group_by"))
    is_named = is_path(data)
    name, module = (network, None) if isinstance(network, str) else ("auto", network)
    custom = CustomParts(None if is_named else data, module, loss, augmentation)
    job = new_job(os.fspath(data) if is_named else "", name, recipe, changes, custom.names)
    folder = output if output is None or output is False else Path(output)
    how = {"custom": custom, "overwrite": overwrite}
    return _trained(job, folder, callbacks=callbacks, progress=progress, **how)


@naming_keywords(**CHANGES)
def resume(
    path: "str | os.PathLike[str]",
    *,
    data: "Data | None" = None,
    network: "Module | None" = None,
    loss: "Loss | None" = None,
    augmentation: "CustomAugmentation | None" = None,
    callbacks: "Iterable[Callback]" = (),
    progress: bool = True,
    **changes: Any,
) -> "Run":
    """Continue a run from its newest checkpoint, as if it had never stopped.

    Args:
        path: the run's folder.
        data: its images, where they have moved or were given as values; with `group_by`, if their
            groups were.
        network: a module like the one of your own that it began with, which gets its weights.
        loss: that of your own that it began with.
        augmentation: likewise.
        callbacks: as for `train`.
        progress: as for `train`.
        changes: what a run may change on the way: device, threads, workers, checkpoint_every, keep,
            log_every, log_to, max_error, report, other.

    Returns:
        The `Run`, as `train` does; of one that has finished, scored again.

    Raises:
        UsageError: there is no run, it is in use, or such a change is not allowed.
        ContentError: its files are damaged, or the images are others than they were.
    """
    from resnets.data.sources.objects import GROUPS, grouped, is_path
    from resnets.runs.custom_parts import CustomParts

    folder = Path(path)
    job_before = Job.of_run(folder)
    if "group_by" in changes:
        data, changes["group_by"] = grouped(data, changes["group_by"])
    elif job_before.group_by == f"column:{GROUPS}":
        raise UsageError(f"{path}: its groups were given from Python; give group_by= again, too")
    job = changed_job(job_before, changes)
    if data is not None and is_path(data):
        job, data = replace(job, data=os.fspath(data)), None
    refuse_changes(job_before, job)
    how = {"custom": CustomParts(data, network, loss, augmentation), "resume": True}
    return _trained(job, folder, callbacks=callbacks, progress=progress, **how)


def _trained(
    job: Job,
    output: "Path | Literal[False] | None",
    *,
    callbacks: "Iterable[Callback]",
    progress: bool,
    **how: Any,
) -> "Run":
    """Train with the progress display that suits the place."""
    from resnets.runs import progress as display
    from resnets.runs import train as runs

    callbacks = tuple(callbacks) if isinstance(callbacks, Iterable) else callbacks
    if not isinstance(callbacks, tuple) or not all(map(callable, callbacks)):
        raise UsageError(f"callbacks is {callbacks!r}; give a list of functions of a record")
    with contextlib.ExitStack() as stack:
        shown = [stack.enter_context(display.open_display())] if progress else []
        return runs.train(job, output, callbacks=(*shown, *callbacks), **how)


@overload
def load(
    path: str | os.PathLike[str], device: str = "cpu", *, network: "Module | None" = None
) -> Model: ...


@overload
def load(path: str | os.PathLike[str], *, engine: EngineName, threads: int = 0) -> Engine: ...


def load(
    path: str | os.PathLike[str],
    device: str = "cpu",
    *,
    engine: EngineName | None = None,
    threads: int = 0,
    network: "Module | None" = None,
) -> Model | Engine:
    """Load a network: to work on it in PyTorch, or to predict as fast as this machine can.

    Args:
        path: a model file, the folder of a run, a network of the package by name, or published
            weights by id, such as "timm/resnet50.a1_in1k"; with `engine`, an exported file too.
        device: where to put the network: "cpu", "cuda", "cuda:1" ...
        engine: what computes: "onnxruntime" or "openvino", for which `resnets export` has
            written a file, on a GPU as "onnxruntime-cuda" and the like, "torch", or "auto", the
            fastest of these.
        threads: number of threads of an engine; 0: its own choice.
        network: for the file or run of a network of your own: a module like the one that was
            trained, which gets its weights.

    Returns:
        Without `engine`, `network`, a `torch.nn.Module` from normalised images (N, C, S, S) to
        logits (N, K), and `description`: classes, preprocessing, calibration, recipe, figures.
        With it, an engine, with `probabilities(images)`, `features(images)` and
        `description`.

    Raises:
        UsageError: there is no such file, or it is not for this engine.
        ContentError: it is not a model file, or is damaged.
        MissingExtra: the engine is not installed.
    """
    if engine is not None and network is not None:
        raise UsageError("a network of your own runs in torch: load it without engine=")
    if engine is not None:
        return open_engine(path, engine, threads)
    if network is not None:
        return load_file(find_model(os.fspath(path)), device, network)
    loaded = open_network(path, 'load without engine="auto" returns it')
    loaded.network.to(device)
    return loaded


@naming_keywords()
def predict(
    model: "AnyModel | Run",
    images: Images,
    *,
    top: int = 1,
    batch_size: int = 32,
    max_error: float | None = None,
    tta: bool = False,
    sort: "str | os.PathLike[str] | None" = None,
    overwrite: bool = False,
) -> list[Prediction]:
    """Predict what is on images: the class, how probable it is, and whether to rely on it.

    Args:
        model: a model file, the folder of a run, an exported file, published weights by id
            (timm/resnet50.a1_in1k), a network of the package by name (resnet20_cifar10), or what
            `resnets.load` or `resnets.train` returns.
        images: a path of a file, of a folder that is searched through, or a pattern such as
            ``photos/*.jpg``; the bytes of an image file; a Pillow image of any mode; an array of
            uint8, (H, W), (H, W, C), (N, H, W) or (N, H, W, C); a tensor with C ahead of H, of
            uint8, or of floating point in 0..1, not normalised; or several of them in an iterable.
            C is 1 (grey), 3 (RGB) or 4 (RGBA); three axes without such a C are N grey images. H and
            W are any: images are resized and normalised as in training.
        top: how many of the most probable classes each prediction lists, 1 to K.
        batch_size: images computed at once.
        max_error: target for the share of wrong predictions among those that are "ok"; None is what
            the model file was calibrated for, and only a stricter one than it has is refused.
        tta: test-time augmentation: average the probabilities of each image and its mirror image.
            The thresholds were fitted without it, so no error rate is promised.
        sort: a folder in which each image, which must be a file, is copied into a folder of its
            class, or into the folder review if its status is "unsure" or "unfamiliar".
        overwrite: replace the copies that an earlier call made in `sort`.

    Returns:
        One `Prediction` an image, in their order, also for a single image: `prediction` (the most
        probable class), `probability` (calibrated, 0 to 1), `status` ("ok"; "unsure" below the
        threshold in the model file; "not calibrated" where it has none, until `calibrate` was run;
        "unfamiliar" where the image is unlike the network's own; "unreadable"), `top`, `sorted_to`
        (the copy, with `sort`), and `error`: why the image cannot be read, in which case the others
        are predicted all the same.

    Raises:
        UsageError: an argument is not allowed, or a path names nothing.
        ContentError: the model file is not one, or is damaged.
    """
    refuse_swapped([model], [images])
    engine = with_tta(engine_with_target(open_engine(_network_of(model)), max_error), tta)
    preprocessing = engine.description.preprocessing
    channels = preprocessing.channels
    if (
        sort is None
        and isinstance(images, np.ndarray)
        and images.shape[-1:] == (channels,)
        and (images.ndim in (3, 4) and images.dtype == np.uint8 and images.size and batch_size > 0)
    ):
        several = images if images.ndim == 4 else images[None]
        names = names_of(images, "image")
        predictions = prediction.predict_arrays(
            engine, several, names, top=top, batch_size=batch_size
        )
        return prediction.Predictions(predictions)
    sources = sources_of(images, channels, preprocessing.white)
    if sort is None:
        one_by_one = prediction.predict(engine, sources, top=top, batch_size=batch_size)
        return prediction.Predictions(one_by_one)
    refuse_sorted(Path(sort), overwrite)
    files = sortable(sources, Path(sort))
    unsorted = list(prediction.predict(engine, files, top=top, batch_size=batch_size))
    return prediction.Predictions(
        sort_images(unsorted, files, Path(sort), engine.description.class_names)
    )


@naming_keywords()
def evaluate(
    model: "AnyModel | Run",
    data: "Data",
    labels: Sequence[int] | Sequence[str] | Any = None,
    *,
    split: str = "auto",
    batch_size: int = 256,
    skip_unreadable: bool = False,
    max_error: float | None = None,
    tta: bool = False,
) -> "Evaluation":
    """Measure a network on labelled images.

    Args:
        model: a model file, the folder of a run, an exported file, published weights by id
            (timm/resnet50.a1_in1k), a network of the package by name (resnet20_cifar10), or what
            `resnets.load` or `resnets.train` returns.
        data: without `labels`, labelled images as for `train`: "digits", the path of a folder of
            class folders, of parquet files ..., a pair (images, labels) of arrays, a Dataset, a
            list of (path, label), a frame ... With `labels`, images as for
            `resnets.predict`.
        labels: (N,), one for each image: numbers of the network's classes, or their names.
        split: of labelled images: "train", "validation", "test" or "all", which are measured as
            they are; "auto" is the test split where the data has one or the network was trained on
            this data, else the validation split of the data, else all images; without those that
            the network was trained or validated on. Images with `labels` are measured as they are.
            Of exact copies one is measured: each image counts once.
        batch_size: images computed at once; the figures do not depend on it.
        skip_unreadable: leave out images that cannot be read, instead of raising ContentError.
        max_error: as for `predict`.
        tta: as for `predict`.

    Returns:
        `metrics` (top-1 and top-5 accuracy with 95 % intervals, loss in nats, per class precision,
        recall and F1, confusion matrix, calibration error, Brier score), `before` and `after`
        (reliability before and after the temperature), `exposure` (how many of the images the
        network was trained on), `warnings` and `skipped` (about the data), and `to_dict()`.

    Raises:
        UsageError: an argument is not allowed, there is no such data or no image, or a class is
            unknown to the network.
        ContentError: the model file or an image cannot be read.
    """
    from resnets.evaluation.evaluate import (
        evaluate_selection,
        evaluate_sources,
        outputs_of,
    )
    from resnets.evaluation.outputs import choose_images, without_near_duplicates

    refuse_swapped([model], [data])
    engine = with_tta(engine_with_target(open_engine(_network_of(model)), max_error), tta)
    description = engine.description
    if labels is not None:
        preprocessing = description.preprocessing
        sources = list(sources_of(data, preprocessing.channels, preprocessing.white))
        return evaluate_sources(
            engine, sources, labels, batch_size=batch_size, skip_unreadable=skip_unreadable
        )
    _refuse_unlabelled(data, "evaluate")
    file = _file_of(model)
    chosen = without_near_duplicates(
        choose_images(data, description, split, file=file, skip_unreadable=skip_unreadable)
    )
    outputs = outputs_of(engine, chosen.images, batch_size)
    return evaluate_selection(description, outputs, chosen)


@naming_keywords()
def calibrate(
    model: "AnyModel | Run",
    data: "Data",
    labels: Sequence[int] | Sequence[str] | Any = None,
    *,
    max_error: float = 0.02,
    split: str = "auto",
    batch_size: int = 256,
    skip_unreadable: bool = False,
    output: "str | os.PathLike[str] | None" = None,
    overwrite: bool = False,
) -> Model:
    """Fit temperature and thresholds anew on labelled images, without training.

    Args:
        model: a model file, the folder of a run, a network that comes with the package by its name
            (resnet20_cifar10), or what `resnets.load` or `resnets.train` returns; not an exported
            file, whose temperature is inside its graph.
        data: as for `evaluate`; images that the network was not trained on.
        labels: as for `evaluate`.
        max_error: target for the share of wrong predictions among those that are "ok".
        split: as for `evaluate`; what the network was trained on is left out of each, and of all
            images what looks like its training or validation images, where `model` is in the
            folder of its run.
        batch_size: images computed at once.
        skip_unreadable: as for `evaluate`.
        output: a model file to write; None writes none.
        overwrite: replace what is at `output`, which may be the model file itself.

    Returns:
        The same network with a new description: its `calibration` says what was measured. Its
        `familiarity` has a new threshold, too, or a first one where there are at least two images
        of each class.

    Raises:
        UsageError: an argument is not allowed, `output` exists or cannot be written, or the
            network was trained on these images.
        ContentError: the model file or an image cannot be read.
    """
    from resnets.evaluation.evaluate import outputs_and_features
    from resnets.evaluation.recalibration import choose_calibration_images

    refuse_swapped([model], [data])
    if output is not None:  # before any work
        refuse_existing(writable(Path(output)), overwrite)
    loaded = open_network(
        _network_of(model), "calibrate changes its temperature, so that it is to be exported again"
    )
    description, how = loaded.description, {"skip_unreadable": skip_unreadable}
    if labels is not None:
        after = _recalibrated_on_sources(
            loaded, data, labels, max_error, batch_size=batch_size, **how
        )
    else:
        _refuse_unlabelled(data, "calibrate")
        chosen = choose_calibration_images(data, description, split, file=_file_of(model), **how)
        outputs = outputs_and_features(loaded, chosen.images, batch_size)
        numbers, seen = chosen.images.labels, (chosen.candidates, chosen.members)
        after = _recalibrated(description, outputs, numbers, chosen.what, max_error, *seen)
    recalibrated = Model(loaded.network, after)
    if output is not None:
        save(os.fspath(output), recalibrated.network, recalibrated.description)
    return recalibrated


def _recalibrated_on_sources(
    loaded: Model, images: Images, labels: Any, max_error: float, **how: Any
) -> Description:
    """The description, calibrated on images without a data set and their labels."""
    from resnets.data.membership import first_of_copies
    from resnets.evaluation.evaluate import members_of_readable, outputs_of_sources
    from resnets.evaluation.exposure import copies_in_words
    from resnets.evaluation.recalibration import candidates_of

    description, preprocessing = loaded.description, loaded.description.preprocessing
    sources = list(sources_of(images, preprocessing.channels, preprocessing.white))
    how["keep_features"] = not custom_class(description.architecture)
    outputs, numbers, readable = outputs_of_sources(open_engine(loaded), sources, labels, **how)
    members = members_of_readable(sources, readable)
    candidates = candidates_of(members, description)
    once, _ = first_of_copies(members, numbers)
    what, left = plural(int(once.sum()), "image"), int((~once).sum())
    what += f"; {copies_in_words(left)}" if left else ""
    outputs, numbers = outputs.subset(once), numbers[once]
    return _recalibrated(description, outputs, numbers, what, max_error, candidates, members)


def _recalibrated(
    description: Description,
    outputs: "Outputs",
    labels: NDArray[np.int64],
    images: str,
    *how: Any,
) -> Description:
    """The description with temperature, thresholds and familiarity fitted: see `recalibrate`."""
    from resnets.evaluation.recalibration import recalibrate, refit_familiarity

    after = recalibrate(description, outputs.logits, labels, images, *how)
    after, _ = refit_familiarity(after, outputs.features, labels)
    return after


@naming_keywords()
def explain(
    model: "AnyModel | Run",
    images: Images,
    *,
    method: "Method" = "grad-cam",
    target: str | None = None,
    top: int = 1,
    batch_size: int = 16,
    side: int = SIDE,
    output: "str | os.PathLike[str] | None" = None,
) -> "list[Explanation]":
    """Show where in images a network sees what it predicts.

    Args:
        model: a model file, the folder of a run, a network that comes with the package by its name
            (resnet20_cifar10), or what `resnets.load` or `resnets.train` returns; not an exported
            file, which gives no gradients.
        images: a path of a file, of a folder that is searched through, or a pattern such as
            ``photos/*.jpg``; the bytes of an image file; a Pillow image of any mode; an array of
            uint8, (H, W), (H, W, C), (N, H, W) or (N, H, W, C); a tensor with C ahead of H, of
            uint8, or of floating point in 0..1, not normalised; or several of them in an iterable.
            C is 1 (grey), 3 (RGB) or 4 (RGBA); three axes without such a C are N grey images. H and
            W are any: images are resized and normalised as in training.
        method: "grad-cam" over the last stage, or "occlusion", some hundred times slower.
        target: the class to look for; by default the most probable one of each image.
        top: how many of the most probable classes each prediction lists, 1 to K.
        batch_size: images computed at once.
        side: of the pictures, in pixels.
        output: a new or empty folder, into which the overlays are written as PNG files, and contact
            sheets of all images with the classes that each prediction lists, as `resnets explain`
            does; or, for one image, a new file that ends in .png. None writes nothing.

    Returns:
        One `Explanation` an image, in their order: `prediction` as `predict` gives it, `heat`
        (S, S) of 0..1 on what the network sees, `overlay()`, the heat map over the picture,
        (side, side, 3) uint8, and `path`, of its file in `output`.

    Raises:
        UsageError: an argument is not allowed, a path names nothing, or `output` is not empty.
        ContentError: the model file is not one, or is damaged.
        MissingExtra: captum is not installed.
    """
    from resnets.evaluation import explain as explanation
    from resnets.evaluation import overlay_files

    refuse_swapped([model], [images])
    loaded = open_network(_network_of(model), "explain needs its gradients")
    preprocessing = loaded.description.preprocessing
    sources: Iterable[Source] = sources_of(images, preprocessing.channels, preprocessing.white)
    if output is not None:  # all of them now: `output` may be in a folder of images
        sources = list(sources)
        overlay_files.refuse_output(Path(output), sources)
    how: dict[str, Any] = {"method": method, "target": target, "top": top}
    explanations = explanation.explain(loaded, sources, batch_size=batch_size, side=side, **how)
    if output is None:
        return explanation.Explanations(explanations)
    writer = overlay_files.OverlayWriter(Path(output))
    written = explanation.Explanations(map(writer.write, explanations))
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else ""
    writer.write_sheets(f"{method}: {name}" if name else method)
    return written


@naming_keywords()
def compare(
    model_a: "AnyModel | Run",
    model_b: "AnyModel | Run",
    data: "Data",
    *,
    split: str = "auto",
    batch_size: int = 256,
    skip_unreadable: bool = False,
) -> "ComparedNetworks":
    """Tell whether one network is better than another on the same labelled images.

    McNemar's exact test, on the images that only one of them predicts correctly, tells whether the
    difference may be chance.

        result = resnets.compare("run-1", "run-2", "photos")
        print(result.comparison.verdict())

    Args:
        model_a: as for `evaluate`.
        model_b: another one.
        data: as for `evaluate` without `labels`.
        split: as for `evaluate`; "auto" leaves out the images that one of the networks was trained
            or validated on.
        batch_size: images computed at once; the figures do not depend on it.
        skip_unreadable: leave out images that cannot be read, instead of raising ContentError.

    Returns:
        `comparison` (`verdict()`, `accuracies` of A and of B, and `pairs` with `difference`, B's
        accuracy minus A's, -1 to 1, `interval` and `p_value`; `classes`), `differences` (the images
        for which they predict different classes), `statuses`, `what` (which images), `warnings` and
        `skipped`.

    Raises:
        UsageError: there is no such data or no image, or a class is unknown to a network.
        ContentError: a model file or an image cannot be read.
    """
    from resnets.evaluation.compare import compare_networks, images_for_both

    models = (model_a, model_b)
    refuse_swapped(models, [data])
    _refuse_unlabelled(data, "compare")
    engines = [open_engine(_network_of(model)) for model in models]
    files = [_file_of(model) for model in models]
    chosen = images_for_both(engines, data, split, files, skip_unreadable=skip_unreadable)
    names = [
        os.fspath(model) if isinstance(model, str | os.PathLike) else letter
        for model, letter in zip(models, "AB", strict=True)
    ]
    return compare_networks(engines, names, chosen, batch_size)


@naming_keywords()
def fetch(
    name: str,
    *,
    to: "str | os.PathLike[str] | None" = None,
    accept_licence: bool = False,
    overwrite: bool = False,
) -> Path:
    """Download published weights, so that every call takes them by their id, also offline.

    If they are in the cache already, their newest version is fetched, and a damaged copy replaced.

    Args:
        name: an id that `resnets list --pretrained` shows, such as "timm/resnet50.a1_in1k"; another
            network of the hub as "hf-hub:OWNER/NAME"; both with @REVISION behind it, for a commit,
            branch or tag; or the name of a network, for the weights that are recommended for it.
        to: write a model file into this folder, to be copied to a machine that is offline.
        accept_licence: accept a licence that allows only non-commercial use, for this id, from now
            on.
        overwrite: replace the model file in `to`.

    Returns:
        The model file in the cache, or the folder `to`: the other functions take both.

    Raises:
        UsageError: there is no such network, or its licence was not accepted.
        ContentError: the weights can be neither found nor downloaded, or are damaged.
        MissingExtra: huggingface_hub is not installed.
    """
    folder = None if to is None else Path(to)
    return fetch_weights(name, folder, accept_licence=accept_licence, overwrite=overwrite)


@naming_keywords()
def convert(
    source: "str | os.PathLike[str] | Model | Run",
    output: "str | os.PathLike[str]",
    *,
    to: "Project",
    class_names: "str | os.PathLike[str] | Sequence[str] | None" = None,
    size: int | None = None,
    resize: int | None = None,
    crop_fraction: float | None = None,
    crop_mode: "CropMode | None" = None,
    interpolation: "Interpolation | None" = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    strided_conv: Literal[1, 2] | None = None,
    shortcut: "Weightless | None" = None,
    blur: "FilterName | None" = None,
    ignore_left_over: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a network under the names of another project, or make a model file of a checkpoint.

        resnets.convert("theirs.pth", "ours.safetensors", to="resnets", class_names=["cat", "dog"])
        resnets.evaluate("ours.safetensors", "photos")  # is it what it should be?

    Args:
        source: a model file, the folder of a run, a network of the package by name, a folder of
            timm or transformers with config.json, any checkpoint that `inspect` recognises, or what
            `resnets.load` or `resnets.train` returns.
        output: the file or folder to write. With `to` "timm", a name that ends like .pth or
            .safetensors gets the weights alone.
        to: "resnets" writes a model file, "torchvision" a file of weights, "timm" and "huggingface"
            a folder that `timm.create_model` and `transformers.pipeline` read.
        class_names: one for each logit, (K,), or a text file with one a line; None: those that
            the source has, else "class 0" and so on.
        size: side in pixels of the square that the network sees; None: as in the source, or where
            that does not say, 32 for networks for small images, else 224.
        resize: side in pixels to which images are resized before that square is cut out.
        crop_fraction: size / resize, above 0 and at most 1; None: 0.875, and 1 for small images.
        crop_mode: which side becomes `resize`: "center", the shorter; "squash", both; "border", the
            longer, with a border around the image.
        interpolation: how images are resized, "bilinear" or "bicubic".
        mean: of each channel, (C,), from 0 to 1, with which the network was trained; None: as in
            the source, else ImageNet's.
        std: the standard deviation of each channel, likewise.
        strided_conv: 1 if a bottleneck's stride is in its first convolution, as in the paper (He et
            al. 2015, arXiv:1512.03385); 2 in nearly all networks. The names do not show it.
        shortcut: which shortcuts the network has, where no weights show it.
        blur: which filter takes the place of a stride, where the network has any.
        ignore_left_over: leave out weights that are not understood, and list them on standard
            error, although the network may then compute something else.
        overwrite: replace what is at `output`.

    Returns:
        `output` as a path.

    Raises:
        UsageError: an argument is not allowed or would have no effect, `output` exists, or the
            project has no such network.
        ContentError: the source cannot be read, or holds weights that are not understood.
    """
    preprocessing: dict[str, Any] = {"size": size, "resize": resize, "crop_mode": crop_mode}
    preprocessing |= {"crop_fraction": crop_fraction, "interpolation": interpolation}
    for name, values in {"mean": mean, "std": std}.items():
        preprocessing[name] = None if values is None else tuple(map(float, values))
    conversion = converting.Conversion(
        to,
        Path(output),
        preprocessing,
        {"strided_conv": strided_conv, "shortcut": shortcut, "blur": blur},
        class_names,
        ignore_left_over=ignore_left_over,
    )
    loaded = _network_of(source)
    model = loaded if isinstance(loaded, Model) else find_weights(os.fspath(cast("Path", loaded)))
    prepared = converting.prepare(model, conversion, overwrite=overwrite)
    converting.write(prepared, conversion)
    for note in prepared.notes:
        say(note, file=sys.stderr)
    return conversion.target


@naming_keywords()
def export(
    model: "str | os.PathLike[str] | Run",
    output: "str | os.PathLike[str] | None" = None,
    *,
    to: 'Literal["onnx", "openvino", "torch", "triton"]',
    int8: bool = False,
    fp16: bool = False,
    max_loss: float | None = None,
    data: str | None = None,
    images: int = 64,
    tolerance: float = 1e-3,
    overwrite: bool = False,
    force: bool = False,
) -> Path:
    """Write a network as a file for other runtimes, checked against PyTorch before it is kept.

        file = resnets.export(run, "flowers.onnx", to="onnx")
        resnets.predict(file, "new/*.jpg")  # by ONNX Runtime

    The file takes raw images, (B, H, W, C) uint8 of any B, H and W: resizing, cropping, normalising
    and the calibrated softmax are inside. It gives `probabilities` (B, K) and `features` (B, F).

    Args:
        model: a model file, the folder of a run, or what `resnets.train` returns; published weights
            by id; or a network of the package by name.
        output: the file to write, for Triton a folder; None: beside the model file, or here for a
            network of the package.
        to: kind of file: "onnx" (.onnx), "openvino" (.xml and .bin), "torch" (.pt2, of
            `torch.export`) or "triton" (a folder in a model repository).
        int8: compute in integers of 8 bits, calibrated on training images of the data; the accuracy
            on test images is measured before and after.
        fp16: compute in floating point of 16 bits, for GPUs.
        max_loss: with `int8`, the largest allowed drop in accuracy on the test images, in
            percentage points; None: 0.5.
        data: images to check the file on, a path as for `resnets.train`, for `int8` labelled ones;
            None: what the network was trained on where that is still there, else the embedded
            digits.
        images: how many of them.
        tolerance: the largest difference of a probability that is allowed, above 0 and at most 1;
            ten times as much where the file resizes the images.
        overwrite: replace what is at `output`.
        force: with `int8`, write the file even if too few images were compared to exclude a loss of
            more than 5 points.

    Returns:
        What was written, as a path; `resnets.inspect` of it has the results of its checks.

    Raises:
        UsageError: an argument is not allowed, there is no such model, or `output` exists.
        ContentError: the file differs from PyTorch, or lost too much; nothing is written.
        MissingExtra: a package that writes or runs such a file is not installed.
    """
    from resnets.deployment.export.int8 import MAX_LOSS
    from resnets.deployment.export.release import ExportOptions, precision_of, release, target_of

    precision = precision_of(int8, fp16, max_loss, force)
    most = MAX_LOSS if max_loss is None else max_loss
    options = ExportOptions(to, precision, data, images, tolerance, most, overwrite, force)
    file = find_model(_path_of(model, "export"))
    target = target_of(file, None if output is None else Path(output), options)
    for warning in release(file, target, options).warnings:
        say(f"warning: {warning}", file=sys.stderr)
    return target


@naming_keywords()
def inspect(model: "str | os.PathLike[str] | Run") -> "InspectedWeights | InspectedExport":
    """Tell whose checkpoint a file is and which network it holds, from its names and shapes.

    Nothing in the file is run.

        facts = resnets.inspect("theirs.pth")
        print(facts.network, facts.layout, facts.missing)

    Args:
        model: a file of weights of any project, also packed with gzip or zip; an exported file; the
            folder of a run, or what `resnets.train` returns; published weights by id; or a network
            of the package by name.

    Returns:
        Of weights, an `InspectedWeights`: `network` (its name), `layout` (whose names), `depths`,
        `channels`, `classes`, `parameters` (their number), `preprocessing`, `missing`,
        `left_over`, `digest` and more. Of an exported file, an `InspectedExport`: `format`,
        `precision`, `inputs`, `outputs`, `agreement` and more. `to_dict()` of both is what
        `resnets inspect --json` prints.

    Raises:
        UsageError: there is no such file.
        ContentError: it is no file of weights and no exported file, or is damaged.
    """
    return inspection.inspect(find_weights(_path_of(model, "inspect")))


def _refuse_unlabelled(data: Any, function: str) -> None:
    """Refuse images that came without labels. Raises UsageError."""
    if isinstance(data, np.ndarray | Image.Image | bytes) or is_tensor(data):
        raise UsageError(
            f"{function} needs the labels of these images: {function}(model, data, labels), or "
            "data that has them, such as a pair (images, labels)"
        )


@naming_keywords()
def doctor(
    data: "Data",
    *,
    group_by: Any = None,
    class_level: int | None = None,
    train_folder: str | None = None,
    validation_folder: str | None = None,
    test_folder: str | None = None,
) -> "Diagnosis":
    """Look at every image and label of a data set before training on it.

    Args:
        data: labelled images, as for `resnets.train`.
        group_by: what belongs together and must be in one split, as for `resnets.train`.
        class_level: which folders of a folder are the classes: 1 for those in it, or in those of
            its splits, 2 for those one level below.
        train_folder: of the training images, where it is not called train.
        validation_folder: of the validation images, where it is not called val.
        test_folder: of the test images, where it is not called test.

    Returns:
        A `Diagnosis`: `findings`, each with a level (error, warning, note), a text and the images
        that it is about; `classes`, the number of images by split and class; and `misleading`,
        whether training on the data, or its scores, would mislead.

    Raises:
        UsageError: there is no such data, or it cannot be grouped so; or its folders look like
            splits or variants of one data set, not like classes.
    """
    from resnets.data.sources.layout import layout_of_flags
    from resnets.data.sources.objects import grouped
    from resnets.data.sources.opening import read_source
    from resnets.evaluation.doctor.diagnosis import diagnose, unreadable_source
    from resnets.images.stderr import silent_decoders

    data, groups = grouped(data, group_by)
    split_folders = {"train": train_folder, "validation": validation_folder, "test": test_folder}
    layout = layout_of_flags(class_level, split_folders, group_by)
    try:
        content = read_source(data, layout)
    except ContentError as error:
        return unreadable_source(str(error))
    with silent_decoders():
        return diagnose(content, group_by=groups)


def _file_of(model: "AnyModel | Run") -> Path | None:
    """Where a network is from, if it was named by its path."""
    return find_model(os.fspath(model)) if isinstance(model, str | os.PathLike) else None


def _path_of(model: "str | os.PathLike[str] | Run", verb: str) -> str:
    """The path of a model, or of a run's folder. Raises UsageError if the run has none."""
    runs = sys.modules.get("resnets.runs.run")  # imports torch; not loaded, nobody holds a Run
    path = model
    if runs is not None and isinstance(model, runs.Run):
        path = cast("Run", model).path or ""
        if not path:
            raise UsageError(f"this run was trained with output=False: it has no file to {verb}")
    return os.fspath(cast("Path", path))


def _network_of(model: "AnyModel | Run") -> AnyModel:
    """The model that a `Run` holds; any other model as it is."""
    runs = sys.modules.get("resnets.runs.run")  # imports torch; not loaded, nobody holds a Run
    if runs is not None and isinstance(model, runs.Run):
        return cast("Model", model.model)
    return cast("AnyModel", model)
