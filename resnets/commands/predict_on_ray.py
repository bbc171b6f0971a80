"""``resnets predict --on ray``: a Ray cluster predicts the parts that are missing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from resnets.commands.engine_flags import EngineFlags
from resnets.commands.notices import tell_enlarged
from resnets.commands.predict_parts import Parts, record_for
from resnets.commands.prediction_output import Form, tell_never_ok, tell_written
from resnets.commands.progress import with_progress
from resnets.escaping import say, shell_line
from resnets.images.stderr import silent_decoders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resnets.deployment.engines import EngineName
    from resnets.deployment.on_ray import WorkerTask
    from resnets.evaluation.parts import Record
    from resnets.evaluation.source import Source
    from resnets.model_file import Description


def predict_on_ray(
    parts: Parts, form: Form, flags: EngineFlags, file: Path, sources: "Sequence[Source]"
) -> int:
    """Have a Ray cluster predict the parts that are missing; the exit code."""
    from resnets.deployment.on_ray import predicted_on_ray
    from resnets.evaluation.parts import Part, missing_parts, usual_number, write_parts

    cluster, output = parts.cluster, parts.output
    assert cluster is not None
    first = Part(1, usual_number(len(sources)))
    record = record_for(first, form, flags, file, sources)
    missing = missing_parts(record, output)
    if not missing:
        say(f"{output}: done already", file=sys.stderr)
        return 0
    task, description = _worker_task(form, flags, file, record)
    tell_enlarged(sources, description)
    output.mkdir(parents=True, exist_ok=True)
    total = sum(len(part.of_list(sources)) for part in missing)
    with (
        silent_decoders() as stream,  # Ray's libraries print, too
        predicted_on_ray(
            task, sources, missing, address=cluster.address, workers=cluster.workers
        ) as tables,
        _telling_of_the_end(stream),
    ):
        written = write_parts(tables, record, output, task.schema)
        errors = (error for table in written for error in table["error"])
        unreadable = sum(error.is_valid for error in with_progress(errors, total, stream))
    tell_never_ok(description)
    tell_written((total, unreadable), output)
    merge = shell_line("resnets", "merge", output, "--output", "FILE")
    say(f"`{merge}` joins the parts", file=sys.stderr)
    return 0


@contextmanager
def _telling_of_the_end(stream: TextIO) -> Iterator[None]:
    """Say at once that Ctrl-C was heard, since Ray takes seconds to end what it has begun."""
    try:
        yield
    except KeyboardInterrupt:
        say(
            "Interrupted; ending the work of Ray, which takes some seconds", file=stream, flush=True
        )
        raise


def _worker_task(
    form: Form, flags: EngineFlags, file: Path, record: "Record"
) -> "tuple[WorkerTask, Description]":
    """What workers of a cluster compute with, and the network's description.

    What auto chooses is chosen here, once. Where an engine is for another device, this machine need
    not have it, and looks at the network by one that it has.
    """
    from resnets.deployment.engines.accelerators import ACCELERATORS
    from resnets.deployment.on_ray import WorkerTask
    from resnets.evaluation.engine import computation_of
    from resnets.evaluation.prediction_table import number_of_features, schema_of

    elsewhere = flags.engine in ACCELERATORS
    here = replace(flags, engine="auto") if elsewhere else flags
    predictor = here.open_engine(file, measure=not elsewhere)
    engine = flags.engine if elsewhere else computation_of(predictor, file).engine
    features = number_of_features(predictor) if form.features else 0
    task = WorkerTask(
        folder=Path.cwd(),
        file=file,
        file_digest=record.model_digest,
        engine=cast("EngineName", engine),
        threads=flags.threads or 1,
        max_error=flags.max_error,
        tta=flags.tta,
        top=form.top,
        batch_size=flags.batch_size,
        features=form.features,
        schema=schema_of(form.top, features=features),
    )
    return task, predictor.description
