"""What the routes work with: the models that are served, and the limits."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

from resnets.serving.answering import Answering
from resnets.serving.explaining import Explaining
from resnets.serving.served_model import ServedModel
from resnets.serving.settings import Settings


class Server:
    """The models that are served, and the limits; what the routes work with.

    Args:
        models: by name; the first one answers where none is named.
        settings: the limits.
    """

    def __init__(self, models: Mapping[str, ServedModel], settings: Settings) -> None:
        self.models = dict(models)
        self.settings = settings
        self.answering = Answering(settings)
        self.explaining = Explaining(self.answering)
        self.ready = False

    def model(self, name: str | None) -> ServedModel:
        """The model of a name; the first one without.

        Raises:
            HTTPException: 404, there is none of that name.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise HTTPException(404, f"no model {name!r}; there are {', '.join(self.models)}")
        return self.models[name]

    def close(self) -> None:
        """Let go of the threads and the models."""
        self.answering.close()
        for model in self.models.values():
            model.close()
