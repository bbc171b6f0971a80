"""The server beside its own engine: images a second, latency of one client and at half load.

    python benchmarks/serving.py PHOTOS [--rounds 5] [--json-file results/serving.json]

Two networks: an untrained ResNet-18 at 224 pixels, exported to ONNX, and the packaged one. In each
round these take turns several times, for some seconds each, since a processor's speed may change by
several percent within a minute; on one core, while what asks runs on another one:

- bare: decoding and the engine over the same bytes in one loop, one image or a batch at a time;
- server, 32 clients: each sends the next photo when it has its answer (images a second);
- server, one client: likewise (latency of one image), by a plain socket, as an event loop would add
  its own part of a millisecond to each answer; it takes turns with bare every second or so, and
  what the server adds is the median of the differences photo by photo, since photos and the
  processor's speed differ by more than that. What it adds to its own decoding and computing is
  counted, too, by the seconds that its /metrics tells of both: they are of the same requests, so
  that a processor whose speed changes between turns changes nothing;
- server, half load: photos are sent at fixed times, at half of the images a second of the first;
  latency counts from the time at which a photo was due, so that a server that stalls cannot hide
  how long those that were due meanwhile would have waited (coordinated omission).

- server, half load, one photo: the same with the photo of median size again and again, beside bare
  with that photo. This is what a server adds to the latency of one image: photos differ in size,
  and where the slowest one in a hundred takes three times as long as most in a loop of its own, no
  server can answer it sooner.

Ratios are medians of the rounds' own.
"""

import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from resnets.deployment.engines import open_engine
from resnets.deployment.export.files import export
from resnets.evaluation.predict import read, stacked
from resnets.evaluation.source import Source
from resnets.images import Preprocessing
from resnets.machine import processor
from resnets.model_file import Description, Model
from resnets.networks import build

CLIENTS = 32
SLICES = 4  # in which everything takes turns in a round
TURNS = 4  # that one client and the engine take in each of them
ENGINE = "onnxruntime"


@dataclass(frozen=True)
class Trial:
    """What to measure.

    Attributes:
        photos: folder of JPEG files.
        rounds: how often everything is measured.
        seconds: of each measurement in a round.
        json_file: where to write all figures.
    """

    photos: tyro.conf.Positional[Path]
    rounds: int = 5
    seconds: float = 10.0
    json_file: Path | None = None


def resnet18(folder: Path) -> Path:
    """An untrained ResNet-18 for 224 pixels as an ONNX file."""
    torch.manual_seed(0)
    network = build("resnet18").eval()
    names = tuple(f"class {place}" for place in range(1000))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocessing = Preprocessing(224, 256, mean, std)
    about = Description(network.architecture.to_dict(), names, preprocessing)
    file = folder / "resnet18.onnx"
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    export(Model(network, about), file, "onnx", [image], "a random image")
    return file


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def bare(model: str, photos: Sequence[bytes], batch: int, seconds: float) -> list[float]:
    """Seconds of each batch: decoding and the engine, in one loop."""
    return Bare(model).times(photos, batch, seconds)[1:]


class Bare:
    """Decoding and the engine, without a server.

    Args:
        model: MODEL.
    """

    def __init__(self, model: str) -> None:
        self._engine = open_engine(model, ENGINE, 1)

    def times(self, photos: Sequence[bytes], batch: int, seconds: float) -> list[float]:
        """Seconds of each batch, in one loop."""
        preprocessing = self._engine.description.preprocessing
        times: list[float] = []
        place, end = 0, time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end or len(times) < 3:
            some = [photos[(place + n) % len(photos)] for n in range(batch)]
            frames = [read(Source("photo", content), preprocessing) for content in some]
            self._engine.probabilities(stacked(frames))  # type: ignore[arg-type]
            times.append(time.perf_counter() - begin)
            place += batch
        return times


def post(path: str, body: bytes, kind: str = "application/octet-stream") -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def ask(host: str, port: int, next_request: Callable[[], bytes | None]) -> list[float]:
    """Send requests over one connection until there is none. Returns the latencies in seconds."""
    reader, writer = await asyncio.open_connection(host, port)
    times = []
    while (request := next_request()) is not None:
        begin = time.perf_counter()
        if (status := await send(reader, writer, request)) != 200:
            raise RuntimeError(f"a request was answered {status}")
        times.append(time.perf_counter() - begin)
    writer.close()
    return times


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request and read the response. Returns its status."""
    writer.write(request)
    reply = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", reply, re.IGNORECASE)
    assert length is not None
    await reader.readexactly(int(length[1]))
    return int(reply.split(b" ", 2)[1])


def closed_loop(
    address: tuple[str, int], requests: Sequence[bytes], clients: int, seconds: float
) -> Any:
    """Images a second and latencies of clients that ask as soon as they are answered."""
    end, sent = time.perf_counter() + seconds, 0

    def next_request() -> bytes | None:
        nonlocal sent
        sent += 1
        return requests[sent % len(requests)] if time.perf_counter() < end else None

    async def main() -> list[float]:
        parts = await asyncio.gather(*(ask(*address, next_request) for _ in range(clients)))
        return [each for part in parts for each in part]

    begin = time.perf_counter()
    times = asyncio.run(main())
    return {"rate": len(times) / (time.perf_counter() - begin), "times": times}


def one_client(address: tuple[str, int], requests: Sequence[bytes], seconds: float) -> list[float]:
    """Latencies of a client that asks as soon as it is answered."""
    times: list[float] = []
    with socket.create_connection(address) as connection, connection.makefile("rb") as replies:
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end or len(times) < 3:
            connection.sendall(requests[len(times) % len(requests)])
            status, length = replies.readline(), 0
            while (line := replies.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            replies.read(length)
            times.append(time.perf_counter() - begin)
            if status.split(b" ", 2)[1] != b"200":
                raise RuntimeError(f"a request was answered {status!r}")
    return times


def open_loop(
    address: tuple[str, int], requests: Sequence[bytes], rate: float, seconds: float
) -> Any:
    """Latencies of requests sent at fixed times, each from the time at which it was due."""

    async def main() -> list[float]:
        free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        start, times = time.perf_counter() + 0.1, []

        async def one(place: int) -> None:
            due = start + place / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            connection = free.pop() if free else await asyncio.open_connection(*address)
            if (status := await send(*connection, requests[place % len(requests)])) != 200:
                raise RuntimeError(f"a request was answered {status}")
            times.append(time.perf_counter() - due)
            free.append(connection)

        await asyncio.gather(*(one(place) for place in range(max(20, int(rate * seconds)))))
        for _, writer in free:
            writer.close()
        return times

    return {"times": asyncio.run(main())}


@contextmanager
def server(model: str, core: int) -> Iterator[tuple[tuple[str, int], int]]:
    """The address of `resnets serve` on one core, and its largest batch."""
    command = [sys.executable, "-m", "resnets", "serve", model, "--port", "0", "--threads", "1"]
    command += ["--engine", ENGINE, "--timeout", "120"]
    with (
        tempfile.NamedTemporaryFile() as log,  # a pipe would have to be read
        subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process,
    ):
        try:
            while not (
                match := re.search(r"http://(\S+):(\d+)", text := Path(log.name).read_text("utf-8"))
            ):
                if process.poll() is not None:
                    raise RuntimeError(text)
                time.sleep(0.1)
            yield (match[1], int(match[2])), max_batch(match[0])
        finally:
            process.kill()


def max_batch(address: str) -> int:
    """The largest batch of a server, which it measured at its start."""
    with urllib.request.urlopen(f"{address}/metrics") as response:
        match = re.search(r'"max_batch of [^"]*"} (\d+)', response.read().decode())
    assert match is not None
    return int(match[1])


def decoding_and_computing(address: tuple[str, int]) -> float:
    """Seconds that a server has decoded and computed since its start."""
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address)) as response:
        text = response.read().decode()
    phases = re.findall(r'resnets_phase_seconds_sum{.*phase="(decode|compute)"} (\S+)', text)
    return sum(float(seconds) for _, seconds in phases)


def round_of(model: str, photos: Sequence[bytes], seconds: float) -> dict[str, float]:
    """The figures of one round for a network, and their ratios."""
    with server(model, 0) as (address, batch):
        slices = Slices(model, photos, address, batch)
        slices.warm_up()
        for number in range(SLICES):
            slices.measure(number, seconds / SLICES)
    image, of_same = statistics.median(slices.one), statistics.median(slices.one_of_same)
    singly = 1 / statistics.mean(slices.one)
    rate = max(singly, batch / statistics.mean(slices.several))
    busy, alone = statistics.mean(slices.rates), statistics.median(slices.alone)
    return {
        "max_batch": batch,
        "bare images/s": rate,
        "bare images/s one at a time": singly,
        "server images/s": busy,
        "server of bare": busy / rate,
        "server of bare one at a time": busy / singly,
        "bare ms": 1e3 * image,
        "bare p99 ms": 1e3 * percentile(slices.one, 99),
        "one client ms": 1e3 * alone,
        "one client minus bare ms": 1e3 * statistics.median(slices.added),
        "one client minus its decode and compute ms": 1e3 * statistics.mean(slices.around),
        "half load p50 ms": 1e3 * percentile(slices.half, 50),
        "half load p99 ms": 1e3 * percentile(slices.half, 99),
        "p99 at half load of one image": percentile(slices.half, 99) / image,
        "p99 at half load of bare p99": percentile(slices.half, 99) / percentile(slices.one, 99),
        "one photo bare ms": 1e3 * of_same,
        "one photo half load p99 ms": 1e3 * percentile(slices.half_of_same, 99),
        "one photo p99 of bare": percentile(slices.half_of_same, 99) / of_same,
    }


class Slices:
    """What was measured in the slices of a round; times in seconds.

    Args:
        model: MODEL.
        photos: JPEG files.
        address: of the server.
        batch: its largest.

    Attributes:
        one: decoding and the engine, one image at a time.
        several: likewise, a batch at a time.
        one_of_same: likewise, one image at a time, always the same photo.
        rates: of the server, in images a second.
        alone: latencies of one client.
        added: these, less the times of decoding and the engine for the same photos.
        around: likewise, less the server's own times of decoding and the engine: means of turns.
        half: latencies at half load.
        half_of_same: likewise, always the same photo.
    """

    def __init__(
        self, model: str, photos: Sequence[bytes], address: tuple[str, int], batch: int
    ) -> None:
        self._photos, self._address, self._batch = photos, address, batch
        self._same = [sorted(photos, key=len)[len(photos) // 2]]
        with on_core(0):
            self._bare = Bare(model)
        self.one: list[float] = []
        self.several: list[float] = []
        self.one_of_same: list[float] = []
        self.rates: list[float] = []
        self.alone: list[float] = []
        self.added: list[float] = []
        self.around: list[float] = []
        self.half: list[float] = []
        self.half_of_same: list[float] = []

    def warm_up(self) -> None:
        """Have both compute before anything counts."""
        with on_core(0):
            self._bare.times(self._photos, self._batch, 1.0)
        with on_core(1):
            closed_loop(self._address, [post("/predict", self._same[0])], CLIENTS, 2.0)

    def measure(self, number: int, seconds: float) -> None:
        """Measure everything once, by photos that begin elsewhere in each slice."""
        start = number * len(self._photos) // SLICES
        photos = [*self._photos[start:], *self._photos[:start]]
        requests = [post("/predict", photo) for photo in photos]
        same = [post("/predict", photo) for photo in self._same]
        for part in range(TURNS):
            self._one_client(photos[part * 20 :], requests[part * 20 :], seconds / TURNS)
        with on_core(0):
            self.several += self._bare.times(photos, self._batch, seconds)
            self.one_of_same += self._bare.times(self._same, 1, seconds)
        with on_core(1):
            rate = closed_loop(self._address, requests, CLIENTS, seconds)["rate"]
            self.rates.append(rate)
            self.half += open_loop(self._address, requests, rate / 2, seconds)["times"]
            rate_of_same = closed_loop(self._address, same, CLIENTS, seconds)["rate"]
            self.half_of_same += open_loop(self._address, same, rate_of_same / 2, seconds)["times"]

    def _one_client(
        self, photos: Sequence[bytes], requests: Sequence[bytes], seconds: float
    ) -> None:
        """Compute photos without the server, and ask the server for the same ones."""
        with on_core(0):
            bare = self._bare.times(photos, 1, seconds)
        with on_core(1):
            inside = -decoding_and_computing(self._address)
            asked = one_client(self._address, requests, seconds)
            inside += decoding_and_computing(self._address)
        self.one += bare
        self.alone += asked
        self.added += [ours - its for ours, its in zip(asked, bare, strict=False)]
        self.around.append((sum(asked) - inside) / len(asked))


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run this process on one core while the context is open."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> None:
    """Measure, print medians, and write every round."""
    trial = tyro.cli(Trial, description=__doc__)
    files = sorted(trial.photos.glob("*.[jJ][pP]*[gG]"))
    photos = [file.read_bytes() for file in files]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = {"resnet18 at 224": str(resnet18(Path(folder))), "packaged": "resnet20_cifar10"}
        for number in range(trial.rounds):
            for name, model in models.items():
                figures = round_of(model, photos, trial.seconds)
                rows.append({"model": name, "round": number, "load": os.getloadavg()[0]} | figures)
                print(json.dumps(rows[-1]), flush=True)
            if trial.json_file is not None:
                result = {"machine": processor(), "photos": len(photos), "rounds": rows}
                text = json.dumps(result, indent=1) + "\n"
                trial.json_file.write_text(text, encoding="utf-8")
    for name in models:
        mine = [row for row in rows if row["model"] == name]
        print(f"\n{name}: medians of {trial.rounds} rounds")
        for key in [key for key in mine[0] if key not in ("model", "round", "load")]:
            print(f"  {key:42} {statistics.median(row[key] for row in mine):.4g}")


if __name__ == "__main__":
    main()
