"""Metrics for Prometheus: requests, images, batches, time by phase, limits, confidence and drift.

With several processes, prometheus_client adds up what each wrote into files of a shared folder
(the variable PROMETHEUS_MULTIPROC_DIR, set before it is imported).
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Literal, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from resnets.files.reading import read_text
from resnets.serving.answers import Answer
from resnets.serving.events import Answered, Computed, Event, Responded

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES = tuple(tenth / 10 for tenth in range(1, 11))
_Mode: TypeAlias = Literal["livesum", "livemax", "livemin", "liveall"]  # over processes
_CHILDREN = 1000  # parts of metrics, by their labels, that are remembered
_Metric = TypeVar("_Metric", Counter, Histogram)
_SEVERAL = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """What a server counts and measures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counters = (Counter(*row, registry=self._registry) for row in _COUNTERS)
        self._requests, self._images, self._unreadable = counters
        histograms = (
            Histogram(name, text, labels, buckets=buckets, registry=self._registry)
            for name, text, labels, buckets in _HISTOGRAMS
        )
        self._request_seconds, self._batch_images, self._phase_seconds, self._confidence = (
            histograms
        )
        self._gauges = {
            name: Gauge(name, text, labels, registry=self._registry, multiprocess_mode=mode)
            for name, (text, labels, mode) in _GAUGES.items()
        }
        self._labelled = lru_cache(_CHILDREN)(_labelled)

    def answered(self, path: str, status: int) -> None:
        """Count a request: before its answer is sent, so that a killed process loses none."""
        self._labelled(self._requests, path, status).inc()

    def request(self, response: Responded) -> None:
        """Observe how long a request took that was answered."""
        self._labelled(self._request_seconds, response.path).observe(response.seconds)

    def observe(self, event: Event) -> None:
        """Count what happened to images."""
        match event:
            case Computed():
                self._computed(event)
            case Answered():
                decode = self._labelled(self._phase_seconds, event.model, "decode")
                for seconds in event.decoding:
                    decode.observe(seconds)
                for answer in () if event.repeated else event.answers:
                    self._answered(event.model, answer)

    def _computed(self, batch: Computed) -> None:
        """Count a batch."""
        self._labelled(self._batch_images, batch.model).observe(batch.size)
        queue = self._labelled(self._phase_seconds, batch.model, "queue")
        compute = self._labelled(self._phase_seconds, batch.model, "compute")
        for wait in batch.waits:
            queue.observe(wait)
            compute.observe(batch.seconds)

    def _answered(self, model: str, answer: Answer) -> None:
        """Count the answer for an image."""
        prediction = answer.prediction
        self._labelled(self._images, model, prediction.status).inc()
        if prediction.probability is not None:
            self._labelled(self._confidence, model).observe(prediction.probability)
        if prediction.error is not None:
            self._labelled(self._unreadable, _KINDS[answer.http_status]).inc()

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge of `_GAUGES`, without the prefix resnets_."""
        gauge = self._gauges[f"resnets_{name}"]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def forget(self, name: str, *labels: str) -> None:
        """Forget a gauge with these labels, such as of a model that is unloaded."""
        if os.environ.get(_SEVERAL):
            self.set(name, 0.0, *labels)  # files of several processes cannot be changed so
        else:
            self._gauges[f"resnets_{name}"].remove(*labels)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        if os.environ.get(_SEVERAL):
            every = CollectorRegistry()
            MultiProcessCollector(every)  # type: ignore[no-untyped-call]
            return generate_latest(every)
        return generate_latest(self._registry)


def _labelled(metric: _Metric, *labels: object) -> _Metric:
    """The part of a metric with these labels, which the library is slow to find."""
    return metric.labels(*labels)


_COUNTERS: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("resnets_requests", "Requests answered", ("path", "status")),
    (
        "resnets_images",
        "Images answered, by status: ok, unsure, unfamiliar, not calibrated, unreadable",
        ("model", "status"),
    ),
    ("resnets_unreadable_images", "Images not answered, by reason", ("kind",)),
)
_HISTOGRAMS: Sequence[tuple[str, str, tuple[str, ...], Sequence[float]]] = (
    (
        "resnets_request_seconds",
        "Time from a request's headers to its answer",
        ("path",),
        _SECONDS,
    ),
    ("resnets_batch_images", "Images of a batch", ("model",), _SIZES),
    (
        "resnets_phase_seconds",
        "Time of an image in a phase: decode and queue, with waiting, and compute of its batch",
        ("model", "phase"),
        _SECONDS,
    ),
    ("resnets_confidence", "Calibrated probability of the predictions", ("model",), _SHARES),
)
_KINDS = {413: "too large", 415: "another format", 422: "damaged"}  # of unreadable images

_GAUGES: Mapping[str, tuple[str, tuple[str, ...], _Mode]] = {
    "resnets_arriving_requests": ("Requests whose bodies are being read", (), "livesum"),
    "resnets_places_taken": (
        "Images in the server, arrived and not answered yet",
        (),
        "livesum",
    ),
    "resnets_waiting_images": ("Decoded images that wait for a batch", ("model",), "livesum"),
    "resnets_limit": ("Limits, by name", ("name",), "livemax"),
    "resnets_model": (
        "1 for each model that is served",
        ("model", "digest", "engine", "precision"),
        "livemax",
    ),
    "resnets_ready": ("1 if requests are taken", (), "livemin"),
    "resnets_drift": (
        "Distance of the mean of recent embeddings to that of the validation images, in units of "
        "a validation image's usual distance to it",
        ("model",),
        "livemax",
    ),
    "resnets_drift_images": ("Recent embeddings in resnets_drift", ("model",), "livesum"),
    "resnets_shadow_images": ("Images that --shadow answered, too", (), "livesum"),
    "resnets_shadow_same": ("Of these, with the same prediction", (), "livesum"),
    "resnets_shadow_distance": ("Sum of the distances of their probabilities", (), "livesum"),
    "resnets_shadow_skipped": ("Images left out, as the shadow was busy", (), "livesum"),
    "resnets_shadow_failed": ("Images that the shadow could not answer", (), "livesum"),
    "resnets_resident_memory_bytes": ("Resident memory of the process", (), "liveall"),
}


def resident_bytes() -> float:
    """Resident memory of this process; NaN where the system does not tell (only Linux does)."""
    resident = float("nan")
    if sys.platform != "win32":
        with suppress(OSError, ValueError, IndexError):
            pages = int(read_text("/proc/self/statm").split()[1])
            resident = pages * float(os.sysconf("SC_PAGE_SIZE"))
    return resident
