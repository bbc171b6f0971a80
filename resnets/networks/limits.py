"""What is refused before anything is built or computed. Imports no torch.

A header may say anything: 10^9 classes, a width of 10^6, images of 8192 pixels. What that would
take is counted here, and compared with the weights in the file and with the memory that one
image may need. Weights that are not finite numbers are refused, too.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from resnets.errors import ContentError, UsageError
from resnets.format import byte_size
from resnets.images import Preprocessing
from resnets.networks.architecture import Architecture

if TYPE_CHECKING:
    from torch import Tensor

_MOST_PER_IMAGE = 1 << 30  # bytes that computing one image may take
AT_ONCE = 3 << 28  # bytes that a batch of two or more images may take
LARGEST_PRINTED = 1_000_000_000  # weights; the largest published network has 0.94 of it
_FLOAT = 4  # bytes
_MAPS_AT_ONCE = 4  # tensors of a block that are in memory together, at most
_LISTED = 3  # weights that an error names
_VARIANCES = ("running_var", "moving_variance")  # endings of their names


def least_numbers(architecture: Architecture) -> int:
    """How many weights a network has at least: those of its convolutions and its classifier."""
    side = 3 if architecture.is_for_small_images else 1
    stem = architecture.in_channels * side**2 * architecture.stem_channels // 8
    head = architecture.channels[-1] * architecture.num_classes + architecture.num_classes
    return stem + head + sum(_blocks(architecture))


def _blocks(architecture: Architecture) -> Iterator[int]:
    """The weights of each block's convolutions, its shortcut's and attention's included."""
    incoming = architecture.stem_channels
    for stage, (depth, outgoing) in enumerate(
        zip(architecture.depths, architecture.channels, strict=True)
    ):
        width = architecture.width * 2**stage
        inner = _inner_channels(architecture, stage)
        for _ in range(depth):
            if architecture.is_bottleneck:
                middle = 9 * inner * inner // architecture.groups
                branch = incoming * inner + middle + inner * outgoing
            else:
                branch = 9 * (incoming * width + width * width)
            everywhere = architecture.shortcut == "projection_everywhere"
            projects = architecture.shortcut not in ("padding", "padding_after", "none")
            changes = everywhere or incoming != outgoing
            area = 9 if architecture.shortcut == "projection3x3" else 1
            shortcut = area * incoming * outgoing if projects and changes else 0
            squeezed = outgoing // architecture.reduction if architecture.attention == "se" else 0
            yield branch + shortcut + 2 * squeezed * outgoing
            incoming = outgoing


def _inner_channels(architecture: Architecture, stage: int) -> int:
    """Channels inside the blocks of a stage, counted from 0."""
    width = architecture.width << stage
    if not architecture.is_bottleneck:
        return width
    return width * architecture.base_width // 64 * architecture.groups


def refuse_claims(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an architecture that needs more weights than a file has.

    Args:
        architecture: that the file describes.
        shapes: of the weights in the file, by name.

    Raises:
        ContentError: if it does.
    """
    blocks, stored = sum(architecture.depths), sum(map(prod, shapes.values()))
    least = least_numbers(architecture)
    if blocks > len(shapes) or least > stored:
        raise ContentError(
            f"the weights do not fit the architecture: it has {blocks:,} blocks and at least "
            f"{least:,} weights, the file {stored:,} in {len(shapes):,} tensors"
        )


def _image_bytes(architecture: Architecture, preprocessing: Preprocessing) -> int:
    """The most memory that one image takes on its way through a network, in bytes, roughly."""
    side, framed = preprocessing.size, preprocessing.resize**2 * preprocessing.channels
    pixels = side**2 * preprocessing.channels * (1 + _FLOAT)
    strided = 1 if architecture.is_for_small_images else 2
    largest = architecture.stem_channels * _area(side, strided) * 2
    for stage, stride in enumerate(architecture.strides):
        widest = max(architecture.channels[stage], _inner_channels(architecture, stage))
        largest = max(largest, _MAPS_AT_ONCE * widest * _area(side, stride))
    return 2 * framed + pixels + largest * _FLOAT


def _area(side: int, stride: int) -> int:
    return (-(-side // stride)) ** 2


def refuse_large_images(architecture: Architecture, preprocessing: Preprocessing) -> None:
    """Refuse images that a network could only compute with an absurd amount of memory.

    Raises:
        UsageError: one image takes more than `_MOST_PER_IMAGE`.
    """
    needed = _image_bytes(architecture, preprocessing)
    if needed > _MOST_PER_IMAGE:
        raise UsageError(
            f"images of {preprocessing.size} x {preprocessing.size} pixels (cut from "
            f"{preprocessing.resize}) take about {byte_size(needed)} each in this network; "
            f"{byte_size(_MOST_PER_IMAGE)} at most: take smaller ones"
        )


def images_at_once(
    architecture: Architecture, preprocessing: Preprocessing, count: int, memory: int = AT_ONCE
) -> int:
    """How many images to compute at once: ``count``, or fewer if they are large."""
    return max(1, min(count, memory // max(1, _image_bytes(architecture, preprocessing))))


def unsound(weights: "Mapping[str, Tensor]") -> dict[str, str]:
    """What is wrong with each weight that cannot be computed with, by its name.

    >>> import torch
    >>> unsound({"fc.bias": torch.tensor([1.0, float("nan")]), "fc.weight": torch.ones(2)})
    {'fc.bias': '1 of 2 values are not finite'}
    """
    reasons = {}
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        broken = 0
        if not value.float().sum().isfinite():  # far faster than to look at each value
            broken = int((~value.isfinite()).sum())
        negative = int((value < 0).sum()) if name.endswith(_VARIANCES) else 0
        if broken:
            reasons[name] = f"{broken:,} of {value.numel():,} values are not finite"
        elif negative:
            reasons[name] = f"{negative:,} of {value.numel():,} variances are negative"
    return reasons


def refuse_unsound(weights: "Mapping[str, Tensor]", source: object) -> None:
    """Refuse weights that cannot be computed with.

    Args:
        weights: by name.
        source: where they are from, for the message.

    Raises:
        ContentError: naming the first of them.
    """
    reasons = unsound(weights)
    if reasons:
        listed = ", ".join(f"{name} ({why})" for name, why in list(reasons.items())[:_LISTED])
        more = f" and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
        raise ContentError(
            f"{source}: its weights cannot be computed with: {listed}{more} (the file is "
            "damaged, or its training diverged; `resnets inspect` lists them)"
        )
