"""What runs a network when its speed is measured: this project's engines, and whom they meet.

`python -m resnets.deployment.bench.contenders` is the process of one contender. It reads lines of
JSON
from standard input: first the `Contender`, then batch sizes with the seconds to run each; each
line is answered by one. See `turns` for the other side.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resnets import model_file
from resnets.deployment.engines.choosing import installed
from resnets.deployment.engines.opening import RUNS, EngineName, open_engine
from resnets.deployment.exported.reading import describe, is_exported, refuse_exported
from resnets.errors import ContentError, MissingExtra, UsageError, require
from resnets.evaluation.engine import finite
from resnets.files import read_text
from resnets.json_text import to_json
from resnets.model_file import Description
from resnets.networks import Architecture
from resnets.networks.catalog import display_name, name_of

Images = NDArray[np.uint8]  # (B, H, W, C)
Call = Callable[[], object]  # computes one batch

SIDE = 1024  # of the matrices whose product tells the machine's peak; multiply-adds: its cube
_WARM_UP = 0.2  # share of a turn's time for calls that do not count, in which kernels are chosen
_LEAST, _MOST = 3, 5000  # calls of a turn


@dataclass(frozen=True)
class Contender:
    """Who runs.

    Attributes:
        name: as people read it.
        runtime: which of the `RUNTIMES` computes.
        file: the model file or exported file.
        threads: how many compute.
        shape: (H, W, C) of the images.
        network: the name of the network in another project, where that computes.
    """

    name: str
    runtime: str
    file: str
    threads: int
    shape: tuple[int, int, int]
    network: str = ""


def _eager(contender: Contender) -> Callable[[Images], Call]:
    """The network in plain PyTorch, on images that are already prepared."""
    return _on_prepared(_torch_network(contender), contender)


def _compiled(contender: Contender) -> Callable[[Images], Call]:
    """The same through torch.compile."""
    import torch

    return _on_prepared(torch.compile(_torch_network(contender), dynamic=False), contender)


def _torch_network(contender: Contender) -> Any:
    """The network of a model file, with as many threads."""
    import torch

    from resnets import model_file

    torch.set_num_threads(contender.threads)
    return model_file.load(contender.file).network


def _on_prepared(network: Any, contender: Contender) -> Callable[[Images], Call]:
    """Calls of a torch module on normalised images (B, C, S, S) of float32."""
    import torch

    from resnets import model_file

    preprocessing = model_file.read_description(contender.file).preprocessing

    def ready(images: Images) -> Call:
        pixels = np.stack([preprocessing.pixels(image) for image in images])
        prepared = torch.from_numpy(preprocessing.normalise(pixels))

        def call() -> object:
            with torch.inference_mode():
                return network(prepared)

        return call

    return ready


def _torchvision(contender: Contender) -> Callable[[Images], Call]:
    """The untrained network of this name in torchvision, on images that are already prepared."""
    models = importlib.import_module("torchvision.models")
    _refuse_unknown("torchvision", contender, contender.network in models.list_models())
    return _on_prepared(_peer(models.get_model, contender), contender)


def _timm(contender: Contender) -> Callable[[Images], Call]:
    """The untrained network of this name in timm, on images that are already prepared."""
    models = importlib.import_module("timm")
    _refuse_unknown("timm", contender, models.is_model(contender.network))
    return _on_prepared(_peer(models.create_model, contender), contender)


def _refuse_unknown(project: str, contender: Contender, known: bool) -> None:
    """Raise a UsageError unless another project has the network."""
    if not known:
        raise UsageError(f"{project} has no network {contender.network}")


def _peer(create: Callable[..., Any], contender: Contender) -> Any:
    """Another project's network in evaluation mode, compiled if its name says so."""
    import torch

    from resnets import model_file

    torch.set_num_threads(contender.threads)
    classes = len(model_file.read_description(contender.file).class_names)
    network = create(contender.network, num_classes=classes).eval()
    return torch.compile(network, dynamic=False) if "compiled" in contender.name else network


def _by_engine(name: EngineName) -> Callable[[Contender], Callable[[Images], Call]]:
    """One of this project's engines, from images of uint8 to probabilities."""

    def opened(contender: Contender) -> Callable[[Images], Call]:
        engine = open_engine(contender.file, name, contender.threads)
        return lambda images: lambda: engine.probabilities(images)

    return opened


def _bare_onnxruntime(contender: Contender) -> Callable[[Images], Call]:
    """ONNX Runtime on an exported file, without a line of this project between.

    For each batch size a session of fixed shape, which is the fastest that it can be.
    """
    onnxruntime = require("onnxruntime", "onnx")

    def ready(images: Images) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = contender.threads
        for name, size in zip(("batch", "height", "width"), images.shape, strict=False):
            options.add_free_dimension_override_by_name(name, size)
        session = onnxruntime.InferenceSession(
            contender.file, options, providers=["CPUExecutionProvider"]
        )
        given = {session.get_inputs()[0].name: images}
        wanted = [session.get_outputs()[0].name]
        return lambda: session.run(wanted, given)

    return ready


def _bare_openvino(contender: Contender) -> Callable[[Images], Call]:
    """OpenVINO on an exported file: likewise."""
    openvino = require("openvino", "openvino")
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": contender.threads}

    def ready(images: Images) -> Call:
        model = openvino.Core().read_model(contender.file)
        model.reshape(images.shape)
        request = openvino.compile_model(model, "CPU", options).create_infer_request()
        return lambda: request.infer([images], share_inputs=True)

    return ready


def _peak(contender: Contender) -> Callable[[Images], Call]:
    """Multiply-adds as fast as this machine can: a product of two matrices in float32."""
    del contender  # as many threads as the environment of this process says
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    result = np.empty_like(left)
    return lambda _: lambda: np.matmul(left, right, out=result)


RUNTIMES: dict[str, Callable[[Contender], Callable[[Images], Call]]] = {
    "eager": _eager,
    "compiled": _compiled,
    "torch": _by_engine("torch"),
    "onnxruntime": _by_engine("onnxruntime"),
    "openvino": _by_engine("openvino"),
    "torchvision": _torchvision,
    "timm": _timm,
    "bare onnxruntime": _bare_onnxruntime,
    "bare openvino": _bare_openvino,
    "peak": _peak,
}


def _timed(call: Call, seconds: float) -> list[float]:
    """Seconds of each call, over about as many seconds in all, after calls that warm up."""
    _spend(call, _WARM_UP * seconds, least=1)
    return _spend(call, seconds)


def _spend(call: Call, seconds: float, least: int = _LEAST) -> list[float]:
    """Seconds of each call until so many are over, and at least a few calls."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < _MOST and (len(found) < least or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def _peak_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """Most bytes that this process has held so far; None where the system does not tell.

    Linux's getrusage would not do: it begins with what the process that started this one held.
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
    """Images without content (B, H, W, C): what they show takes no part in the speed."""
    return np.random.default_rng(0).integers(0, 256, (batch_size, *shape), np.uint8)


def _serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer each line until there is none."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(to_json(answer) + "\n")
        answers.flush()

    try:
        fields = json.loads(next(questions))
        contender = Contender(**fields | {"shape": tuple(fields["shape"])})
        if contender.runtime not in RUNTIMES:
            raise UsageError(f"no runtime {contender.runtime!r}")
        ready = RUNTIMES[contender.runtime](contender)
        first = ready(_random_images(1, contender.shape))()
        if hasattr(first, "shape"):  # the bare runtimes' answers are not looked into
            finite(np.asarray(first))
        say({})
        calls: dict[int, Call] = {}
        for line in questions:
            asked = json.loads(line)
            size = asked["batch_size"]
            if size not in calls:
                calls[size] = ready(_random_images(size, contender.shape))
            say({"seconds": _timed(calls[size], asked["seconds"]), "peak_memory": _peak_memory()})
    except Exception as error:  # whatever it is, the other side shall know it
        text, name = " ".join(str(error).split())[:300], type(error).__name__
        for_people = isinstance(error, UsageError | ContentError | MissingExtra)
        say({"error": text if for_people else f"{name}: {text}" if text else name})


def main() -> None:
    """Keep standard output to the answers: libraries print there too."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin, answers)


if __name__ == "__main__":
    main()


_PLAIN = ("eager", "compiled", "torch")  # run a model file as it is
_FORMATS: dict[str, str] = {"onnxruntime": "onnx", "openvino": "openvino"}
_CHECKED_ON = 4  # images on which an export for this purpose is checked


def lineup(
    models: Sequence[Path],
    engines: Sequence[str],
    threads: Sequence[int],
    against: str | None,
    folder: Path,
) -> tuple[list[Contender], int]:
    """The contenders, and the multiply-adds of one image.

    Args:
        models: model files, folders of runs, or exported files.
        engines: which runtimes; none for eager PyTorch and every engine that is installed.
        threads: numbers of threads; none for 1 and all cores.
        against: "torchvision" or "timm", whose network of the same name takes part.
        folder: where model files are exported to, as engines need it.

    Raises:
        UsageError: the models differ in what they see, or nothing can run them.
        MissingExtra: an engine or the other project is not installed.
        ContentError: a model is damaged.
    """
    if not models:
        raise UsageError("nothing to measure: name a model file or an exported file")
    for name in (*(name for name in engines if name in _FORMATS), *filter(None, [against])):
        _require_installed(name)
    found: list[Contender] = []
    seen: list[Description] = []
    for path in models:
        prefix = f"{path.stem if path.is_file() else path.name} " if len(models) > 1 else ""
        files, description = _files_of(path, engines, folder / str(len(seen)))
        seen.append(description)
        found += [_contender(prefix, name, file, description) for name, file in files]
        if against:
            found += _peers(against, path, description)
    if not found:
        raise UsageError(f"none of {', '.join(engines)} runs {', '.join(map(str, models))}")
    if len({(each.preprocessing.resize, each.preprocessing.channels) for each in seen}) > 1:
        raise UsageError("the models see images of different sizes: measure them one by one")
    numbers = sorted(set(threads or _default_threads()))
    everyone = [replace(who, threads=number) for number in numbers for who in found]
    return everyone, _multiply_adds(seen[0])


def _default_threads() -> list[int]:
    """1 and all cores."""
    from resnets.machine import cores

    return [1, cores()]


def _require_installed(name: str) -> None:
    """Say what to install where it is missing."""
    if not installed(name):
        extra = f'"resnets[{_FORMATS[name]}]"' if name in _FORMATS else name
        raise MissingExtra(f"{name} is not installed: pip install {extra}")


def _files_of(
    path: Path, engines: Sequence[str], folder: Path
) -> tuple[list[tuple[str, Path]], Description]:
    """Runtimes with the file that each runs, and what the model says of itself."""
    file = model_file.find_model(path)
    if is_exported(file):
        able = [name for name in RUNS.get(file.suffix.lower(), ()) if installed(name)]
        chosen = [name for name in able if name in engines or not engines]
        return [(name, file) for name in chosen], describe(file)
    from resnets.deployment.export.files import ENDINGS, export, images_for

    model = model_file.load(file)
    wanted = engines or ["eager", *(name for name in _FORMATS if installed(name))]
    files = []
    for name in wanted:
        if name in _PLAIN:
            files.append((name, file))
            continue
        kind = _FORMATS[name]
        folder.mkdir(exist_ok=True)
        target = folder / f"model{ENDINGS[kind]}"  # type: ignore[index]
        export(model, target, kind, *images_for(model, None, _CHECKED_ON))  # type: ignore[arg-type]
        files.append((name, target))
    return files, model.description


def _contender(prefix: str, runtime: str, file: Path, description: Description) -> Contender:
    """Who runs a file."""
    side = description.preprocessing.resize
    shape = (side, side, description.preprocessing.channels)
    return Contender(f"{prefix}{runtime}", runtime, str(file), 1, shape)


def _peers(project: str, path: Path, description: Description) -> list[Contender]:
    """Another project's network of the same name, eager and compiled."""
    refuse_exported(path, f"--against {project} measures it in plain PyTorch")
    file = model_file.find_model(path)
    architecture = Architecture.from_dict(description.architecture)
    name = name_of(architecture)
    if name is None or architecture.norm == "group":
        raise UsageError(
            f"--against {project}: the network of {path} ({display_name(architecture)}, "
            f"{architecture.norm} norm) is not one of the named networks that {project} may have"
        )
    return [
        replace(_contender("", project, file, description), name=f"{project} {way}", network=name)
        for way in ("eager", "compiled")
    ]


def _multiply_adds(description: Description) -> int:
    """Of convolutions and fully connected layers, for one image."""
    from resnets.networks.profile import profile

    architecture = Architecture.from_dict(description.architecture)
    return profile(architecture, description.preprocessing.size).multiply_adds
