r"""Add the network of a finished run to the package, with an .onnx that loads fast.

    python results/ship.py runs/resnet20-2026-01-31-1 --name resnet20_cifar10 --trained-on CIFAR-10

The model file records how it was trained and its accuracy, without the path of the data. This adds
digests of the training images and the familiarity score, or its centre, to a network of the package
that has none:

    python results/ship.py resnet20_cifar10 --name resnet20_cifar10 --trained-on CIFAR-10 \
        --data DATA
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from resnets import model_file, model_path
from resnets.data.membership import TrainedOn
from resnets.data.sources.opening import open_source
from resnets.deployment.engines.selection import digest
from resnets.deployment.export.files import export, images_for
from resnets.errors import ContentError, UsageError
from resnets.evaluation.exposure import own_generation, redraw_splits
from resnets.evaluation.familiarity import center_of, familiarity_of
from resnets.evaluation.fit_familiarity import familiarise, features_by
from resnets.evaluation.proportion import Proportion
from resnets.files.writing import write_atomically
from resnets.shipped import FOLDER

LARGEST = 2_000_000  # bytes of a network in the package


def main(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    /,
    name: str,
    trained_on: str,
    data: str | None = None,
    folder: Path = FOLDER,
) -> None:
    """Add the network of a finished run to the package.

    Args:
        run: folder of the run, or a model file.
        name: of the network in the package, such as resnet20_cifar10.
        trained_on: common name of the data, such as CIFAR-10.
        data: its path now, to check the .onnx and, if the file has none, for the digests of the
            training images; by default the path of the run.
        folder: of the package's networks.
    """
    source, target = model_path.find_model(run), folder / f"{name}.safetensors"
    about = model_file.read_description(source)
    if "test" not in about.metrics:
        raise UsageError(f"{run}: its test accuracy is unknown; train with a test split")
    if source.stat().st_size > LARGEST:
        raise UsageError(f"{source}: {source.stat().st_size:,} bytes; at most {LARGEST:,} ship")
    images, _ = images_for(model_file.load(source), data)
    write_atomically(target, source.read_bytes())
    history = named_history(about, data, trained_on)
    familiarity = known_images(source, about, data)
    model_file.update(
        target,
        data=about.data | {"source": trained_on},
        trained_on=history.to_dict(),
        familiarity=familiarity,
    )
    model, onnx = model_file.load(target), target.with_suffix(".onnx")
    print(export(model, onnx, "onnx", images, trained_on, origin=digest(target)))
    test = about.metrics["test"]["top1"]
    print(f"{target}: {Proportion(test['count'], test['total'])} on the test images")


def named_history(about: model_file.Description, data: str | None, name: str) -> TrainedOn:
    """What the network was trained on, under the name that people know the data by.

    Raises:
        UsageError: its file has no digests, and the data are not those that it was trained on.
    """
    history = TrainedOn.from_dict(about.trained_on)
    if history:
        own, *others = history.generations
        return TrainedOn((replace(own, source=name), *others))
    if data is None:
        raise UsageError("its file has no digests of its training images: where are they? --data")
    same, splits = redraw_splits(open_source(data, to_learn=False), about)
    if not same:
        raise UsageError(f"{data}: not what it was trained on, by the fingerprint in its file")
    return TrainedOn((replace(own_generation(splits), source=name),))


def known_images(source: Path, about: model_file.Description, data: str | None) -> dict[str, Any]:
    """Which images are familiar to the network: as its file says, or learnt from the data anew.

    Where the file's familiarity has no centre, by which a server measures drift, the data give it.
    Nothing where there are no data, or they have no validation images of its own training.
    """
    before = familiarity_of(about.familiarity)
    if data is None or (before is not None and before.center is not None):
        return about.familiarity
    same, splits = redraw_splits(open_source(data, to_learn=False), about)
    if not same or splits.validation is None:
        return about.familiarity
    features = features_by(model_file.load(source))
    if before is not None:
        return replace(before, center=center_of(features(splits.validation))).to_dict()
    seed = int(about.recipe.get("seed", 0))
    known = familiarise(features, splits.train, splits.validation, seed=seed)
    print(known.in_words())
    return known.to_dict()


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (ContentError, UsageError) as error:
        sys.exit(str(error))
