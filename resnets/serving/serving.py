"""Everything that a process needs to serve; it can be sent to another process."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

from resnets.deployment.engines import EngineName
from resnets.errors import FolderInUse, UsageError
from resnets.escaping import say
from resnets.files.outputs import writable_folder
from resnets.locks import locked
from resnets.model_path import find_model
from resnets.serving import server
from resnets.serving.access import Access
from resnets.serving.served_model import ServedModel, name_of, open_served
from resnets.serving.settings import Settings
from resnets.serving.shadow import Shadow

_ONE_SERVER = "stop that server, or take another folder: `train` and `doctor` read several"


@dataclass(frozen=True)
class Serving:
    """What to serve, and how.

    Attributes:
        paths: of the models; the first one answers where a request names none.
        engine: what computes.
        threads: that compute; 0 is the runtime's own choice.
        settings: where to listen, and the limits.
        access: who may ask.
        shadow: MODEL that is compared; None: none is.
    """

    paths: tuple[Path, ...]
    engine: EngineName
    threads: int
    settings: Settings
    access: Access
    shadow: Path | None = None

    def check(self) -> None:
        """Refuse what is wrong before any model is opened and measured, which takes seconds.

        Raises:
            UsageError: a model does not exist, two have one name, or labels cannot be stored.
        """
        if self.settings.collect is not None:
            writable_folder(self.settings.collect)
        for path in (*self.paths, *filter(None, [self.shadow])):
            find_model(path)
        names: set[str] = set()
        for path in self.paths:
            if (name := name_of(path)) in names:
                raise UsageError(f"{path}: two models are called {name}; rename one of the files")
            names.add(name)

    def __call__(self, listener: socket, begun: Callable[[], None]) -> None:
        """Open the models and serve on a socket; `begun` is called in between. For workers."""
        models = self._models()
        shadow = self._shadow(next(iter(models)))
        server.serve_on(
            listener, models, self.settings, self.access, shadow, lambda _address: begun()
        )

    def in_this_process(self, started: Callable[[str], None]) -> None:
        """Listen, open the models and serve; `started` is called with the address in between.

        A port that is in use is found before a model is opened; who connects meanwhile waits.
        """
        with closing(server.listening(self.settings)) as listener, self._alone():
            models = self._models()
            shadow = self._shadow(next(iter(models)))
            server.serve_on(listener, models, self.settings, self.access, shadow, started)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other servers out of the folder of --collect.

        Raises:
            FolderInUse: one collects labels there.
        """
        folder = self.settings.collect
        if folder is None:
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except FolderInUse as error:
                raise FolderInUse(f"--collect {error}; {_ONE_SERVER}") from None
            yield

    def _models(self) -> dict[str, ServedModel]:
        """The models by name.

        Raises:
            UsageError: one cannot be opened.
            ContentError: a file is damaged, or its golden image is computed wrong.
        """
        served: dict[str, ServedModel] = {}
        for path in self.paths:
            model = self._open(path, self.settings.max_batch)
            served[model.name] = model
            most = model.max_batch
            batches = f"batches of up to {most} images" if most > 1 else "one image at a time"
            say(f"{model.name}: {model.engine.name}, {batches}", file=sys.stderr)
            if assumed := model.engine.description.assumed_in_words:
                say(f"{model.name}: {assumed}", file=sys.stderr)
        return served

    def _shadow(self, of: str) -> Shadow | None:
        """The other network, if there is one, which is compared with the model of a name."""
        if self.shadow is None:
            return None
        model = self._open(self.shadow, 1)
        say(f"{model.name}: {model.engine.name}, compared with {of} (--shadow)", file=sys.stderr)
        return Shadow(model, of, self.settings.max_pixels)

    def _open(self, path: Path, max_batch: int) -> ServedModel:
        """A model."""
        return open_served(path, engine=self.engine, threads=self.threads, max_batch=max_batch)
