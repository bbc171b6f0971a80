"""What a network says of labelled images, in their order, over any number of processes.

Shapes: N images, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnets.data.batches import Batch
from resnets.data.sources import LabelledImages, Splits, open_data
from resnets.data.splits import Drawing
from resnets.errors import UsageError
from resnets.evaluation.metrics import merge
from resnets.model_file import Description
from resnets.networks.evaluating import evaluating
from resnets.training.parallel import from_all

Logits = NDArray[np.float32]


def logits_of(network: nn.Module, batches: Iterable[Batch], total: int) -> Logits:
    """The network's logits for every image, in the images' order, in every process. (N, K).

    Args:
        network: on the device of the batches; it computes in evaluation mode.
        batches: this process's part of the images, as `evaluation_batches` gives them.
        total: N, the number of images over all processes.

    Raises:
        ContentError: an image cannot be read; the message names it.
        UsageError: there is no image.
    """
    parts = []
    with evaluating(network), torch.inference_mode():
        for batch in batches:
            logits = network(batch.images).float().cpu().numpy()
            parts.append((batch.indices.numpy(), logits))
    return merge([part for process in from_all(parts) for part in process], total)


@dataclass(frozen=True)
class Chosen:
    """Images on which to judge a network.

    Attributes:
        images: with labels numbered as the network's logits are.
        what: which ones, in words.
        learnt: whether the network has learnt from these very images.
        train: the training images of the same source, labelled likewise; None where there are no
            others than `images`.
    """

    images: LabelledImages
    what: str
    learnt: bool
    train: LabelledImages | None


def choose_images(
    source: str, description: Description, split: str, *, skip_unreadable: bool = False
) -> tuple[LabelledImages, str]:
    """The images on which to judge a network, and what they are in words; see `choose`."""
    chosen = choose(source, description, split, skip_unreadable=skip_unreadable)
    return chosen.images, chosen.what


def choose(
    source: str, description: Description, split: str, *, skip_unreadable: bool = False
) -> Chosen:
    """The images on which to judge a network, with labels numbered as its logits are.

    Args:
        source: as for `open_data`.
        description: of the network; where it was trained on this very source, the splits are drawn
            as they were then, so that no image of the test split was learnt.
        split: "train", "validation", "test" or "all"; "auto" is the test split where the network
            has learnt from this source or the source has one of its own, else all images.
        skip_unreadable: leave out images that cannot be read.

    Raises:
        UsageError: there is no such split, or a class that the network does not know.
    """
    chosen = choose_for_all(source, [description], split, skip_unreadable=skip_unreadable)
    names, train = description.class_names, chosen.train
    return replace(
        chosen,
        images=relabelled(chosen.images, names),
        train=None if train is None else relabelled(train, names),
    )


def choose_for_all(
    source: str, descriptions: Sequence[Description], split: str, *, skip_unreadable: bool = False
) -> Chosen:
    """The images on which to judge several networks, with the labels of their source.

    Args:
        source: as for `open_data`.
        descriptions: of the networks; it counts as learnt what any of them has learnt from.
        split: as for `choose`.
        skip_unreadable: leave out images that cannot be read.

    Raises:
        UsageError: there is no such split, or it is not the same one for all the networks.
    """
    splits = reopened(source, descriptions[0], skip_unreadable)[1]
    learnt = any(splits.are_those_of(each.data) for each in descriptions)
    with_test = splits.split["test"] == {"from": "source"}
    if split == "auto":
        split = "test" if learnt or with_test else "all"
    if split == "all" and with_test:
        raise UsageError(f"{source} has splits of its own; choose one of them with --split")
    if split in ("train", "validation") and len({draws(each) for each in descriptions}) > 1:
        raise UsageError(f"the networks were trained with different {split} splits of {source}")
    if split == "all":
        splits = open_data(
            source, validation=0, test=0, skip_unreadable=skip_unreadable, to_learn=False
        )
    found = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    images = splits.train if split == "all" else found[split]
    if images is None:
        raise UsageError(f"{source} has no {split} split; --split all takes every image")
    whose = f"all of {source}" if split == "all" else f"the {split} split of {source}"
    known = learnt and split in ("train", "all")
    if known:
        who = "the network has" if len(descriptions) == 1 else "a network has"
        whose += f", which {who} learnt from: no measure of how it does on new ones"
    white = descriptions[0].preprocessing.white
    return Chosen(
        images=images.with_white(white),
        what=f"{len(images):,} images, {whose}",
        learnt=known,
        train=None if images is splits.train else splits.train.with_white(white),
    )


def draws(description: Description) -> tuple[float, int]:
    """What the validation split of a network was drawn by: the fraction and the seed."""
    recipe = description.recipe
    return recipe.get("validation", 0.1), recipe.get("seed", 0)


def reopened(
    source: str, description: Description, skip_unreadable: bool = False
) -> tuple[bool, Splits]:
    """The splits of a source, drawn as when the network was trained; and whether on this source."""
    validation, seed = draws(description)
    splits = open_data(
        source,
        validation=validation,
        seed=seed,
        skip_unreadable=skip_unreadable,
        to_learn=False,
        drawing=Drawing.of(description.data),
    )
    return splits.are_those_of(description.data), splits


def relabelled(images: LabelledImages, class_names: tuple[str, ...]) -> LabelledImages:
    """The images with labels that count the network's classes, matched by their names.

    Raises:
        UsageError: a class has a name that the network does not know.
    """
    if images.class_names == class_names:
        return images
    unknown = [name for name in images.class_names if name not in class_names]
    if unknown:
        raise UsageError(
            f"the network does not know the class {unknown[0]!r} "
            f"({len(unknown)} of {len(images.class_names)} classes are unknown to it); "
            f"it knows {', '.join(class_names[:10])}{' ...' if len(class_names) > 10 else ''}"
        )
    numbers = np.array([class_names.index(name) for name in images.class_names])
    return images.other(numbers[images.labels], class_names, images.indices)
