"""What a description claims of a network, in numbers, before one is made of it. No torch here.

A header may say anything: 10^9 classes, a width of 10^6, images of 8192 pixels. What that would
take is counted here and held against the weights that are there and the memory that one image may
need.
"""

from collections.abc import Iterator, Mapping
from math import prod

from resnets.errors import ContentError, UsageError
from resnets.images import Preprocessing
from resnets.networks.architecture import Architecture

MOST_PER_IMAGE = 1 << 30  # bytes that computing one image may take
AT_ONCE = 3 << 28  # bytes that the images of a batch may take together, if there are several
LARGEST_PRINTED = 1_000_000_000  # weights; the largest published network has 0.94 of it
FLOAT = 4  # bytes
MAPS_AT_ONCE = 4  # tensors of a block that are in memory together, at most


def least_numbers(architecture: Architecture) -> int:
    """How many weights a network has at least: those of its convolutions and its classifier."""
    side = 3 if architecture.stem == "cifar" else 1
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
        inner = inner_channels(architecture, stage)
        for _ in range(depth):
            if architecture.is_bottleneck:
                middle = 9 * inner * inner // architecture.groups
                branch = incoming * inner + middle + inner * outgoing
            else:
                branch = 9 * (incoming * width + width * width)
            everywhere = architecture.shortcut == "projection_everywhere"
            projects = architecture.shortcut not in ("padding", "none")
            changes = everywhere or incoming != outgoing
            area = 9 if architecture.shortcut == "projection3x3" else 1
            shortcut = area * incoming * outgoing if projects and changes else 0
            squeezed = outgoing // architecture.reduction if architecture.attention == "se" else 0
            yield branch + shortcut + 2 * squeezed * outgoing
            incoming = outgoing


def inner_channels(architecture: Architecture, stage: int) -> int:
    """Channels inside the blocks of a stage, counted from 0."""
    width = architecture.width << stage
    if not architecture.is_bottleneck:
        return width
    return width * architecture.base_width // 64 * architecture.groups


def refuse_claims(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an architecture that needs more weights than there are.

    Args:
        architecture: as described.
        shapes: of the weights that are there.

    Raises:
        ContentError: it does.
    """
    blocks, there = sum(architecture.depths), sum(map(prod, shapes.values()))
    least = least_numbers(architecture)
    if blocks > len(shapes) or least > there:
        raise ContentError(
            f"the weights do not fit the architecture: it has {blocks:,} blocks and at least "
            f"{least:,} weights, the file {there:,} in {len(shapes):,} tensors"
        )


def image_bytes(architecture: Architecture, preprocessing: Preprocessing) -> int:
    """The most memory that one image takes on its way through a network, in bytes, roughly."""
    side, framed = preprocessing.size, preprocessing.resize**2 * preprocessing.channels
    seen = side**2 * preprocessing.channels * (1 + FLOAT)
    strided = 1 if architecture.stem == "cifar" else 2
    largest = architecture.stem_channels * _area(side, strided) * 2
    stride = architecture.stem_stride
    for stage, outgoing in enumerate(architecture.channels):
        widest = max(outgoing, inner_channels(architecture, stage))
        largest = max(largest, MAPS_AT_ONCE * widest * _area(side, stride))
        stride = min(stride * 2, architecture.stride)
    return 2 * framed + seen + largest * FLOAT


def _area(side: int, stride: int) -> int:
    return (-(-side // stride)) ** 2


def refuse_large_images(architecture: Architecture, preprocessing: Preprocessing) -> None:
    """Refuse images that a network could only compute in absurdly much memory.

    Raises:
        UsageError: one image takes more than `MOST_PER_IMAGE`.
    """
    needed = image_bytes(architecture, preprocessing)
    if needed > MOST_PER_IMAGE:
        raise UsageError(
            f"images of {preprocessing.size} x {preprocessing.size} pixels (cut from "
            f"{preprocessing.resize}) take about {needed / 2**30:.1f} GiB each in this network; "
            f"{MOST_PER_IMAGE >> 30} GiB at most: take smaller ones"
        )


def images_at_once(
    architecture: Architecture, preprocessing: Preprocessing, wanted: int, memory: int = AT_ONCE
) -> int:
    """How many images to compute at once: as many as wanted, unless they are too large for that."""
    return max(1, min(wanted, memory // max(1, image_bytes(architecture, preprocessing))))
