"""Runtimes whose speed is measured: this project's engines and other projects' networks.

`python -m resnets.deployment.bench.runtimes` is the process of one candidate. It reads requests
from standard input, one line of JSON each: first the `Candidate`, then batch sizes with the seconds
to run each. It writes one line of JSON in response to each; to the first one two, after the first
call and with the seconds of another. `processes` is the other side.
"""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnets import model_file, model_path
from resnets.deployment.bench.exporting import Exports
from resnets.deployment.engines.accelerators import runtime_of
from resnets.deployment.engines.opening import RUNS, EngineName, open_engine
from resnets.deployment.engines.selection import installed
from resnets.deployment.exported.reading import describe, is_exported, refuse_exported
from resnets.errors import ContentError, MissingExtra, UsageError, install_hint, require
from resnets.evaluation.engine import finite
from resnets.files.reading import read_text
from resnets.format import byte_size
from resnets.json_text import to_json
from resnets.model_file import Description
from resnets.networks import Architecture
from resnets.networks.catalog import display_name, name_of

Images = NDArray[np.uint8]  # (B, H, W, C)
Call = Callable[[], object]  # computes one batch

PEAK = "peak"  # the runtime that measures the machine
SIDE = 1024  # of the matrices whose product measures the machine's peak; multiply-adds: its cube
_MOST_MEMORY = 1 << 32  # bytes that the graph of a file may take for a batch, as in `evaluate`
_WARM_UP = 0.2  # share of a turn's time for calls before the turn, which are not counted
_MIN_CALLS, _MAX_CALLS = 3, 5000  # of a turn


@dataclass(frozen=True)
class Candidate:
    """A network in a runtime, whose speed is measured.

    Attributes:
        name: in tables and plots.
        runtime: which of the `RUNTIMES` computes.
        file: the model file or exported file.
        threads: number of threads that compute.
        shape: (H, W, C) of the images.
        network: the name of the network in another project, where that project's network runs.
        unavailable: why it cannot be measured; empty if it can.
    """

    name: str
    runtime: str
    file: str
    threads: int
    shape: tuple[int, int, int]
    network: str = ""
    unavailable: str = ""


def _eager(candidate: Candidate) -> Callable[[Images], Call]:
    """The network in plain PyTorch, on images that are already preprocessed."""
    return _on_preprocessed(_torch_network(candidate), candidate)


def _compiled(candidate: Candidate) -> Callable[[Images], Call]:
    """The same through torch.compile."""
    import torch

    return _on_preprocessed(torch.compile(_torch_network(candidate), dynamic=False), candidate)


def _torch_network(candidate: Candidate) -> Any:
    """The network of a model file; sets the number of threads."""
    import torch

    from resnets import model_file

    torch.set_num_threads(candidate.threads)
    return model_file.load(candidate.file).network


def _on_preprocessed(network: Any, candidate: Candidate) -> Callable[[Images], Call]:
    """Calls of a torch module on normalised images (B, C, S, S) of float32."""
    import torch

    from resnets import model_file

    preprocessing = model_file.read_description(candidate.file).preprocessing

    def prepare(images: Images) -> Call:
        pixels = np.stack([preprocessing.pixels(image) for image in images])
        inputs = torch.from_numpy(preprocessing.normalise(pixels))

        def call() -> object:
            with torch.inference_mode():
                return network(inputs)

        return call

    return prepare


def _torchvision(candidate: Candidate) -> Callable[[Images], Call]:
    """The untrained network of this name in torchvision, on preprocessed images."""
    models = importlib.import_module("torchvision.models")
    _refuse_unknown("torchvision", candidate, candidate.network in models.list_models())
    return _on_preprocessed(_peer(models.get_model, candidate), candidate)


def _timm(candidate: Candidate) -> Callable[[Images], Call]:
    """The untrained network of this name in timm, on preprocessed images."""
    models = importlib.import_module("timm")
    _refuse_unknown("timm", candidate, models.is_model(candidate.network))
    return _on_preprocessed(_peer(models.create_model, candidate), candidate)


def _refuse_unknown(project: str, candidate: Candidate, known: bool) -> None:
    """Raise a UsageError if another project does not have the network."""
    if not known:
        raise UsageError(f"{project} has no network {candidate.network}")


def _peer(create: Callable[..., Any], candidate: Candidate) -> Any:
    """Another project's network in evaluation mode, compiled if its name says so."""
    import torch

    from resnets import model_file

    torch.set_num_threads(candidate.threads)
    classes = len(model_file.read_description(candidate.file).class_names)
    network = create(candidate.network, num_classes=classes).eval()
    return torch.compile(network, dynamic=False) if "compiled" in candidate.name else network


def _by_engine(name: EngineName) -> Callable[[Candidate], Callable[[Images], Call]]:
    """One of this project's engines, from images of uint8 to probabilities."""

    def open_candidate(candidate: Candidate) -> Callable[[Images], Call]:
        engine = open_engine(candidate.file, name, candidate.threads)

        def prepare(images: Images) -> Call:
            _refuse_large(len(images), getattr(engine, "image_bytes", 0))
            return lambda: engine.probabilities(images)

        return prepare

    return open_candidate


def _refuse_large(batch_size: int, image_bytes: int) -> None:
    """Refuse a batch of several images for which the graph of a file takes too much memory.

    Args:
        batch_size: number of images.
        image_bytes: what the graph takes for each; 0 where it is not measured.

    Raises:
        UsageError: it does.
    """
    needed = batch_size * image_bytes
    if batch_size > 1 and needed > _MOST_MEMORY:
        raise UsageError(
            f"its graph takes {byte_size(needed)} for {batch_size} images at once, more than "
            f"{byte_size(_MOST_MEMORY)}; give smaller --batch-sizes"
        )


def _bare_onnxruntime(candidate: Candidate) -> Callable[[Images], Call]:
    """ONNX Runtime on an exported file, without any code of this project in between.

    Each batch size gets a session of fixed shape, the fastest that ONNX Runtime offers.
    """
    onnxruntime = require("onnxruntime", "onnx")

    def prepare(images: Images) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = candidate.threads
        for name, size in zip(("batch", "height", "width"), images.shape, strict=False):
            options.add_free_dimension_override_by_name(name, size)
        session = onnxruntime.InferenceSession(
            candidate.file, options, providers=["CPUExecutionProvider"]
        )
        inputs = {session.get_inputs()[0].name: images}
        outputs = [session.get_outputs()[0].name]
        return lambda: session.run(outputs, inputs)

    return prepare


def _bare_openvino(candidate: Candidate) -> Callable[[Images], Call]:
    """OpenVINO on an exported file, likewise."""
    from resnets.deployment.engines.openvino import core

    openvino = core()  # one for all batch sizes: see docs/decisions.md, Deployment
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": candidate.threads}

    def prepare(images: Images) -> Call:
        model = openvino.read_model(candidate.file)
        model.reshape(images.shape)
        request = openvino.compile_model(model, "CPU", options).create_infer_request()
        return lambda: request.infer([images], share_inputs=True)

    return prepare


def _peak(candidate: Candidate) -> Callable[[Images], Call]:
    """The machine's peak rate of multiply-adds: a product of two matrices in float32."""
    del candidate  # the environment of this process sets the number of threads
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    result = np.empty_like(left)
    return lambda _: lambda: np.matmul(left, right, out=result)


RUNTIMES: dict[str, Callable[[Candidate], Callable[[Images], Call]]] = {
    "eager": _eager,
    "compiled": _compiled,
    "torch": _by_engine("torch"),
    "onnxruntime": _by_engine("onnxruntime"),
    "openvino": _by_engine("openvino"),
    "onnxruntime-cuda": _by_engine("onnxruntime-cuda"),
    "onnxruntime-tensorrt": _by_engine("onnxruntime-tensorrt"),
    "onnxruntime-directml": _by_engine("onnxruntime-directml"),
    "onnxruntime-coreml": _by_engine("onnxruntime-coreml"),
    "openvino-gpu": _by_engine("openvino-gpu"),
    "openvino-npu": _by_engine("openvino-npu"),
    "torchvision": _torchvision,
    "timm": _timm,
    "bare onnxruntime": _bare_onnxruntime,
    "bare openvino": _bare_openvino,
    PEAK: _peak,
}


def _timed(call: Call, seconds: float) -> list[float]:
    """Seconds of each call, for about `seconds` in all, after calls that warm up."""
    _time_calls(call, _WARM_UP * seconds, min_calls=1)
    return _time_calls(call, seconds)


def turn_seconds(call: float, seconds: float) -> float:
    """About how long a turn of `seconds` takes whose calls take `call` seconds each.

    >>> turn_seconds(0.01, 0.5), turn_seconds(20, 0.5)
    (0.6, 80)
    """
    return max(call, _WARM_UP * seconds) + max(_MIN_CALLS * call, seconds)


def _time_calls(call: Call, seconds: float, min_calls: int = _MIN_CALLS) -> list[float]:
    """Seconds of each call, repeated until `seconds` have passed and `min_calls` are done."""
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while len(durations) < _MAX_CALLS and (len(durations) < min_calls or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return durations


def _peak_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """Peak memory of this process so far in bytes; None where the system does not report it.

    Linux's getrusage would be wrong: it starts at the peak of the parent process.
    """
    try:
        (line,) = (row for row in read_text(status).splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    peak = None
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak


def _random_images(batch_size: int, shape: tuple[int, int, int]) -> Images:
    """Random images (B, H, W, C): their content does not affect the speed."""
    return np.random.default_rng(0).integers(0, 256, (batch_size, *shape), np.uint8)


def _serve(requests: IO[str], responses: IO[str]) -> None:
    """Respond to each line until the input ends."""

    def respond(response: dict[str, Any]) -> None:
        responses.write(to_json(response) + "\n")
        responses.flush()

    try:
        fields = json.loads(next(requests))
        candidate = Candidate(**fields | {"shape": tuple(fields["shape"])})
        if candidate.runtime not in RUNTIMES:
            raise UsageError(f"no runtime {candidate.runtime!r}")
        prepare = RUNTIMES[candidate.runtime](candidate)
        output = prepare(_random_images(1, candidate.shape))()
        if hasattr(output, "shape"):  # the output of the bare runtimes is a list
            finite(np.asarray(output))
        respond({})
        again = prepare(_random_images(1, candidate.shape))
        start = time.perf_counter()
        again()
        respond({"call": time.perf_counter() - start})
        calls: dict[int, Call] = {}
        for line in requests:
            request = json.loads(line)
            size = request["batch_size"]
            if size not in calls:
                calls[size] = prepare(_random_images(size, candidate.shape))
            respond(
                {"seconds": _timed(calls[size], request["seconds"]), "peak_memory": _peak_memory()}
            )
    except Exception as error:  # the parent process reports any error
        text, name = " ".join(str(error).split())[:300], type(error).__name__
        readable = isinstance(error, UsageError | ContentError | MissingExtra)
        respond({"error": text if readable else f"{name}: {text}" if text else name})


def main() -> None:
    """Keep standard output for the responses: libraries print there, too."""
    responses = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin, responses)


_PLAIN = ("eager", "compiled", "torch")  # run a model file as it is
_FORMATS: dict[str, str] = {"onnxruntime": "onnx", "openvino": "openvino"}


def candidates(
    models: Sequence[Path],
    engines: Sequence[str],
    threads: Sequence[int],
    against: str | None,
    folder: Path,
    limit: float = math.inf,
) -> tuple[list[Candidate], int]:
    """The candidates, and the multiply-adds of one image.

    Args:
        models: model files, folders of runs, or exported files.
        engines: the runtimes; empty: eager PyTorch and every engine that is installed.
        threads: numbers of threads; empty: 1 and all cores.
        against: "torchvision" or "timm", whose network of the same name is measured, too.
        folder: where model files are exported to, for the engines that need it.
        limit: seconds for these exports; the engines of those for which there is no time get
            candidates that are unavailable. That of the first engine is made in any case.

    Raises:
        UsageError: the models take images of different sizes, or an engine can run none of them.
        MissingExtra: an engine or the other project is not installed.
        ContentError: a model is damaged.
    """
    if not models:
        raise UsageError("nothing to measure: name a model file or an exported file")
    exported = (name for name in engines if runtime_of(name) in _FORMATS)
    for name in (*exported, *filter(None, [against])):
        _require_installed(name)
    single_threaded: list[Candidate] = []
    exports = Exports(folder, limit)
    descriptions: list[Description] = []
    for path in models:
        prefix = f"{path.stem if path.is_file() else path.name} " if len(models) > 1 else ""
        files, description = _files_of(path, engines, exports, not single_threaded)
        descriptions.append(description)
        for name, file in files:
            candidate = _candidate(prefix, name, file, description)
            single_threaded.append(replace(candidate, unavailable=exports.why_missing(file)))
        if against:
            single_threaded += _peers(against, path, description)
    _refuse_unused(engines, {candidate.runtime for candidate in single_threaded}, models)
    preparations = [description.preprocessing for description in descriptions]
    if len({(preparation.resize, preparation.channels) for preparation in preparations}) > 1:
        raise UsageError("the models take images of different sizes: measure them one by one")
    thread_counts = sorted(set(threads or _default_threads()))
    all_candidates = [
        replace(candidate, threads=count)
        for count in thread_counts
        for candidate in single_threaded
    ]
    return all_candidates, _multiply_adds(descriptions[0])


def _default_threads() -> list[int]:
    """1 and all cores."""
    from resnets.machine import cores

    return [1, cores()]


def _require_installed(name: str) -> None:
    """Raise a MissingExtra that says what to install, if a runtime is missing."""
    if not installed(name):
        kind = _FORMATS.get(runtime_of(name))
        how = f"pip install {name}" if kind is None else install_hint(kind)
        raise MissingExtra(f"{name} is not installed: {how}")


def _refuse_unused(engines: Sequence[str], used: Collection[str], models: Sequence[Path]) -> None:
    """Raise an error if an engine that was asked for, or every engine, runs none of the models."""
    unused = [name for name in engines if name not in used]
    if used and not unused:
        return
    kinds = [model_path.find_model(path).suffix.lower() for path in models]
    able = sorted({name for kind in kinds for name in RUNS.get(kind, ())})
    if unused:
        files = ", ".join(map(str, models))
        raise UsageError(f"{' or '.join(able)} can run {files}, {' and '.join(unused)} cannot")
    for name in able:
        _require_installed(name)


def _files_of(
    path: Path, engines: Sequence[str], exports: Exports, is_first: bool
) -> tuple[list[tuple[str, Path]], Description]:
    """Runtimes with the file that each runs, and the model's description.

    Args:
        path: of the model.
        engines: the runtimes; empty: all that are installed.
        exports: make the files.
        is_first: whether no other model has a runtime; the first one is measured in any case.
    """
    file = model_path.find_model(path)
    if is_exported(file):
        supported = [name for name in RUNS.get(file.suffix.lower(), ()) if installed(name)]
        chosen = [name for name in engines or supported if runtime_of(name) in supported]
        return [(name, file) for name in chosen], describe(file)
    model = model_file.load(file)
    names = engines or ["eager", *(name for name in _FORMATS if installed(name))]
    files = []
    for name in names:
        if name in _PLAIN:
            files.append((name, file))
            continue
        kind, in_any_case = _FORMATS[runtime_of(name)], is_first and not files
        files.append((name, exports.exported(file, kind, in_any_case)))
    return files, model.description


def _candidate(prefix: str, runtime: str, file: Path, description: Description) -> Candidate:
    """A file in a runtime, with one thread."""
    side = description.preprocessing.resize
    shape = (side, side, description.preprocessing.channels)
    return Candidate(f"{prefix}{runtime}", runtime, str(file), 1, shape)


def _peers(project: str, path: Path, description: Description) -> list[Candidate]:
    """Another project's network of the same name, eager and compiled."""
    refuse_exported(path, f"--against {project} measures it in plain PyTorch")
    file = model_path.find_model(path)
    architecture = Architecture.from_dict(description.architecture)
    name = name_of(architecture)
    if name is None or architecture.norm == "group":
        raise UsageError(
            f"--against {project}: the network of {path} ({display_name(architecture)}, "
            f"{architecture.norm} norm) is not one of the named networks that {project} could have"
        )
    return [
        replace(_candidate("", project, file, description), name=f"{project} {mode}", network=name)
        for mode in ("eager", "compiled")
    ]


def _multiply_adds(description: Description) -> int:
    """Multiply-adds of convolutions and fully connected layers, for one image."""
    from resnets.networks.profile import profile

    architecture = Architecture.from_dict(description.architecture)
    return profile(architecture, description.preprocessing.size).multiply_adds


if __name__ == "__main__":
    main()
