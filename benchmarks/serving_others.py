"""`resnets serve` beside LitServe and BentoML, which serve the same ONNX file.

    python3 -m venv others
    others/bin/pip install litserve bentoml onnxruntime pillow numpy
    python benchmarks/serving_others.py PHOTOS --others-python others/bin/python

These take no torch. The servers are in `benchmarks/others`, as the documentation of each shows it:
LitServe takes the file of a form or {"image": BASE64}, BentoML the files of a form or {"images":
[BASE64]}, ours raw bytes or a BYTES tensor in JSON. All decode the same photos, compute with ONNX
Runtime on one thread in batches, answer the five most probable classes, log each request, and give
up after 30 s. Ours measures at its start the largest batch that pays; the others take the same, but
at least 2, as without batches LitServe is another program. `SETTINGS_OF` has what else was chosen.

In each round the servers take turns, on one core, while what asks runs on another one:

- 32 clients: each sends the next photo when it has its answer (images a second);
- half load: photos are sent at fixed times, at half of that; latency counts from the time at which
  a photo was due (coordinated omission);
- twice that load: likewise, for long enough that a queue of 256 overflows; clients wait 10 s; how
  many requests were answered, refused (another status than 200) and lost (no answer in that time,
  or the connection was closed), and how long those took that were answered;
- memory after all that, of all processes; what they share counts once.

"alone" is decoding and computing in one loop without a server, by each one's means.
"""

import asyncio
import base64
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from serving import CLIENTS, ENGINE, bare, closed_loop, percentile, post, resnet18, send, server

from resnets import load
from resnets.deployment.engines import open_engine
from resnets.deployment.export.files import export
from resnets.evaluation.predict import read, stacked
from resnets.evaluation.source import Source
from resnets.machine import processor

HERE = Path(__file__).parent / "others"
PACKAGES = ("litserve", "bentoml", "onnxruntime", "pillow", "numpy", "uvicorn")
SMALL = "packaged"  # the network beside whose computation a request costs much
PATIENCE = 10.0  # seconds that a client waits for its answer
QUEUE = 256  # images in a server, of which ours and BentoML refuse more
STARTING = 60.0  # seconds until a server must answer
SETTINGS_OF = {
    "resnets": "defaults: a queue of 256 images",
    "litserve": "one worker, batch_timeout 0.01 s, fast_queue; it has no limit of its queue",
    "bentoml": "one worker, adaptive batches, max_latency_ms 30,000, max_concurrency 256",
}


@dataclass(frozen=True)
class Trial:
    """What to measure.

    Attributes:
        photos: folder of JPEG files.
        others_python: Python of the environment with LitServe and BentoML.
        rounds: how often everything is measured.
        seconds: of each measurement.
        json_file: where to write all figures.
        add: whether to add rounds to those of the file, so that it can be measured in parts.
    """

    photos: tyro.conf.Positional[Path]
    others_python: Path | None = None
    rounds: int = 3
    seconds: float = 4.0
    json_file: Path | None = None
    add: bool = False


@dataclass(frozen=True)
class Served:
    """What the servers serve.

    Attributes:
        model: an ONNX file.
        side: pixels of the images that it takes.
        batch: at most so many images at once.
        python: of the environment of the other servers.
        settings: a file that tells these to the other servers.
    """

    model: Path
    side: int
    batch: int
    python: Path
    settings: Path


@dataclass(frozen=True)
class Way:
    """How photos are sent to a server.

    Attributes:
        name: the idiom.
        request: a whole request of a photo.
    """

    name: str
    request: Callable[[bytes], bytes]


@dataclass
class Outcomes:
    """What became of requests: statuses, 0 for those without an answer, and seconds of the good."""

    statuses: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)


def form(name: str) -> Callable[[bytes], bytes]:
    """A function that makes the request with a photo as the file of a form."""

    def request(photo: bytes) -> bytes:
        head = f'--b0undary\r\nContent-Disposition: form-data; name="{name}"; filename="photo.jpg"'
        body = f"{head}\r\nContent-Type: image/jpeg\r\n\r\n".encode() + photo
        kind = "multipart/form-data; boundary=b0undary"
        return post("/predict", body + b"\r\n--b0undary--\r\n", kind)

    return request


def in_json(path: str, values: Callable[[str], Mapping[str, Any]]) -> Callable[[bytes], bytes]:
    """A function that makes the request with a photo in base64 in JSON."""

    def request(photo: bytes) -> bytes:
        text = base64.b64encode(photo).decode()
        return post(path, json.dumps(values(text)).encode(), "application/json")

    return request


def tensor(text: str) -> Mapping[str, Any]:
    """A photo as the Open Inference Protocol takes it."""
    value = {"name": "files", "datatype": "BYTES", "shape": [1], "data": [text]}
    return {"inputs": [value]}


def ways(who: str, model: Path) -> list[Way]:
    """How photos are sent to a server: by its idiom, and to the small network as base64 in JSON."""
    infer = f"/v2/models/{model.stem}/infer"
    table = {
        "resnets": [
            Way("raw", lambda photo: post("/predict", photo)),
            Way("base64", in_json(infer, tensor)),
        ],
        "litserve": [
            Way("form", form("image")),
            Way("base64", in_json("/predict", lambda text: {"image": text})),
        ],
        "bentoml": [
            Way("form", form("images")),
            Way("base64", in_json("/predict_base64", lambda text: {"images": [text]})),
        ],
    }
    return table[who] if model.stem == SMALL else table[who][:1]


def command(who: str, served: Served, port: int) -> tuple[list[str], str]:
    """What starts a server, and the path that says whether it is ready."""
    python = str(served.python)
    match who:
        case "resnets":
            flags = ["--port", str(port), "--threads", "1", "--engine", ENGINE]
            flags += ["--max-batch", str(served.batch)]
            words = [sys.executable, "-m", "resnets", "serve", str(served.model), *flags]
            return words, "/v2/health/ready"
        case "litserve":
            return [python, str(HERE / "litserve_server.py"), str(port)], "/health"
        case _:
            address = ["--host", "127.0.0.1", "--port", str(port)]
            words = [python, "-m", "bentoml", "serve", "bentoml_service:Photos", *address]
            return words, "/readyz"


@contextmanager
def started(who: str, served: Served, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server on the first core, once it is ready."""
    words, ready = command(who, served, port)
    own = {"OMP_NUM_THREADS": "1", "SETTINGS": str(served.settings)}
    with subprocess.Popen(
        ["taskset", "-c", "0", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=None if who == "resnets" else HERE,
        env=os.environ | own | {"BENTOML_DO_NOT_TRACK": "True", "PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:
        try:
            wait_for(process, port, ready)
            yield process
        finally:
            for pid in tree(process.pid):
                os.kill(pid, signal.SIGKILL)


def wait_for(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    """Wait until a server says that it is ready."""

    async def ready() -> bool:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request.encode())
            reply = await reader.read()
            writer.close()
        except OSError:
            return False
        return reply.startswith(b"HTTP/1.1 200")

    end = time.monotonic() + STARTING
    while not asyncio.run(ready()):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args}: it does not serve")
        time.sleep(0.2)


def offered(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Outcomes:
    """What becomes of requests that are sent at fixed times."""
    outcomes = Outcomes()

    async def main() -> None:
        free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        start = time.perf_counter() + 0.1

        async def one(place: int) -> None:
            due, status, connection = start + place / rate, 0, None
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            try:
                async with asyncio.timeout(max(0.0, due + PATIENCE - time.perf_counter())):
                    connection = free.pop() if free else await asyncio.open_connection(*address)
                    status = await send(*connection, requests[place % len(requests)])
                    free.append(connection)
            except (OSError, EOFError, AssertionError):  # a TimeoutError is an OSError
                if connection is not None:
                    connection[1].transport.abort()
            outcomes.statuses[status] += 1
            if status == 200:
                outcomes.times.append(time.perf_counter() - due)

        await asyncio.gather(*(one(place) for place in range(max(20, int(rate * seconds)))))
        for _, writer in free:
            writer.close()

    address = ("127.0.0.1", port)
    asyncio.run(main())
    return outcomes


def tree(pid: int) -> list[int]:
    """A process and its children, and theirs."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text(encoding="utf-8").split()]
    return [pid, *(each for child in children for each in tree(child))]


def resident(pid: int) -> float:
    """MiB of memory of a process and its children; each page of several counts in part (PSS)."""
    total = 0
    for each in tree(pid):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def figures_of(port: int, way: Way, photos: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """The figures of a way to ask a server that runs."""
    requests = [way.request(photo) for photo in photos]
    address = ("127.0.0.1", port)
    closed_loop(address, requests, CLIENTS, 1.0)  # to warm up
    rate = closed_loop(address, requests, CLIENTS, seconds)["rate"]
    half = offered(port, requests, rate / 2, seconds)
    figures = {
        "images/s": rate,
        "half load p50 ms": 1e3 * percentile(half.times, 50),
        "half load p99 ms": 1e3 * percentile(half.times, 99),
        "half load requests": half.statuses.total(),
        "half load not answered": half.statuses.total() - half.statuses[200],
    }
    # in which three times as many images as a queue takes come beyond what is answered
    long = max(seconds, 3 * QUEUE / rate)
    return figures | overload_of(offered(port, requests, 2 * rate, long))


def overload_of(outcomes: Outcomes) -> dict[str, Any]:
    """The figures of requests that were twice too many."""
    statuses, times = outcomes.statuses, outcomes.times or [float("nan")]
    answered, lost = statuses[200], statuses[0]
    return {
        "overload requests": statuses.total(),
        "overload answered": answered,
        "overload refused": statuses.total() - answered - lost,
        "overload lost": lost,
        "overload p50 ms": 1e3 * percentile(times, 50),
        "overload p99 ms": 1e3 * percentile(times, 99),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
    }


def alone(served: Served, photos: Sequence[Path], seconds: float) -> dict[str, float]:
    """Images a second of decoding and computing without a server, by our means and theirs."""
    contents = [photo.read_bytes() for photo in photos]
    sizes = (1, max(2, served.batch))
    means = [statistics.mean(bare(str(served.model), contents, size, seconds)) for size in sizes]
    rates = [size / each for size, each in zip(sizes, means, strict=True)]
    return {"resnets": max(rates), "pillow": theirs(served, photos)["images/s"]}


def theirs(served: Served, photos: Sequence[Path]) -> dict[str, Any]:
    """What Pillow and ONNX Runtime do in the other environment."""
    words = [served.python, HERE / "pillow_onnx.py", served.settings, *photos]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def rounds_of(
    served: Served,
    files: Sequence[Path],
    trial: Trial,
    first: int,
    say: Callable[[dict[str, Any]], None],
) -> None:
    """Measure all servers in turns, each time in another order, from a number of the round on."""
    photos, names = [file.read_bytes() for file in files], list(SETTINGS_OF)
    for number in range(first, first + trial.rounds):
        base = {"model": served.model.stem, "round": number, "load": os.getloadavg()[0]}
        os.sched_setaffinity(0, {0})
        for who, rate in alone(served, files[:40], trial.seconds / 2).items():
            say(base | {"server": who, "way": "alone", "images/s": rate})
        os.sched_setaffinity(0, {1})
        for who in names[number % 3 :] + names[: number % 3]:
            port = 8200 + number % 30 * 3 + names.index(who)
            with started(who, served, port) as process:
                for way in ways(who, served.model):
                    figures = figures_of(port, way, photos, trial.seconds)
                    memory = {"memory MiB": resident(process.pid)}
                    say(base | {"server": who, "way": way.name} | figures | memory)
        os.sched_setaffinity(0, {0, 1})


def models(folder: Path) -> dict[Path, int]:
    """The ONNX files, with the pixels of a side of the images that they take."""
    packaged = folder / f"{SMALL}.onnx"
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    export(load("resnet20_cifar10"), packaged, "onnx", [image], "a random image")
    files = [packaged, resnet18(folder)]
    return {
        file: open_engine(str(file), ENGINE, 1).description.preprocessing.resize for file in files
    }


def prepared(model: Path, side: int, python: Path, seconds: float, batch: int) -> Served:
    """What to serve, in batches of a size; 0: that which our server measures to be the best."""
    if not batch:
        with server(str(model), 0) as (_, batch):
            pass
    settings = model.with_suffix(".json")
    about = {"model": str(model), "side": side, "batch": max(2, batch), "seconds": seconds / 2}
    settings.write_text(json.dumps(about), encoding="utf-8")
    return Served(model, side, batch, python, settings)


def agreement(served: Served, photos: Sequence[Path]) -> float:
    """The share of photos of which both decoders and runtimes predict the same class."""
    engine = open_engine(str(served.model), ENGINE, 1)
    preprocessing = engine.description.preprocessing
    frames = [read(Source(photo.name, photo.read_bytes()), preprocessing) for photo in photos]
    ours = engine.probabilities(stacked(frames)).argmax(1)  # type: ignore[arg-type]
    return float(np.mean(ours == theirs(served, photos)["classes"]))


def versions(python: Path) -> dict[str, str]:
    """The versions of what serves, in this environment and in the other one."""
    code = f"from importlib.metadata import version as v; print(*map(v, {PACKAGES}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr.strip().splitlines()[-1]}; {HOW}")
    own = {f"resnets' {name}": version(name) for name in ("onnxruntime", "uvicorn")}
    return dict(zip(PACKAGES, done.stdout.split(), strict=True)) | own


HOW = "pip install litserve bentoml onnxruntime pillow numpy into an environment of their own"


def earlier(trial: Trial, about: dict[str, Any]) -> dict[str, Any]:
    """What the file has, if rounds are to be added to it, else what is known before the first."""
    if not trial.add or trial.json_file is None or not trial.json_file.exists():
        return about | {"models": {}, "rounds": []}
    result = dict(json.loads(trial.json_file.read_text(encoding="utf-8")))
    if other := [name for name, value in about.items() if result.get(name) != value]:
        raise SystemExit(f"{trial.json_file}: other {', '.join(other)} than now; leave out --add")
    return result


def main() -> None:
    """Measure, and write every round."""
    trial = tyro.cli(Trial, description=__doc__)
    if trial.others_python is None:
        print(f"skipped: no --others-python PATH; {HOW}")
        return
    python = trial.others_python.absolute()
    files = sorted(trial.photos.glob("*.[jJ][pP]*[gG]"))
    about = {"machine": processor(), "versions": versions(python), "settings": SETTINGS_OF}
    result = earlier(trial, about | {"photos": len(files), "patience": PATIENCE})
    rows, known = result["rounds"], result["models"]
    first = 1 + max((row["round"] for row in rows), default=-1)

    def say(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for model, side in models(Path(folder)).items():
            batch = known.get(model.stem, {}).get("max_batch", 0)
            served = prepared(model, side, python, trial.seconds, batch)
            if not batch:
                same = agreement(served, files[:100])
                known[model.stem] = {"side": side, "max_batch": served.batch, "same class": same}
                print(json.dumps(known[model.stem]), flush=True)
            rounds_of(served, files, trial, first, say)
    if trial.json_file is not None:
        text = json.dumps(result, indent=1) + "\n"
        trial.json_file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
