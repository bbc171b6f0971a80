"""What the routes work with: the models that are served, and the limits."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from starlette.exceptions import HTTPException

from resnets.serving.access import Access, Keys
from resnets.serving.answering import Answering
from resnets.serving.batching import Places, QueueFull
from resnets.serving.collection import Collection
from resnets.serving.credentials import Credentials, Watched
from resnets.serving.events import Events, Responded
from resnets.serving.explaining import Explaining
from resnets.serving.metrics import Metrics, resident_bytes
from resnets.serving.reloading import Reloading
from resnets.serving.served_model import ServedModel
from resnets.serving.settings import Settings
from resnets.serving.shadow import Shadow

_MEASURED_EVERY = 2.0  # seconds
_STOPPING = "the server is stopping"
_NO_MODEL = "no model is loaded"


class Server:
    """The models that are served, and the limits; what the routes work with.

    Args:
        models: by name; the first one answers where none is named.
        settings: the limits.
        access: who may ask.
        shadow: another network that is compared; None: none is.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        settings: Settings,
        access: Access | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.models = dict(models)
        self._names = tuple(models)
        self.unloaded: dict[str, Callable[[], ServedModel]] = {}  # what opens them again
        self.settings = settings
        self.access = access or Access()
        self.credentials = Credentials()
        if self.access.keys.path is not None:
            self.credentials.watch(self._keys_of(self.access.keys.path))
        self.metrics = Metrics()
        self.answering = Answering(settings)
        self.shadow = shadow
        if shadow is not None:
            self.answering.answered = shadow.offer
        self.bodies = Places(settings.all_bodies)  # bytes in memory
        self._arriving = 0  # requests
        self.explaining = Explaining(self.answering)
        self.collection = (
            Collection(settings.collect, settings.collect_bytes) if settings.collect else None
        )
        self.loading = asyncio.Lock()  # one model at a time: each takes memory and all cores
        self.reloading = Reloading(self.models, self.replace, self.loading)
        self.ready = False
        self.stopping = False
        for name, limit in settings.limits().items():
            self.metrics.set("limit", limit, name)
        if self.access.rate is not None:
            self.metrics.set("limit", self.access.rate.rate, "requests_per_second")
        self.responses: Events[Responded] = Events(self.metrics.request, self._note_latency)
        for model in self.models.values():
            model.events.observers.append(self.metrics.observe)

    def _keys_of(self, path: Path) -> Watched[Keys]:
        """The file of the keys, which are used as they are now."""

        def read() -> tuple[tuple[bytes, ...], Keys]:
            keys = Keys.of_file(path)
            return keys.digests, keys

        def use(keys: Keys) -> None:
            self.access = replace(self.access, keys=keys)

        return Watched((path,), read, use, self.access.keys.digests)

    @property
    def process(self) -> dict[str, dict[str, int]]:
        """Which process tells something that it knows of itself alone; empty if there is one."""
        several = self.settings.workers > 1
        return {"process": {"id": os.getpid(), "of": self.settings.workers}} if several else {}

    @property
    def unready(self) -> str | None:
        """Why no request is taken; None where requests are."""
        if self.stopping:
            return _STOPPING
        if not self.ready:
            return "the server is starting"
        return None if self.models else _NO_MODEL

    def look(self) -> None:
        """Look at once for changes of all files; from any thread or signal."""
        self.reloading.ask()
        self.credentials.ask()

    def stop(self) -> None:
        """Take no further request; what is in flight is finished."""
        self.ready, self.stopping = False, True

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While the body of a request arrives.

        It is in flight, but takes no place yet: clients that send slowly would keep out all others.
        What has arrived is limited by `bodies`.

        Raises:
            QueueFull: no place is free, so that its body need not be read.
            HTTPException: 503, the server is stopping.
        """
        if self.stopping:
            headers = {"Retry-After": "1", "Connection": "close"}
            raise HTTPException(503, _STOPPING, headers)
        if self.answering.places.free < 1:
            raise QueueFull
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    @property
    def in_flight(self) -> int:
        """Number of images that are to be answered, and of requests that arrive."""
        return self._arriving + self.answering.places.taken

    def replace(self, model: ServedModel) -> None:
        """Let a model take the place of that of the same name, for requests that come from now.

        The models keep the order that they had at the start: the first one answers by default.
        """
        if (old := self.models.get(model.name)) is not None:
            self._let_go(old)
        model.events.observers.append(self.metrics.observe)
        self.models[model.name] = model
        for name in self._names:
            if name in self.models:
                self.models[name] = self.models.pop(name)

    def unload(self, model: ServedModel) -> None:
        """Take no further request for a model, which can be opened again."""
        if model.reopen is not None:
            self.unloaded[model.name] = model.reopen
        del self.models[model.name]
        self.metrics.forget("limit", f"max_batch of {model.name}")
        for name in ("waiting_images", "drift", "drift_images"):
            self.metrics.forget(name, model.name)
        self._let_go(model)

    def _let_go(self, model: ServedModel) -> None:
        """Free a model that requests no longer find, once none uses it any more."""
        model.events.count()
        self.metrics.forget("model", *model.identity)
        self.reloading.let_go(model)

    def model(self, name: str | None) -> ServedModel:
        """The model of a name; the first one without.

        Raises:
            HTTPException: 404, there is none of that name.
        """
        if not self.models:
            raise HTTPException(404, _NO_MODEL)
        there_are = f"there are {', '.join(self.models)}"
        if name is None and self._names[0] not in self.models:  # no other one in its place
            raise HTTPException(404, f"{self._names[0]} is unloaded; name a model: {there_are}")
        name = self._names[0] if name is None else name
        if name not in self.models:
            raise HTTPException(404, f"no model {name!r}; {there_are}")
        return self.models[name]

    def _note_latency(self, response: Responded) -> None:
        """Note how long a request took whose images a model answered."""
        if response.model in self.models:
            self.models[response.model].recent.add(response.seconds)

    async def keep_measuring(self) -> None:
        """Measure until cancelled: of several processes one is asked, and tells of all."""
        while True:
            self.measure()
            await asyncio.sleep(_MEASURED_EVERY)

    def count(self) -> None:
        """Have everything counted that waits for it."""
        self.responses.count()
        for model in self.models.values():
            model.events.count()

    def measure(self) -> None:
        """Set the gauges to what they measure now."""
        metrics = self.metrics
        self.count()
        metrics.set("resident_memory_bytes", resident_bytes())
        metrics.set("ready", self.unready is None)
        metrics.set("places_taken", self.answering.places.taken)
        metrics.set("arriving_requests", self._arriving)
        if self.shadow is not None:
            for name, value in asdict(self.shadow.agreement).items():
                metrics.set(f"shadow_{name}", value)
        for model in self.models.values():
            metrics.set("limit", model.max_batch, f"max_batch of {model.name}")
            metrics.set("waiting_images", model.batcher.waiting, model.name)
            metrics.set("model", 1, *model.identity)
            if (distance := model.drift.distance) is not None:
                metrics.set("drift", distance, model.name)
                metrics.set("drift_images", model.drift.images, model.name)

    def close(self) -> None:
        """Let go of the threads and the models."""
        self.answering.close()
        if self.shadow is not None:
            self.shadow.close()
        for model in self.models.values():
            model.close()
