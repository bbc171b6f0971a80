"""``resnets merge``: join the parts of a prediction into one file."""

from pathlib import Path
from typing import Annotated

import tyro

from resnets.commands import run
from resnets.commands.prediction_output import tell_written
from resnets.files.outputs import writable


def main(argv: list[str]) -> int:
    """Run ``resnets merge`` with ``argv``."""
    return run(merge, argv)


def merge(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    /,
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")],
) -> int:
    """Join the parts that `resnets predict --part` wrote into one parquet file.

    All parts must be there, made from one model, one list of images and one set of settings; those
    that are missing are named. The rows are those of one run over all images, in its order. As for
    predict, the exit code is 1 where an image cannot be read.

    Args:
        folder: where the parts are.
        output: the parquet file to write.
    """
    from resnets.evaluation import parts

    writable(output, kind=".parquet")
    writable(output, parts.part_files(folder))
    return 1 if tell_written(parts.merge(folder, output), output) else 0
