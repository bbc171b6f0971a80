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

from resnets.evaluation.predict import Prediction
from resnets.files import read_text

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
        registry = CollectorRegistry()
        self._registry = registry
        self._labelled = lru_cache(_CHILDREN)(_labelled)
        self._requests = Counter(
            "resnets_requests", "Requests answered", ("path", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "resnets_request_seconds",
            "Time from a request's headers to its answer",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter(
            "resnets_images",
            "Images answered, by status: ok, unsure, unfamiliar, not calibrated, unreadable",
            ("model", "status"),
            registry=registry,
        )
        self._unreadable = Counter(
            "resnets_unreadable_images",
            "Images not answered, by reason",
            ("kind",),
            registry=registry,
        )
        self._batch_images = Histogram(
            "resnets_batch_images",
            "Images of a batch",
            ("model",),
            buckets=_SIZES,
            registry=registry,
        )
        self._phase_seconds = Histogram(
            "resnets_phase_seconds",
            "Time of an image in a phase: decode and queue, with waiting, and compute of its batch",
            ("model", "phase"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._confidence = Histogram(
            "resnets_confidence",
            "Calibrated probability of the predictions",
            ("model",),
            buckets=_SHARES,
            registry=registry,
        )
        self._gauges = {
            name: Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)
            for name, (text, labels, mode) in _GAUGES.items()
        }

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._labelled(self._requests, path, status).inc()
        self._labelled(self._request_seconds, path).observe(seconds)

    def decoded(self, model: str, seconds: float) -> None:
        """Measure the decoding of an image."""
        self._labelled(self._phase_seconds, model, "decode").observe(seconds)

    def batch(self, model: str, size: int, waits: Sequence[float], seconds: float) -> None:
        """Measure a batch: its size, how long each image waited for it, and its computation."""
        self._labelled(self._batch_images, model).observe(size)
        queue = self._labelled(self._phase_seconds, model, "queue")
        compute = self._labelled(self._phase_seconds, model, "compute")
        for wait in waits:
            queue.observe(wait)
            compute.observe(seconds)

    def answered(self, model: str, prediction: Prediction) -> None:
        """Count the answer for an image."""
        self._labelled(self._images, model, prediction.status).inc()
        if prediction.probability is not None:
            self._labelled(self._confidence, model).observe(prediction.probability)

    def unreadable(self, kind: str) -> None:
        """Count an image that was not answered: too large, of another format, damaged ..."""
        self._labelled(self._unreadable, kind).inc()

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


_GAUGES: Mapping[str, tuple[str, tuple[str, ...], _Mode]] = {
    "resnets_places_taken": ("Images in the server, from arrival to answer", (), "livesum"),
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
