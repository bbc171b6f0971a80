"""``resnets predict``: the class and its probability for each image."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resnets import shipped
from resnets.commands import run
from resnets.commands.engine_flags import EngineFlags
from resnets.commands.flags import Cache
from resnets.commands.image_words import model_and_images, paths_of
from resnets.commands.notices import tell_enlarged
from resnets.commands.predict_on_ray import predict_on_ray
from resnets.commands.predict_on_server import predict_on_server
from resnets.commands.predict_parts import Cluster, Parts, parts_of, predict_part
from resnets.commands.prediction_output import (
    Form,
    collect,
    sort_copies,
    tell_never_ok,
    write_output,
    write_parquet,
)
from resnets.commands.progress import SEVERAL
from resnets.deployment.engines import EngineName
from resnets.errors import UsageError
from resnets.files.outputs import writable
from resnets.format import plural

if TYPE_CHECKING:
    from resnets.model_file import Description


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
            'photos/*.jpg', shards, tar or parquet files (one, or a folder or an address), or - for
            one image's bytes on standard input.
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
        verbose: name files skipped as no image; say why torch computes.
        cache: for shards at an address, how much of them to keep on the local disk, such as 50GB.
        server: have a running `resnets serve` predict, such as http://127.0.0.1:8000; MODEL is then
            the name of one of its models. RESNETS_API_KEY may hold its key. An image for which it
            fails has the status unanswered.
    """
    if sum(map(bool, (as_json, as_csv, parquet, part, on))) > 1:
        raise UsageError("--json, --csv, --parquet, --part and --on ray: choose one")
    if on is None and (address is not None or workers):
        raise UsageError("--address and --workers: give --on ray, too, or leave them out")
    _refuse_files_to_write(words, as_csv, as_json)
    form = Form(top, sort, overwrite, as_json, as_csv, parquet, features)
    parts = parts_of(part, Cluster(address, workers) if on else None, output)
    form.check(in_parts=parts is not None)
    flags = EngineFlags(max_error, batch_size, engine, threads, tta)
    if server is None:
        return _predict_here(words, form, parts, flags, verbose, cache)
    if parts:
        raise UsageError(f"{'--part' if part else '--on ray'}: leave it out with --server")
    flags.refuse_for_server()
    return predict_on_server(server, words, form, verbose, cache)


def _refuse_files_to_write(words: Sequence[str], as_csv: bool, as_json: bool) -> None:
    """Refuse the name of a file that was meant for the output: --csv and --json print.

    Raises:
        UsageError: what to write in its place.
    """
    for flag, is_chosen, ending in (("--csv", as_csv, ".csv"), ("--json", as_json, ".json")):
        for word in words if is_chosen else ():
            if word.lower().endswith(ending) and not Path(word).exists():
                raise UsageError(
                    f"{word}: no such file or folder of images; {flag} takes no name and prints "
                    f"to standard output, so write {flag} > {shlex.quote(word)}"
                )


def _predict_here(
    words: Sequence[str],
    form: Form,
    parts: Parts | None,
    flags: EngineFlags,
    verbose: bool,
    cache: str | None,
) -> int:
    """Predict images on this machine, or have a cluster predict files of it; the exit code."""
    from resnets.evaluation.engine import computation_of
    from resnets.evaluation.predict import predict as predict_images
    from resnets.model_path import files_of

    model, images = model_and_images(words)
    sources = form.sources(images, verbose, cache)
    file = model or shipped.shipped()
    if form.parquet is not None:
        writable(form.parquet, [*files_of(file), *paths_of(sources)])
    if parts is not None and parts.cluster is not None:
        return predict_on_ray(parts, form, flags, file, sources)
    if parts is not None:
        return predict_part(parts, form, flags, file, sources)
    predictor = flags.open_engine(file, measure=len(sources) >= SEVERAL)
    tell_enlarged(sources, predictor.description)
    if form.parquet is not None and form.sort is None:
        unreadable = write_parquet(predictor, sources, form, flags.batch_size, form.parquet)
        tell_never_ok(predictor.description)
        return 1 if unreadable else 0
    pending = predict_images(predictor, sources, top=form.top, batch_size=flags.batch_size)
    predictions = collect(pending, len(sources), form)
    if form.sort is not None:
        names = predictor.description.class_names
        predictions = sort_copies(predictions, sources, form.sort, names)
    tell_never_ok(predictor.description)
    caption = "" if model else _of_shipped(predictor.description)
    code = write_output(predictions, form, caption, computation_of(predictor, file))
    if verbose:
        flags.tell_why_torch(file)
    return code


def _of_shipped(description: "Description") -> str:
    """What a user should know about the network that comes with the package."""
    names = description.class_names
    source = description.data.get("source", "images")
    return (
        f"Predicted by the small network that comes with resnets. It was trained on {source} and "
        f"knows only {plural(len(names), 'class')}: {', '.join(names)}. Whatever is on an image, "
        "the prediction is one of them."
    )
