"""``resnets predict``: the class and its probability for each image."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, TypeVar, cast

import tyro

from resnets import escaping, shipped
from resnets.commands import refuse_closed_output, run
from resnets.commands.flags import Cache
from resnets.commands.notices import passed_over_lines
from resnets.commands.tables import print_table
from resnets.deployment.engines import EngineName
from resnets.errors import ContentError, UsageError
from resnets.escaping import say
from resnets.files import read_limited, writable, writable_folder
from resnets.format import percent, plural
from resnets.images.opening import MAX_BYTES
from resnets.images.stderr import silent_decoders
from resnets.json_text import to_json

if TYPE_CHECKING:
    from resnets.deployment.on_ray import WorkerTask
    from resnets.evaluation.engine import Engine
    from resnets.evaluation.parts import Part, Record
    from resnets.evaluation.predict import Prediction, Source
    from resnets.model_file import Description

_T = TypeVar("_T")

_KEY = "RESNETS_API_KEY"  # name of the variable that holds a server's key
_SEVERAL = 20  # images from which on progress is shown at a terminal
_LAST = ("sorted_to", "error")  # columns


def main(argv: list[str]) -> int:
    """Run ``resnets predict`` with ``argv``."""
    return run(predict, argv, config=(tyro.conf.FlagCreatePairsOff,))


def predict(
    words: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[MODEL] IMAGE ...")
    ],
    /,
    top: int = 1,
    max_error: float | None = None,
    batch_size: int = 32,
    engine: Annotated[EngineName, tyro.conf.arg(metavar="ENGINE")] = "auto",
    threads: int = 0,
    tta: bool = False,
    sort: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    overwrite: bool = False,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    as_csv: Annotated[bool, tyro.conf.arg(name="csv")] = False,
    parquet: Path | None = None,
    features: bool = False,
    part: Annotated[str | None, tyro.conf.arg(metavar="NUMBER/PARTS")] = None,
    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    on: Annotated[Literal["ray"] | None, tyro.conf.arg(metavar="ray")] = None,
    address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None,
    workers: int = 0,
    verbose: bool = False,
    cache: Cache = None,
    server: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None,
) -> int:
    """Classify images, with calibrated probabilities.

    Each image gets a prediction, which is one of the network's classes, and a status: ok; unsure,
    where the probability is below the threshold in the network's file; not calibrated, where the
    file has no threshold (`resnets calibrate` fits one); unfamiliar, where the image is unlike
    those that the network was trained for; or unreadable, with the reason, in which case the
    others are predicted all the same and the exit code is 1.

    No network is protected against images of other things: it predicts one of its classes for them
    too, and may be confident. The status unfamiliar catches only a part of them; `resnets evaluate
    MODEL DATA --other FOLDER` measures how large a part.

    Args:
        words: MODEL is a model file (.safetensors), an exported file (.onnx, .xml), the folder of a
            run, or published weights by id, such as timm/resnet50.a1_in1k; if it is omitted, a
            small network of the package is used. Then files, folders, patterns such as
            'photos/*.jpg', folders or addresses of shards, or - for one image's bytes on standard
            input.
        top: how many classes to list, best first.
        max_error: target for the share of wrong predictions among those that are ok, such as 0.01;
            by default that of the model file (`resnets calibrate` fits stricter ones).
        batch_size: images computed at once; probabilities do not depend on it, apart from rounding.
        engine: onnxruntime, openvino, torch, on a GPU onnxruntime-cuda and others; auto takes the
            fastest. A model file runs in torch, or as the .onnx in float32 that
            `resnets export` wrote beside it. Standard error says what ran.
        threads: number of threads that compute; 0: the engine's own choice.
        tta: test-time augmentation: average each image and its mirror; promises no error rate.
        sort: copy each image into a folder of its class in this one, or into review if it is unsure
            or unfamiliar. The originals stay.
        overwrite: replace what an earlier --sort copied.
        as_json: print a JSON array.
        as_csv: print CSV, with ' before what looks like a formula.
        parquet: write a parquet file instead.
        features: write the classifier's inputs too, as a column.
        part: predict one part, such as 3/64, into --output, unless it is there already; `resnets
            merge` joins the parts.
        output: the folder for the parts.
        on: have a Ray cluster predict what is missing in --output.
        address: where it is, or auto; by default RAY_ADDRESS, or one is started here.
        workers: how many processes Ray may run, of --threads cores or 1 each; 0: as fit.
        verbose: name every file that is skipped as no image.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        server: have a running `resnets serve` predict, such as http://127.0.0.1:8000; MODEL is then
            the name of one of its models. RESNETS_API_KEY may hold its key.
    """
    form = _Form(top, sort, overwrite, as_json, as_csv, parquet, features, part, output)
    form = replace(form, cluster=_Cluster(address, workers) if on else None, cache=cache)
    form.check()
    if on is None and (address is not None or workers):
        raise UsageError("--address and --workers: give --on ray, too, or leave them out")
    computation = _Computation(max_error, batch_size, engine, threads, tta)
    if server is not None and (part or on or features):
        flag = "--features" if features else "--part" if part else "--on ray"
        raise UsageError(f"{flag}: leave it out with --server")
    if server is None:
        return _predict_here(words, form, verbose, computation)
    _refuse_local(computation)
    return _predict_on(server, words, form, verbose)


@dataclass(frozen=True)
class _Cluster:
    """Which Ray cluster computes: the flags of these names."""

    address: str | None
    workers: int


@dataclass(frozen=True)
class _Form:
    """Which predictions are wanted and where they go: the flags of these names."""

    top: int
    sort: Path | None
    overwrite: bool
    as_json: bool
    as_csv: bool
    parquet: Path | None
    features: bool = False
    part: str | None = None
    output: Path | None = None
    cluster: _Cluster | None = None
    cache: str | None = None

    def check(self) -> None:
        """Refuse flags that do not go together, and a file or folder that cannot be written."""
        forms = (self.as_json, self.as_csv, self.parquet, self.part, self.cluster)
        if sum(map(bool, forms)) > 1:
            raise UsageError("--json, --csv, --parquet, --part and --on ray: choose one")
        if self.in_parts != (self.output is not None):
            raise UsageError("--part NUMBER/PARTS, or --on ray, and --output FOLDER: give both")
        if self.in_parts and self.sort is not None:
            raise UsageError(
                "--sort does not go with --part or --on: sort by what `resnets merge` wrote"
            )
        if self.cluster is not None and self.cluster.workers < 0:
            raise UsageError(f"--workers {self.cluster.workers}: it must be at least 0")
        if self.features and not self.in_parts and self.parquet is None:
            raise UsageError("--features: give --parquet FILE too, which has a column for them")
        if self.features and self.sort is not None:
            raise UsageError("--features does not go with --sort; predict without it, too")
        if self.parquet is not None:
            writable(self.parquet, kind=".parquet")
        elif not self.in_parts and self.sort is None:
            refuse_closed_output("open it, or give --parquet FILE")
        if self.output is not None:
            writable_folder(self.output)

    @property
    def in_parts(self) -> bool:
        """Whether files of parts are written."""
        return self.part is not None or self.cluster is not None

    def sources(self, images: Sequence[str], verbose: bool) -> "list[Source]":
        """The images for words of the command line, which can be sorted if they shall be."""
        from resnets.evaluation.sorting import refuse_sorted, sortable

        if self.sort is not None:
            refuse_sorted(self.sort, self.overwrite)
        elif self.overwrite:
            raise UsageError("--overwrite replaces what --sort FOLDER copied: give both")
        sources = image_sources(images, verbose=verbose, cache=self.cache)
        return sources if self.sort is None else sortable(sources, self.sort)

    def write(self, predictions: "Sequence[Prediction]", caption: str, computed: object) -> int:
        """Write predictions, and at a terminal what computed them; the exit code."""
        if self.parquet is not None:
            from resnets.evaluation.prediction_table import schema_of, write_predictions

            schema = schema_of(self.top, sorts=True)
            _told(write_predictions(predictions, self.parquet, schema), self.parquet)
        elif self.as_json:
            sorts = self.sort is not None
            rows = _rows(predictions) if sorts else [prediction.row() for prediction in predictions]
            print(to_json(rows, indent=2))
        elif self.as_csv:
            _write_csv(predictions, self.top, self.sort is not None)
        else:
            _show(predictions, caption)
            say(str(computed), file=sys.stderr)
        return 1 if any(prediction.error for prediction in predictions) else 0


@dataclass(frozen=True)
class _Computation:
    """How predictions are computed on this machine: the flags of these names."""

    max_error: float | None = None
    batch_size: int = 32
    engine: EngineName = "auto"
    threads: int = 0
    tta: bool = False


def _predict_here(
    words: Sequence[str], form: _Form, verbose: bool, computation: _Computation
) -> int:
    """Predict images on this machine; the exit code."""
    from resnets.evaluation.engine import computation_of
    from resnets.evaluation.predict import predict as predict_images
    from resnets.evaluation.predict import why_never_ok
    from resnets.model_path import files_of

    model, images = _split_words(words)
    sources: Sequence[Source] = form.sources(images, verbose)
    file = model or shipped.shipped()
    if form.parquet is not None:
        writable(form.parquet, [*files_of(file), *_paths_of(sources)])
    if form.cluster is not None and form.output is not None:
        return _predict_on_ray(form.cluster, form, computation, file, sources)
    job = _part_of(form, computation, file, sources)
    if job is not None and job.is_done:
        say(f"{job.path}: done already", file=sys.stderr)
        return 0
    sources = sources if job is None else job.sources
    predictor = _opened(file, computation, several=len(sources) >= _SEVERAL)
    size = computation.batch_size
    pending = predict_images(
        predictor, sources, top=form.top, batch_size=size, features=form.features
    )
    if job is not None or (form.parquet is not None and form.sort is None):
        return _stream(pending, len(sources), predictor, form, job)
    with silent_decoders() as stream:
        predictions = list(with_progress(pending, len(sources), stream))
    if form.sort is not None:
        names = predictor.description.class_names
        predictions = _sorted(predictions, sources, form.sort, names)
    if reason := why_never_ok(predictor.description):
        say(reason, file=sys.stderr)
    caption = "" if model else _of_shipped(predictor.description)
    return form.write(predictions, caption, computation_of(predictor, file))


def _opened(file: Path, computation: _Computation, *, several: bool) -> "Engine":
    """The engine that computes; what the user should know about it is told."""
    from resnets.deployment.engines import open_engine
    from resnets.evaluation.statuses import engine_with_target, in_words
    from resnets.evaluation.tta import in_words as tta_in_words
    from resnets.evaluation.tta import with_tta

    predictor = open_engine(file, computation.engine, computation.threads, measure=several)
    predictor = with_tta(engine_with_target(predictor, computation.max_error), computation.tta)
    if computation.tta:
        say(tta_in_words(predictor.description), file=sys.stderr)
    if computation.max_error is not None:
        say(in_words(predictor.description, computation.max_error), file=sys.stderr)
    return predictor


@dataclass(frozen=True)
class _PartJob:
    """A part of the images that is to be predicted.

    Attributes:
        sources: its images.
        path: of its file.
        record: what it is made from.
        is_done: whether the file is there already.
    """

    sources: "Sequence[Source]"
    path: Path
    record: "Record"
    is_done: bool


def _part_of(
    form: _Form, computation: _Computation, file: Path, sources: "Sequence[Source]"
) -> _PartJob | None:
    """The part of the images that the flags name; None where they name none."""
    from resnets.evaluation.parts import Part, is_done

    if form.part is None or form.output is None:
        return None
    part = Part.parse(form.part)
    record = _record(part, form, computation, file, sources)
    done = is_done(record, form.output)
    return _PartJob(part.of_list(sources), part.file(form.output), record, done)


def _record(
    part: "Part",
    form: _Form,
    computation: _Computation,
    file: Path,
    sources: "Sequence[Source]",
) -> "Record":
    """What a part is made from."""
    from resnets.deployment.engines.selection import digest
    from resnets.evaluation.parts import record_of
    from resnets.evaluation.predict import StoredImage, stored_digest_of

    if not all(isinstance(each.content, Path | StoredImage) for each in sources):
        raise UsageError("--part and --on take files, folders and patterns, no standard input")
    settings = {
        "top": form.top,
        "max_error": computation.max_error,
        "tta": computation.tta,
        "features": form.features,
    }
    names, stored = [each.name for each in sources], stored_digest_of(sources)
    return record_of(part, names, digest(file), settings, stored)


def _predict_on_ray(
    cluster: _Cluster,
    form: _Form,
    computation: _Computation,
    file: Path,
    sources: "Sequence[Source]",
) -> int:
    """Have a Ray cluster predict the parts that are missing; the exit code."""
    from resnets.deployment.on_ray import predicted_on_ray
    from resnets.evaluation.parts import Part, missing_parts, usual_number, write_parts
    from resnets.evaluation.predict import why_never_ok

    assert form.output is not None
    first = Part(1, usual_number(len(sources)))
    record = _record(first, form, computation, file, sources)
    missing = missing_parts(record, form.output)
    if not missing:
        say(f"{form.output}: done already", file=sys.stderr)
        return 0
    task, description = _worker_task(form, computation, file, record)
    form.output.mkdir(parents=True, exist_ok=True)
    total = sum(len(part.of_list(sources)) for part in missing)
    with (
        silent_decoders() as stream,  # Ray's libraries print, too
        predicted_on_ray(
            task, sources, missing, address=cluster.address, workers=cluster.workers
        ) as tables,
    ):
        written = write_parts(tables, record, form.output, task.schema)
        errors = (error for table in written for error in table["error"])
        unreadable = sum(error.is_valid for error in with_progress(errors, total, stream))
    if reason := why_never_ok(description):
        say(reason, file=sys.stderr)
    _told((total, unreadable), form.output)
    say(f"`resnets merge {form.output} --output FILE` joins the parts", file=sys.stderr)
    return 0


def _worker_task(
    form: _Form, computation: _Computation, file: Path, record: "Record"
) -> "tuple[WorkerTask, Description]":
    """What workers of a cluster compute with, and the network's description.

    What auto chooses is chosen here, once. Where an engine is for another device, this machine need
    not have it, and looks at the network by one that it has.
    """
    from resnets.deployment.engines.accelerators import ACCELERATORS
    from resnets.deployment.on_ray import WorkerTask
    from resnets.evaluation.engine import computation_of
    from resnets.evaluation.prediction_table import number_of_features, schema_of

    elsewhere = computation.engine in ACCELERATORS
    here = replace(computation, engine="auto") if elsewhere else computation
    predictor = _opened(file, here, several=not elsewhere)
    engine = computation.engine if elsewhere else computation_of(predictor, file).engine
    features = number_of_features(predictor) if form.features else 0
    task = WorkerTask(
        folder=Path.cwd(),
        file=file,
        file_digest=record.model_digest,
        engine=cast("EngineName", engine),
        threads=computation.threads or 1,
        max_error=computation.max_error,
        tta=computation.tta,
        top=form.top,
        batch_size=computation.batch_size,
        features=form.features,
        schema=schema_of(form.top, features=features),
    )
    return task, predictor.description


def _stream(
    pending: "Iterator[Prediction]",
    total: int,
    predictor: "Engine",
    form: _Form,
    job: _PartJob | None,
) -> int:
    """Write predictions into a parquet file as they come; the exit code.

    A part is done though images of it cannot be read: a launcher would start it again for nothing.
    """
    from resnets.evaluation.predict import why_never_ok
    from resnets.evaluation.prediction_table import (
        number_of_features,
        schema_of,
        write_predictions,
    )

    features = number_of_features(predictor) if form.features else 0
    schema = schema_of(form.top, features=features)
    path, metadata = form.parquet, None
    if job is not None:
        path, metadata = job.path, job.record.metadata()
        path.parent.mkdir(parents=True, exist_ok=True)
    assert path is not None
    with silent_decoders() as stream:
        shown = with_progress(pending, total, stream)
        written = write_predictions(shown, path, schema, metadata)
    if reason := why_never_ok(predictor.description):
        say(reason, file=sys.stderr)
    unreadable = _told(written, path)
    return 1 if unreadable and job is None else 0


def _predict_on(url: str, words: Sequence[str], form: _Form, verbose: bool) -> int:
    """Predict images by a server; the exit code."""
    from resnets.serving.client import Client

    with Client(url, key=os.environ.get(_KEY, "")) as client:
        served = client.models()
        model, images = _split_for(served, words)
        names = client.class_names(model)
        if not 1 <= form.top <= len(names):
            raise UsageError(f"--top {form.top}: the network has {plural(len(names), 'class')}")
        sources = form.sources(images, verbose)
        if form.parquet is not None:
            writable(form.parquet, _paths_of(sources))
        pending = client.predict_sources(sources, top=form.top, model=model)
        with silent_decoders() as stream:
            predictions, failure = _answered(with_progress(pending, len(sources), stream))
    answered = len(predictions)
    if form.sort is not None:
        predictions = _sorted(predictions, sources[:answered], form.sort, names)
    code = form.write(predictions, "", f"computed by {model or served[0]} on {url}")
    if failure is None:
        return code
    missing = f"{answered:,} of {plural(len(sources), 'image')} were answered before"
    raise type(failure)(f"{failure}; {missing}")


def _answered(pending: "Iterable[Prediction]") -> "tuple[list[Prediction], Exception | None]":
    """The predictions of a server until it failed, and how it did; at once if it is at the first.

    Raises:
        ServerFailed, NotReachable: there is no prediction.
    """
    from resnets.serving.exchange import NotReachable, ServerFailed

    predictions: list[Prediction] = []
    try:
        predictions.extend(pending)  # one after the other: what came before a failure stays
    except (ServerFailed, NotReachable) as failure:
        if not predictions:
            raise
        return predictions, failure
    return predictions, None


def _split_for(served: Sequence[str], words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The name of one of a server's models, and what stands for images.

    Where a first word is MODEL as it would be without a server, the server has it by that name.
    """
    from resnets.deployment.engines.swapped import is_model
    from resnets.serving.served_model import name_of

    if words and words[0] in served and not Path(words[0]).exists():
        return words[0], words[1:]
    if words and is_model(words[0]):
        return name_of(Path(words[0])), words[1:]
    first = words[0] if len(words) > 1 else ""
    if first and not Path(first).exists() and not set(first) & set("*?[:"):
        raise UsageError(
            f"{first}: no such image or folder, and no model of the server, which has "
            f"{', '.join(served)}"
        )
    return "", words


def _refuse_local(computation: _Computation) -> None:
    """Refuse flags about the computation, which is the server's matter.

    Raises:
        UsageError: one was given.
    """
    usual = asdict(_Computation())
    for name, value in asdict(computation).items():
        if value != usual[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: the server decides it; leave it out with --server")


def _sorted(
    predictions: "Sequence[Prediction]",
    sources: "Sequence[Source]",
    folder: Path,
    class_names: Sequence[str],
) -> "list[Prediction]":
    """Copy images into a folder by their predictions, and tell how many went where."""
    from resnets.evaluation.sorting import in_words, sort_images

    copied = sort_images(predictions, sources, folder, class_names)
    for line in in_words(copied):
        say(f"{folder}: {line}", file=sys.stderr)
    return copied


def _split_words(words: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """MODEL and what stands for images.

    The first word is MODEL if it ends as model files, exported files and checkpoints do, is the
    folder of a run, or the name of a network.

    Raises:
        UsageError: it is one of these, but no MODEL; or a MODEL stands behind the images.
    """
    from resnets.deployment.engines.swapped import is_model, refuse_swapped
    from resnets.model_path import find_model, meant

    refuse_swapped(words[:1], words[1:])
    if words and is_model(words[0]):
        return find_model(words[0]), words[1:]
    if words and not _may_be_images(words[0]):
        raise UsageError(
            f"{words[0]}: no model (no such file, run, network or id) and no image, folder or "
            f"pattern{meant(words[0])}"
        )
    return None, words


def _may_be_images(word: str) -> bool:
    """Whether a word may stand for images: they are there, or it is written as they are."""
    from resnets.data.sources.names import has_image_ending

    if not word or word == "-" or "://" in word or word.startswith(("digits", "hub:")):
        return True  # or what is said of these where images are opened
    return Path(word).exists() or has_magic(word) or has_image_ending(word)


def _of_shipped(description: "Description") -> str:
    """What a user should know about the network that comes with the package."""
    names = description.class_names
    source = description.data.get("source", "images")
    return (
        f"Predicted by the small network that comes with resnets. It was trained on {source} and "
        f"knows only {plural(len(names), 'class')}: {', '.join(names)}. Whatever is on an image, "
        "the prediction is one of them."
    )


def image_sources(
    words: Sequence[str], *, verbose: bool = False, cache: str | None = None
) -> "list[Source]":
    """The images for words of the command line; a dash is standard input.

    What is passed over in folders is told on standard error.

    Args:
        words: files, folders and patterns.
        verbose: whether every file that is passed over is named.
        cache: for shards at an address, how much of them to keep on the local disk.

    Raises:
        UsageError: there is none, or none that the cache is for.
    """
    from resnets.addresses import is_remote
    from resnets.evaluation.predict import Source, matching_images

    if not words:
        raise UsageError(
            "no images given: name files, folders or patterns, or - for standard input"
        )
    if cache is not None and not any(map(is_remote, words)):
        raise UsageError(f"--cache {cache}: only what is read from an address has a cache")
    sources: list[Source] = []
    passed_over: list[tuple[str, str]] = []
    for word in words:
        if word == "-":
            sources.append(Source("standard input", _standard_input()))
        else:
            matches = matching_images(word, cache)
            sources += matches.sources
            passed_over += matches.passed_over
    for line in passed_over_lines(passed_over, verbose=verbose):
        say(line, file=sys.stderr)
    return sources


def _paths_of(sources: "Sequence[Source]") -> list[Path]:
    """The paths of the images that are files."""
    return [source.content for source in sources if isinstance(source.content, Path)]


def _standard_input() -> bytes | ContentError:
    """The bytes on standard input; an error if there are more than an image may have."""
    content = read_limited(sys.stdin.buffer, MAX_BYTES)
    if content is None:
        return ContentError(f"more than {plural(MAX_BYTES, 'byte')}; an image has fewer")
    return content


def with_progress(predictions: Iterator[_T], total: int, stream: TextIO) -> Iterator[_T]:
    """Pass predictions on, with a progress bar if the stream is a terminal."""
    if total < _SEVERAL or not stream.isatty():
        yield from predictions
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(predictions, "images", total, console=Console(file=stream))


def _rows(predictions: "Sequence[Prediction]") -> list[dict[str, Any]]:
    """One flat row an image, all with the same columns, of images that are sorted."""
    columns: dict[str, None] = dict.fromkeys(
        column for prediction in predictions for column in prediction.row()
    )
    order = [*(column for column in columns if column not in _LAST), *_LAST]
    return [
        {column: prediction.row().get(column) for column in order} for prediction in predictions
    ]


def _write_csv(predictions: "Sequence[Prediction]", top: int, sorts: bool) -> None:
    """One line an image, on standard output."""
    from resnets.evaluation.prediction_table import columns

    rows = [prediction.row() for prediction in predictions]
    escaping.write_csv(sys.stdout, rows, list(columns(top, sorts)))


def _told(written: tuple[int, int], path: Path) -> int:
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
                prediction.error or more,
            )
        )
    wide = 5 if any(row[4] for row in listed) else 4  # columns
    columns = ("image", "prediction", "probability", "status", "")
    if caption:
        say(caption, file=sys.stderr)
    print_table(columns[:wide], [row[:wide] for row in listed])
    failed = sum(prediction.error is not None for prediction in predictions)
    if failed:
        say(f"{failed} of {plural(len(predictions), 'image')} cannot be read", file=sys.stderr)
