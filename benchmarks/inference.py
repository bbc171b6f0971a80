"""How fast two untrained networks predict on this machine's CPU, and this project's targets.

- model 1: `ResNet(ResidualBlock, (2, 2, 2))` on images of 32x32;
- model 2: `ResNetBottleneck(BottleneckBlock, (2, 2, 2, 2))` on images of 224x224.

The candidates take turns within one run, each in a process of its own (others are stopped), round
after round; ratios are medians of those within a round.

- eager: the network in plain PyTorch, on preprocessed images; only the forward pass counts;
- predict: `resnets.predict` from a decoded array to a prediction with all checks, on each engine;
- onnxruntime, openvino: those runtimes alone on the exported file, with a session of fixed shape
  for each batch size, from the same array to probabilities; also with the network in int8.

    python benchmarks/inference.py --json-file inference.json
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from resnets import load, predict
from resnets.deployment.bench import runtimes
from resnets.deployment.bench.figures import machine, speed
from resnets.deployment.bench.processes import Record, measure_in_turns
from resnets.deployment.bench.runtimes import Call, Candidate, Images
from resnets.deployment.engines import EngineName
from resnets.deployment.export import int8_onnx, int8_openvino
from resnets.deployment.export.files import export, save_onnx
from resnets.files.outputs import writable
from resnets.files.writing import write_atomically
from resnets.images import Preprocessing
from resnets.model_file import Description, Model, save
from resnets.networks import BottleneckBlock, ResidualBlock, ResNet, ResNetBottleneck

ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")
MADE = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
MADE_INT8 = {"onnxruntime": "int8.onnx", "openvino": "int8.xml"}


@dataclass(frozen=True)
class Aim:
    """A target for the ratio of the fastest of some candidates to the fastest of others."""

    model: str
    batch_size: int
    some: tuple[str, ...]
    others: tuple[str, ...]
    least: float


INT8 = "predict onnxruntime int8"
PREDICT = tuple(f"predict {engine}" for engine in ENGINES)
AIMS = (
    Aim("model 1", 1, PREDICT, ("eager",), 5.0),
    Aim("model 1", 1, (INT8,), ("eager",), 5.0),
    Aim("model 1", 1, PREDICT, ENGINES, 0.95),
    Aim("model 1", 128, PREDICT, ("eager",), 2.0),
    Aim("model 2", 16, PREDICT, ("eager",), 1.5),
    *(
        Aim(model, size, (f"{engine} int8",), (engine,), 1.4)
        for model, size in (("model 1", 1), ("model 1", 128), ("model 2", 16))
        for engine in ENGINES
    ),
)


def by_predict(engine: EngineName) -> Callable[[Candidate], Callable[[Images], Call]]:
    """`resnets.predict`, which users call, on one of the engines."""

    def open_candidate(candidate: Candidate) -> Callable[[Images], Call]:
        loaded = load(candidate.file, engine=engine, threads=candidate.threads)

        def prepare(images: Images) -> Call:
            inputs = images[0] if len(images) == 1 else images
            return lambda: predict(loaded, inputs, batch_size=len(images))

        return prepare

    return open_candidate


def networks() -> dict[str, tuple[Any, int]]:
    """The two networks, with the side of their input images."""
    torch.manual_seed(0)
    return {
        "model 1": (ResNet(ResidualBlock, (2, 2, 2)), 32),
        "model 2": (ResNetBottleneck(BottleneckBlock, (2, 2, 2, 2)), 224),
    }


def prepare(network: Any, side: int, folder: Path) -> list[Candidate]:
    """Write a network in all formats; the candidates that run the files."""
    folder.mkdir()
    names = tuple(f"class {index}" for index in range(network.architecture.num_classes))
    preparation = Preprocessing(side, side, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    description = Description(network.architecture.to_dict(), names, preparation)
    save(folder / "model.safetensors", network, description)
    model = Model(network.eval(), description)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, side, side, 3), np.uint8)
    export(model, folder / MADE["onnxruntime"], "onnx", list(images), "random images")
    export(model, folder / MADE["openvino"], "openvino", list(images), "random images")
    quantise(folder, [images[:4], images[4:]])
    files = {"eager": ("eager", "model.safetensors")}
    for engine in ENGINES:
        files[f"predict {engine}"] = (f"predict {engine}", MADE[engine])
        files[engine] = (f"bare {engine}", MADE[engine])
        files[f"{engine} int8"] = (f"bare {engine}", MADE_INT8[engine])
    files[INT8] = ("predict onnxruntime", MADE_INT8["onnxruntime"])
    shape = (side, side, 3)
    return [
        Candidate(name, runtime, str(folder / file), torch.get_num_threads(), shape)
        for name, (runtime, file) in files.items()
    ]


def quantise(folder: Path, batches: Sequence[Images]) -> None:
    """Quantise both exported files to int8, with the first layer of the ONNX graph in float32."""
    import onnx
    import openvino

    from resnets.deployment.engines.openvino import core

    content = (folder / MADE["onnxruntime"]).read_bytes()
    graph = onnx.load_from_string(int8_onnx.quantise_graph(content, batches, ["first"]))
    header = {entry.key: entry.value for entry in graph.metadata_props}
    save_onnx(graph, folder / MADE_INT8["onnxruntime"], header)
    model = core().read_model(folder / MADE["openvino"])
    quantised = int8_openvino.quantise_graph(model, batches, [])
    openvino.save_model(quantised, folder / MADE_INT8["openvino"], compress_to_fp16=False)


def ratio(records: Mapping[str, Record], aim: Aim) -> float:
    """Median over the rounds of the ratio of the fastest candidates."""
    ours, theirs = (
        [
            max(speed(turn, aim.batch_size) for turn in turns)
            for turns in zip(*(records[name].turns[aim.batch_size] for name in names), strict=True)
        ]
        for names in (aim.some, aim.others)
    )
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def speeds(records: Mapping[str, Record]) -> dict[str, dict[int, float]]:
    """Images per second by candidate and batch size: medians over the rounds."""
    return {
        name: {
            size: statistics.median(speed(turn, size) for turn in turns)
            for size, turns in record.turns.items()
        }
        for name, record in records.items()
    }


def show(model: str, rates: dict[str, dict[int, float]]) -> None:
    for name, by_size in rates.items():
        text = "   ".join(f"batch {size:3}: {rate:8.1f}" for size, rate in by_size.items())
        print(f"{model}  {name:18} {text} images/s")


def check_targets(
    records: Mapping[str, Record], failed: Mapping[str, str], aims: Sequence[Aim]
) -> list[dict[str, Any]]:
    """Print and return each target with the measured ratio."""
    reached = []
    for aim in aims:
        ours, theirs = " or ".join(aim.some), " or ".join(aim.others)
        name = f"{aim.model}, batch {aim.batch_size}: {ours} to {theirs}"
        if any(candidate in failed for candidate in (*aim.some, *aim.others)):
            print(f"{name:90} not measured")
            continue
        value = ratio(records, aim)
        reached.append({"name": name, "ratio": value, "aim": aim.least})
        verdict = "reached" if value >= aim.least else "not reached"
        print(f"{name:90} {value:5.2f}, aim {aim.least:.2f}: {verdict}")
    return reached


def measure(
    model: str, candidates: Sequence[Candidate], rounds: int, seconds: float, largest: int
) -> dict[str, Any]:
    """Measure the candidates of a model in turns."""
    sizes = sorted({aim.batch_size for aim in AIMS if aim.model == model} | {1})
    sizes = [size for size in sizes if size <= largest]
    program = (str(Path(__file__).resolve()), "--candidate")
    records, failed = measure_in_turns(candidates, sizes, rounds, seconds, program)
    by_name = {candidate.name: record for candidate, record in records.items()}
    rates = speeds(by_name)
    show(model, rates)
    for candidate, reason in failed.items():
        print(f"not measured: {candidate.name}: {reason}")
    missing = {candidate.name: reason for candidate, reason in failed.items()}
    aims = [aim for aim in AIMS if aim.model == model and aim.batch_size in sizes]
    return {
        "images_per_second": rates,
        "failed": missing,
        "aims": check_targets(by_name, missing, aims),
    }


def main(
    models: tuple[str, ...] = ("model 1", "model 2"),
    rounds: int = 7,
    seconds: float = 1.0,
    largest: int = 128,
    json_file: Path | None = None,
) -> None:
    """Measure how fast networks predict.

    Args:
        models: the models to measure.
        rounds: number of turns of each candidate.
        seconds: per turn and batch size.
        largest: largest batch size to measure.
        json_file: where to write all figures.
    """
    if json_file:
        writable(json_file)
    results: dict[str, Any] = {"machine": machine(), "models": {}}
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    print(f"{rounds} rounds of {seconds:g} s per batch size")
    for name in models:
        network, side = networks()[name]
        with tempfile.TemporaryDirectory() as folder:
            candidates = prepare(network, side, Path(folder) / "model")
            results["models"][name] = measure(name, candidates, rounds, seconds, largest)
    if json_file:
        write_atomically(json_file, json.dumps(results, indent=2).encode() + b"\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--candidate"]:  # the process of one candidate: see `processes`
        for engine, name in zip(ENGINES, PREDICT, strict=True):
            runtimes.RUNTIMES[name] = by_predict(engine)
        runtimes.main()
    else:
        tyro.cli(main)
