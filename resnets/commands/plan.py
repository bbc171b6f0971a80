"""``resnets plan``: how long a training takes on many GPUs, and what it costs."""

import re
import sys
from decimal import Decimal
from typing import Annotated

import tyro

from resnets.commands import run
from resnets.commands.tables import print_table
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.format import (
    byte_size,
    duration,
    milliseconds,
    money,
    per_second,
    percent,
    plural,
    without_separators,
)
from resnets.json_text import to_json
from resnets.runs.plan import Machines, Plan, Precision, Training, costs_of
from resnets.runs.plan import plan as plan_training

_TIMES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def main(argv: list[str]) -> int:
    """Run ``resnets plan`` with ``argv``."""
    return run(plan, argv, config=(tyro.conf.FlagCreatePairsOff,))


def plan(
    *,
    network: str,
    images: Annotated[str, tyro.conf.arg(metavar="NUMBER")],
    gpus: Annotated[str, tyro.conf.arg(metavar="NUMBERxKIND")],
    nodes: int = 1,
    epochs: float = 90,
    batch_size: int | None = None,
    size: int | None = None,
    precision: Precision = "bf16",
    rate: float | None = None,
    reading: float | None = None,
    bandwidth: float | None = None,
    price: float | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Tell how long a training takes on many GPUs, what it costs, and what holds it up.

    A model, not a measurement: it takes published speeds of ResNet-50 on A100s, scales them by
    the peak rates of data sheets, and adds the exchange of gradients. docs/how-to/plan.md compares
    it with MLPerf's results. --rate makes it better: what one of your GPUs trains in a second.

        resnets plan --network resnet50 --images 1.28m --nodes 16 --gpus 8xh100

    Args:
        network: its name (`resnets list` prints them all).
        images: number of images in an epoch, such as 50000, 50k, 1.28m or 1e6.
        gpus: how many GPUs each node has, and of which kind: v100, a100, h100 or h200.
        nodes: machines.
        epochs: how often each image is seen.
        batch_size: images of a step, over all GPUs; by default 256 for each GPU, while that is at
            most 4,096 in all, and not less than 32 for each.
        size: height and width of the images, in pixels; by default the network's own, such as 224.
        precision: bf16, fp16, which is as fast, or fp32 (in TF32 where the GPU has it).
        rate: images per second that one GPU trains, measured; by default from data sheets.
        reading: images per second that a node can read and decode; by default as many as needed.
        bandwidth: Gbit/s of each node's network; by default as of a DGX with such GPUs.
        price: price of one GPU for an hour.
        as_json: print JSON.
    """
    machines = Machines.parse(gpus, nodes, bandwidth)
    training = Training(_number(images), epochs, batch_size, precision, rate, reading, price)
    result = plan_training(costs_of(network, size), machines, training)
    if as_json:
        print(to_json(result.to_dict(), indent=2))
    else:
        _show(result, machines, training)


def _number(text: str) -> int:
    """A number of images as people write it.

    >>> _number("1.28m"), _number("50k"), _number("1,281,167"), _number("1e6")
    (1280000, 50000, 1281167, 1000000)

    Raises:
        UsageError: it is none, or not a whole one.
    """
    plain = without_separators(text.lower())
    match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\+?\d{1,3})?)([kmb]?)", plain)
    if match is None or ("," in text and match[2]):  # 1,281m may be meant for 1.281m
        raise UsageError(f"--images {text}: expected a number such as 50000, 50k, 1.28m or 1e6")
    number = Decimal(match[1]) * _TIMES[match[2]]
    if number != number.to_integral_value():
        raise UsageError(
            f"--images {text}: not a whole number of images; give one such as 50000, 50k or 1.28m"
        )
    return int(min(number, Decimal(sys.float_info.max)))  # which is refused later


def _show(result: Plan, machines: Machines, training: Training) -> None:
    """Print a plan as tables."""
    step = result.batch_size / result.images_per_second
    rows = [
        ("GPUs", f"{machines.devices:,} ({plural(machines.nodes, 'node')})"),
        ("images", f"{training.images:,} an epoch"),
        ("steps", f"{result.steps:,} of {result.batch_size:,} images"),
        ("speed", per_second(result.images_per_second)),
        ("time", duration(3600 * result.hours)),
    ]
    if training.rate is None and result.hours_by_bandwidth > 1.01 * result.hours:
        slow = duration(3600 * result.hours_by_bandwidth)
        rows.append(("", f"{slow} if the GPUs wait for their memory"))
    if result.cost is not None:
        rows.append(("cost", money(result.cost)))
    rows += [
        ("communication", f"{percent(result.communication_share)} of the time"),
        ("each node reads", per_second(result.node_reads)),
        ("memory of a GPU", f"{byte_size(result.memory)}; {result.largest_batch:,} images fit"),
    ]
    print_table(("", ""), rows)
    say("")
    parts = ("computing", "waiting", "starting", "exchanging")
    cells = [milliseconds(getattr(result, part)) for part in parts]
    reading = max(0.0, result.input_share) * step
    print_table(
        ("a step", *parts, "reading"), [(milliseconds(step), *cells, milliseconds(reading))]
    )
    if result.exchanges:
        say("")
        ways = [
            (
                each.way,
                milliseconds(each.step),
                per_second(each.images_per_second),
                percent(each.communication_share),
            )
            for each in result.exchanges
        ]
        print_table(("gradients", "a step", "speed", "communication"), ways)
