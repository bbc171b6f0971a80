"""``resnets predict --part``: one part of the images is predicted, into a file of its own."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnets.commands.engine_flags import EngineFlags
from resnets.commands.notices import tell_enlarged
from resnets.commands.prediction_output import Form, tell_never_ok, write_parquet
from resnets.commands.progress import SEVERAL
from resnets.errors import UsageError
from resnets.escaping import say
from resnets.files.outputs import writable_folder
from resnets.files.writing import remove_left_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.evaluation.parts import Part, Record
    from resnets.evaluation.source import Source


@dataclass(frozen=True)
class Cluster:
    """Which Ray cluster computes: the flags of these names."""

    address: str | None
    workers: int


@dataclass(frozen=True)
class Parts:
    """Which parts are predicted.

    Attributes:
        output: the folder of their files.
        part: which one, such as 3/64; None where a cluster predicts all that are missing.
        cluster: predicts them; None where this machine does.
    """

    output: Path
    part: str | None
    cluster: Cluster | None


def parts_of(part: str | None, cluster: Cluster | None, output: Path | None) -> Parts | None:
    """The parts that flags ask for; None where they ask for none.

    Raises:
        UsageError: flags are missing, a value is not allowed, or the folder cannot be written.
    """
    asks = part is not None or cluster is not None
    if asks != (output is not None):
        raise UsageError("--part NUMBER/PARTS, or --on ray, and --output FOLDER: give both")
    if output is None:
        return None
    if cluster is not None and cluster.workers < 0:
        raise UsageError(f"--workers {cluster.workers}: it must be at least 0")
    writable_folder(output)
    return Parts(output, part, cluster)


def predict_part(
    parts: Parts, form: Form, flags: EngineFlags, file: Path, sources: "Sequence[Source]"
) -> int:
    """Predict the images of one part, unless its file is there already; the exit code.

    A part is done though images of it cannot be read: a launcher would start it again for nothing.
    """
    from resnets.evaluation.parts import Part, is_done

    assert parts.part is not None
    part = Part.parse(parts.part)
    record = record_for(part, form, flags, file, sources)
    path = part.file(parts.output)
    if is_done(record, parts.output):
        say(f"{path}: done already", file=sys.stderr)
        return 0
    if path.exists():
        say(f"{path}: cut off or damaged, so it is predicted again", file=sys.stderr)
    remove_left_over(path)
    images = part.of_list(sources)
    predictor = flags.open_engine(file, measure=len(images) >= SEVERAL)
    tell_enlarged(images, predictor.description)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(predictor, images, form, flags.batch_size, path, record.metadata())
    if part.number == 1:  # the others have the same network
        tell_never_ok(predictor.description)
    return 0


def record_for(
    part: "Part", form: Form, flags: EngineFlags, file: Path, sources: "Sequence[Source]"
) -> "Record":
    """What a part is made from.

    Raises:
        UsageError: not all images can be read again elsewhere.
    """
    from resnets.deployment.engines.selection import digest
    from resnets.evaluation.parts import record_of
    from resnets.evaluation.source import StoredImage, stored_digest_of

    if not all(isinstance(each.content, Path | StoredImage) for each in sources):
        raise UsageError("--part and --on take files, folders and patterns, no standard input")
    settings = {
        "top": form.top,
        "max_error": flags.max_error,
        "tta": flags.tta,
        "features": form.features,
    }
    names, stored = [each.name for each in sources], stored_digest_of(sources)
    return record_of(part, names, digest(file), settings, stored)
