"""The HTTP application: routes, what they answer, and errors as JSON.

Every error is {"error": REASON} with the status that says whose it is.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from resnets.format import byte_size
from resnets.serving import control, inference_protocol, openapi
from resnets.serving.access import Access, Refused
from resnets.serving.answers import Answer, Upload
from resnets.serving.batching import DeadlinePassed, QueueFull
from resnets.serving.collecting import ROUTES as COLLECT
from resnets.serving.collecting import offer
from resnets.serving.explaining import refuse_unexplained
from resnets.serving.gate import Gate
from resnets.serving.metrics import CONTENT_TYPE
from resnets.serving.page import ROUTES as PAGE
from resnets.serving.requests import (
    ANSWERED,
    body_of,
    deadline_of,
    parameter,
    refuse_unknown,
    switch,
    uploads_of,
    while_wanted,
)
from resnets.serving.responses import JSON, readiness
from resnets.serving.served_model import ServedModel
from resnets.serving.settings import Settings
from resnets.serving.shadow import Shadow
from resnets.serving.state import Server

_GONE = 499  # nginx's code for a client that went away; nobody reads it but the log
_RETRY_AFTER = "1"  # seconds


def create_app(
    models: Mapping[str, ServedModel],
    settings: Settings,
    access: Access | None = None,
    shadow: Shadow | None = None,
) -> Starlette:
    """The ASGI application that serves some models.

    Args:
        models: by name; the first one answers where none is named.
        settings: the limits.
        access: who may ask.
        shadow: another network that is compared; None: none is.
    """
    server = Server(models, settings, access, shadow)
    app = _Application(
        routes=[
            Route("/predict", _predict, methods=["POST"]),
            Route("/metrics", _metrics),
            Route("/v2/health/live", _live),
            Route("/v2/health/ready", _ready),
            *inference_protocol.ROUTES,
            *PAGE,
            *control.ROUTES,
            *openapi.ROUTES,
            *COLLECT,
        ],
        lifespan=_lifespan,
    )
    app.state.server = server
    return app


class _Application(Starlette):
    """An application with the gate in the place of Starlette's own middleware for errors.

    Starlette's would wrap every message of every request once more, and have nothing left to do.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """What each request passes."""
        server: Server = self.state.server
        gate = Gate(self.router, server, _refusal)
        if not server.access.origins:
            return gate
        return CORSMiddleware(
            gate,
            allow_origins=server.access.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """From the start of an application to its end."""
    server: Server = app.state.server
    await server.credentials.begin()
    server.ready = True
    tasks = [
        asyncio.create_task(server.credentials.run()),
        asyncio.create_task(server.reloading.run()),
        asyncio.create_task(server.keep_measuring()),
    ]
    try:
        yield
    finally:
        server.ready = False
        for task in tasks:
            task.cancel()
        server.close()


async def _metrics(request: Request) -> Response:
    """The metrics as Prometheus reads them."""
    server: Server = request.app.state.server
    server.measure()
    return Response(server.metrics.text(), media_type=CONTENT_TYPE)


async def _predict(request: Request) -> Response:
    """Predict the images of a request."""
    server: Server = request.app.state.server
    refuse_unknown(request, _PARAMETERS)
    model = server.model(request.query_params.get("model"))
    asked = _asked(request, model, deadline_of(request, server.settings))
    places = server.answering.places
    with server.arriving():
        body = await body_of(request, server.settings.max_body, asked.deadline)
    places.take()
    taken = 1
    try:
        uploads = await uploads_of(request, body, places.total)
        del body  # the files of a form are copies
        places.take(len(uploads) - 1)
        taken = len(uploads)
        work = _answers(server, model, uploads, asked)
        answers, pictures = await while_wanted(request, work, asked.deadline)
    finally:
        places.give_back(taken)
    request.scope[ANSWERED] = model.name
    await offer(server, model, uploads, answers)
    if pictures and _PNG in request.headers.get("accept", ""):
        return _only_picture(answers, pictures)
    predictions = [_as_json(answer, asked.features) for answer in answers]
    for prediction, picture in zip(predictions, pictures, strict=False):
        prediction["explanation"] = None if picture is None else b64encode(picture).decode()
    status = answers[0].http_status if len(answers) == 1 else 200
    identity = {"name": model.name, "digest": model.digest}
    values = {"model": identity, "predictions": predictions}
    if asked.features:  # thousands of numbers, which would stop the event loop
        return await server.answering.in_pool(JSON, values, status, deadline=asked.deadline)
    return JSON(values, status)


@dataclass(frozen=True)
class _Asked:
    """What a request asks for.

    Attributes:
        top: how many of the most probable classes.
        features: whether the features of the network.
        explanation: whether a heat map.
        repeated: whether the images were sent before.
        deadline: by the event loop's clock, in seconds.
    """

    top: int
    features: bool
    explanation: bool
    repeated: bool
    deadline: float


def _asked(request: Request, model: ServedModel, deadline: float) -> _Asked:
    """What a request asks for in its query.

    Raises:
        HTTPException: 400, it makes no sense; 406, it takes no answer but a heat map, and asks for
            none; 501, the model cannot do it.
    """
    explanation = switch(request, "explain")
    if explanation:
        refuse_unexplained(model)
    elif _takes_pictures_only(request):
        raise HTTPException(406, _NO_PICTURE)
    classes = len(model.description.class_names)
    top = parameter(request, "top", 1, classes, min(_TOP, classes))
    features, repeated = switch(request, "features"), switch(request, "repeated")
    return _Asked(top, features, explanation, repeated, deadline)


def _takes_pictures_only(request: Request) -> bool:
    """Whether a client accepts PNG and no JSON."""
    ranges = request.headers.get("accept", "").lower().split(",")
    kinds = {each.partition(";")[0].strip() for each in ranges}
    return _PNG in kinds and not kinds & {"*/*", "application/*", "application/json"}


async def _answers(
    server: Server, model: ServedModel, uploads: Sequence[Upload], asked: _Asked
) -> tuple[list[Answer], list[bytes | None]]:
    """The answers for images, and their heat maps as PNG files if they are asked for."""
    answers = await server.answering.answers(
        model, uploads, asked.top, asked.features, asked.repeated
    )
    pictures = [
        await server.explaining.picture(model, upload, answer, asked.deadline)
        for upload, answer in zip(uploads, answers, strict=True)
        if asked.explanation
    ]
    return answers, pictures


def _only_picture(answers: Sequence[Answer], pictures: Sequence[bytes | None]) -> Response:
    """The heat map alone, for a client that accepts PNG.

    Raises:
        HTTPException: there are several images, or the one cannot be read.
    """
    if len(pictures) != 1:
        raise HTTPException(406, f"{_PNG} is for one image; for several accept application/json")
    if pictures[0] is None:
        raise HTTPException(answers[0].http_status, answers[0].prediction.error)
    return Response(pictures[0], media_type=_PNG)


_PARAMETERS = ("top", "model", "features", "explain", "repeated")  # of the query of /predict
_TOP = 5  # classes listed unless the request says otherwise
_PNG = "image/png"
_NO_PICTURE = f"{_PNG} is the heat map, which ?explain=1 asks for; else accept application/json"


def _as_json(answer: Answer, with_features: bool) -> dict[str, Any]:
    """The answer for one image as JSON values."""
    prediction = answer.prediction
    values: dict[str, Any] = {
        "image": prediction.image,
        "prediction": prediction.prediction,
        "probability": prediction.probability,
        "status": prediction.status,
        "top": [{"class": name, "probability": share} for name, share in prediction.top],
        "error": prediction.error,
    }
    if with_features:
        features = None if answer.outputs is None else answer.outputs.features
        values["features"] = None if features is None else features.tolist()
    return values


async def _live(_request: Request) -> Response:
    """Whether the process answers."""
    return JSON({"live": True})


async def _ready(request: Request) -> Response:
    """Whether it takes requests, and if not, why."""
    server: Server = request.app.state.server
    return readiness(server.unready)


def _refusal(error: Exception, settings: Settings) -> Refused | None:
    """What to answer to a request that ended in an error; None where that is a fault."""
    match error:
        case Refused():
            return error
        case HTTPException(status_code=404, detail="Not Found"):  # of Starlette
            return Refused(404, "no such path; /docs lists what there is")
        case HTTPException(status_code=405):
            headers = error.headers or {}
            reason = f"this path takes {headers.get('Allow', 'another method')} only"
            return Refused(405, reason, headers)
        case HTTPException():
            return Refused(error.status_code, error.detail, error.headers)
        case QueueFull():
            reason = (
                f"the server is busy: it takes up to {settings.queue:,} images and "
                f"{byte_size(settings.all_bodies)} at once; try again later"
            )
            return Refused(503, reason, {"Retry-After": _RETRY_AFTER})
        case DeadlinePassed():
            return Refused(504, "the images were not computed in time")
        case ClientDisconnect():
            return Refused(_GONE, "the client has gone")
    return None
