"""Where predictions go: a table, JSON, CSV, a parquet file, or folders of sorted images."""

import io
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnets.commands import refuse_closed_output
from resnets.commands.image_words import image_sources
from resnets.commands.notices import tell_assumed
from resnets.commands.progress import with_progress
from resnets.commands.tables import print_table
from resnets.errors import UsageError
from resnets.escaping import say, without_name, write_csv
from resnets.files.outputs import writable
from resnets.format import fraction, percent, plural
from resnets.images.stderr import silent_decoders
from resnets.interrupting import uninterrupted
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.evaluation.engine import Engine
    from resnets.evaluation.predict import Prediction
    from resnets.evaluation.source import Source
    from resnets.model_file import Description


@dataclass(frozen=True)
class Form:
    """Which predictions are wanted and where they go: the flags of these names."""

    top: int
    sort: Path | None
    overwrite: bool
    as_json: bool
    as_csv: bool
    parquet: Path | None
    features: bool

    def check(self, *, in_parts: bool) -> None:
        """Refuse flags that do not go together, and a file that cannot be written.

        Args:
            in_parts: whether the predictions go into files of parts instead.
        """
        if in_parts and self.sort is not None:
            raise UsageError(
                "--sort does not go with --part or --on: sort by what `resnets merge` wrote"
            )
        if self.features and not in_parts and self.parquet is None:
            raise UsageError("--features: give --parquet FILE too, which has a column for them")
        if self.features and self.sort is not None:
            raise UsageError("--features does not go with --sort; predict without it, too")
        if self.parquet is not None:
            writable(self.parquet, kind=".parquet")
        elif not in_parts and self.sort is None:
            refuse_closed_output("open it, or give --parquet FILE")

    @property
    def as_computed(self) -> bool:
        """Whether each row is written as soon as its image is predicted: into a file or a pipe.

        At a terminal rows would go through the progress bar.
        """
        as_rows = self.as_json or self.as_csv
        return as_rows and self.sort is None and not sys.stdout.isatty()

    def sources(self, images: Sequence[str], verbose: bool, cache: str | None) -> "list[Source]":
        """The images for words of the command line, which can be sorted if they shall be.

        Args:
            images: the words.
            verbose: as for `image_sources`.
            cache: as for `image_sources`.
        """
        from resnets.evaluation.sorting import refuse_sorted, sortable

        if self.sort is not None:
            refuse_sorted(self.sort, self.overwrite)
        elif self.overwrite:
            raise UsageError("--overwrite replaces what --sort FOLDER copied: give both")
        sources = image_sources(images, verbose=verbose, cache=cache)
        return sources if self.sort is None else sortable(sources, self.sort)


class _Rows:
    """CSV or a JSON array on standard output, row by row."""

    def __init__(self, form: Form) -> None:
        self.form, self.stream = form, sys.stdout  # in whose place a progress bar puts its own
        if isinstance(getattr(self.stream, "buffer", None), io.RawIOBase):
            # by PYTHONUNBUFFERED, where an interrupted write loses the rest of a row
            self.stream = io.TextIOWrapper(
                io.BufferedWriter(io.FileIO(self.stream.fileno(), "w", closefd=False)),
                encoding=self.stream.encoding,
                errors=self.stream.errors,
            )
        self.written = 0

    def write(self, prediction: "Prediction") -> None:
        """Write a row, which the system has when this returns."""
        from resnets.evaluation.prediction_table import columns

        row, first = prediction.row(), self.written == 0
        with uninterrupted():  # a write that is cut short does not tell how much of it was read
            if self.form.as_csv:
                write_csv(self.stream, [row], list(columns(self.form.top, False)), header=first)
            else:
                whole = {column: row.get(column) for column in columns(self.form.top, False)}
                text = textwrap.indent(to_json(whole, indent=2), "  ")
                self.stream.write(f"{'[' if first else ','}\n{text}")
            self.stream.flush()
            self.written += 1

    def end(self, *, complete: bool) -> None:
        """Write what follows the last row.

        Args:
            complete: whether these are all; nothing is written of what fails before its first row.
        """
        with uninterrupted():
            if self.form.as_json and self.written:
                self.stream.write("\n]\n")
            elif complete and self.form.as_json:
                self.stream.write("[]\n")
            elif complete and not self.written:
                _write_csv([], self.form.top, False)
            self.stream.flush()


def collect(pending: "Iterable[Prediction]", total: int, form: Form) -> "list[Prediction]":
    """Compute predictions, with a progress bar; see `Form.as_computed`.

    Where it is interrupted, what was predicted by then is written before KeyboardInterrupt is
    raised again.

    Args:
        pending: computes them.
        total: how many there will be.
        form: where they go.
    """
    predictions: list[Prediction] = []
    rows = _Rows(form) if form.as_computed else None
    complete = False
    try:
        with silent_decoders() as stream:
            for prediction in with_progress(iter(pending), total, stream):
                predictions.append(prediction)
                if rows is not None:
                    rows.write(prediction)
        complete = True
    except KeyboardInterrupt:
        if rows is not None:
            for prediction in predictions[rows.written :]:
                rows.write(prediction)
        elif predictions and form.sort is None and form.parquet is None:
            _write(predictions, form)
        say(f"{fraction(len(predictions), total)} images were predicted", file=sys.stderr)
        raise
    finally:
        if rows is not None:
            rows.end(complete=complete)
    return predictions


def write_output(
    predictions: "Sequence[Prediction]",
    form: Form,
    caption: str,
    computed: object,
    *,
    features: int = 0,
) -> int:
    """Write predictions that `collect` has not written, and at a terminal what computed them.

    Args:
        predictions: all of them.
        form: where they go.
        caption: of the table.
        computed: what computed them.
        features: how many the column of features has; 0: there is no such column.

    Returns:
        The exit code.
    """
    if form.parquet is not None:
        from resnets.evaluation.prediction_table import schema_of, write_predictions

        schema = schema_of(form.top, sorts=form.sort is not None, features=features)
        rows, _ = write_predictions(predictions, form.parquet, schema)
        tell_written((rows, _unreadable(predictions)), form.parquet)
    elif not form.as_computed:
        _write(predictions, form, caption)
    if not (form.parquet or form.as_json or form.as_csv):
        say(str(computed), file=sys.stderr)
    return 1 if any(prediction.error for prediction in predictions) else 0


def _write(predictions: "Sequence[Prediction]", form: Form, caption: str = "") -> None:
    """Write predictions to standard output."""
    if form.as_json:
        print(to_json(_rows(predictions, form.top, form.sort is not None), indent=2))
    elif form.as_csv:
        _write_csv(predictions, form.top, form.sort is not None)
    else:
        _show(predictions, caption)


def write_parquet(
    predictor: "Engine",
    sources: "Sequence[Source]",
    form: Form,
    batch_size: int,
    path: Path,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Predict images and write each into a parquet file as it comes; how many cannot be read.

    Args:
        predictor: the engine.
        sources: the images.
        form: what the rows have.
        batch_size: images computed at once.
        path: of the file.
        metadata: texts of the file's footer.
    """
    from resnets.evaluation.predict import predict
    from resnets.evaluation.prediction_table import (
        number_of_features,
        schema_of,
        write_predictions,
    )

    features = number_of_features(predictor) if form.features else 0
    schema = schema_of(form.top, features=features)
    pending = predict(
        predictor, sources, top=form.top, batch_size=batch_size, features=form.features
    )
    with silent_decoders() as stream:
        shown = with_progress(pending, len(sources), stream)
        written = write_predictions(shown, path, schema, metadata)
    return tell_written(written, path)


def tell_never_ok(description: "Description") -> None:
    """Say on standard error why no prediction has the status ok, where none can have it.

    And what of the preprocessing was assumed.
    """
    from resnets.evaluation.predict import why_never_ok

    if reason := why_never_ok(description):
        say(reason, file=sys.stderr)
    tell_assumed(description)


def sort_copies(
    predictions: "Sequence[Prediction]",
    sources: "Sequence[Source]",
    folder: Path,
    class_names: Sequence[str],
) -> "list[Prediction]":
    """Copy images into a folder by their predictions, and tell how many went where."""
    from resnets.evaluation.sorting import in_words, sort_images

    copied = sort_images(predictions, sources, folder, class_names)
    for line in in_words(copied, class_names):
        say(f"{folder}: {line}", file=sys.stderr)
    return copied


def tell_written(written: tuple[int, int], path: Path) -> int:
    """Tell what was written into a parquet file; the number of images that cannot be read.

    Args:
        written: rows, and images among them that cannot be read.
        path: of the file.
    """
    rows, unreadable = written  # standard output may be the file
    say(f"{path}: {plural(rows, 'row')}", file=sys.stderr)
    if unreadable:
        say(f"{unreadable} of {plural(rows, 'image')} cannot be read", file=sys.stderr)
    return unreadable


def _rows(predictions: "Sequence[Prediction]", top: int, sorts: bool) -> list[dict[str, Any]]:
    """One flat row an image, all with the same columns, those of unreadable images too."""
    from resnets.evaluation.prediction_table import columns

    order = columns(top, sorts)
    rows = [prediction.row() for prediction in predictions]
    return [{column: row.get(column) for column in order} for row in rows]


def _write_csv(predictions: "Sequence[Prediction]", top: int, sorts: bool) -> None:
    """One line an image, on standard output."""
    from resnets.evaluation.prediction_table import columns

    rows = [prediction.row() for prediction in predictions]
    write_csv(sys.stdout, rows, list(columns(top, sorts)))


def _show(predictions: "Sequence[Prediction]", caption: str = "") -> None:
    """Print a table, with a caption above it."""
    listed = []
    for prediction in predictions:
        more = ", ".join(f"{name} {percent(share)}" for name, share in prediction.top[1:])
        share = percent(prediction.probability)
        listed.append(
            (
                prediction.image,
                prediction.prediction or "–",
                share,
                prediction.status,
                without_name(prediction.error or more, prediction.image),
            )
        )
    wide = 5 if any(row[4] for row in listed) else 4  # columns
    columns = ("image", "prediction", "probability", "status", "")
    if caption:
        say(caption, file=sys.stderr)
    print_table(columns[:wide], [row[:wide] for row in listed])
    if failed := _unreadable(predictions):
        say(f"{failed} of {plural(len(predictions), 'image')} cannot be read", file=sys.stderr)


def _unreadable(predictions: "Sequence[Prediction]") -> int:
    """How many images cannot be read."""
    return sum(prediction.status == "unreadable" for prediction in predictions)
