"""The Open Inference Protocol (KServe v2) over HTTP, with extensions of Triton.

Source: github.com/kserve/open-inference-protocol, and the extensions binary_tensor_data,
classification, model_configuration and statistics in the documentation of Triton's server.
Shapes: N images, K classes, F features.
"""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnets.json_text import to_json
from resnets.serving.answers import Answer, Floats, Upload
from resnets.serving.requests import (
    ANSWERED,
    body_of,
    deadline_of,
    while_wanted,
    without_parameters,
)
from resnets.serving.responses import JSON, readiness
from resnets.serving.served_model import ServedModel
from resnets.serving.statistics import Duration
from resnets.serving.tensors import (
    INPUTS,
    OUTPUTS,
    InferRequest,
    Output,
    RequestedOutput,
    classification,
    described,
    in_binary,
    read_request,
)

if TYPE_CHECKING:
    from resnets.serving.state import Server

VERSION = "1"  # of each model: what a file holds is told apart by its digest
_HEADER_LENGTH = "Inference-Header-Content-Length"
_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "statistics",
    "model_repository",
)


async def _server_metadata(request: Request) -> Response:
    """Name and version of the server, which extensions it has, and its models."""
    about = {"name": "resnets", "version": version("resnets"), "extensions": _EXTENSIONS}
    return JSON({**about, "models": list(request.app.state.server.models)})


async def _model_ready(request: Request) -> Response:
    """Whether a model takes requests."""
    _model(request)
    server: Server = request.app.state.server
    return readiness(server.unready)


async def _model_metadata(request: Request) -> Response:
    """The inputs and outputs of a model, with its classes and the digest of its file."""
    return JSON(_metadata(_model(request)))


async def _model_config(request: Request) -> Response:
    """The configuration of a model, in the form of Triton's model_config.proto."""
    server: Server = request.app.state.server
    return JSON(_configuration(_model(request), server.settings.queue))


async def _model_statistics(request: Request) -> Response:
    """What a model, or each, has computed since it was loaded."""
    server: Server = request.app.state.server
    is_for_one = "name" in request.path_params
    models = [_model(request)] if is_for_one else list(server.models.values())
    return JSON({"model_stats": [_statistics(model) for model in models], **server.process})


async def _infer(request: Request) -> Response:
    """Predict the images of a tensor."""
    server: Server = request.app.state.server
    deadline = deadline_of(request, server.settings)
    model = _model(request)
    answering, places = server.answering, server.answering.places
    with server.arriving():
        body = await body_of(request, server.settings.max_body, deadline)
    places.take()
    taken = 1
    try:
        length = request.headers.get(_HEADER_LENGTH)
        asked = await answering.in_pool(read_request, body, length, places.total, deadline=deadline)
        places.take(len(asked.images) - 1)
        taken = len(asked.images)
        deadline = min(deadline, asyncio.get_running_loop().time() + asked.timeout)
        uploads = [Upload(f"image {number}", image) for number, image in enumerate(asked.images)]
        features = any(each.name == "features" for each in asked.outputs)
        work = answering.answers(model, uploads, 1, features)
        answers = await while_wanted(request, work, deadline)
    finally:
        places.give_back(taken)
    request.scope[ANSWERED] = model.name
    if len(answers) == 1 and answers[0].outputs is None:
        raise HTTPException(answers[0].http_status, str(answers[0].prediction.error))
    if any(output.name == "features" for output in asked.outputs):  # thousands of numbers each
        return await server.answering.in_pool(_response, model, asked, answers, deadline=deadline)
    return _response(model, asked, answers)


def _model(request: Request) -> ServedModel:
    """The model that a path names.

    Raises:
        HTTPException: 404, there is none of that name or version.
    """
    server: Server = request.app.state.server
    asked = request.path_params.get("version", VERSION)
    model = server.model(request.path_params["name"])
    if asked != VERSION:
        raise HTTPException(404, f"{model.name}: no version {asked!r}; there is {VERSION}")
    return model


def _metadata(model: ServedModel) -> dict[str, Any]:
    """The metadata of a model."""
    description = model.description
    sizes = _sizes(model)
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": f"resnets_{model.engine.name}",
        "inputs": [
            {"name": name, "datatype": kind, "shape": [-1, *sizes[name]]}
            for name, kind in INPUTS.items()
        ],
        "outputs": [
            {"name": name, "datatype": kind, "shape": [-1, *sizes[name]]}
            for name, kind in OUTPUTS.items()
        ],
        "parameters": {
            "class_names": description.class_names,
            "digest": model.digest,
            "white": description.preprocessing.white.to_dict(),
        },
    }


def _configuration(model: ServedModel, largest: int) -> dict[str, Any]:
    """The configuration of a model, in the form of Triton's model_config.proto.

    Args:
        model: whose.
        largest: number of images in a request.
    """
    sizes = _sizes(model)
    return {
        "name": model.name,
        "platform": "",
        "backend": "resnets",
        "max_batch_size": largest,
        "input": [
            {"name": name, "data_type": _IN_CONFIGURATION[kind], "dims": sizes[name]}
            | {"format": "FORMAT_NHWC" if name == "images" else "FORMAT_NONE", "optional": True}
            for name, kind in INPUTS.items()
        ],
        "output": [
            {"name": name, "data_type": _IN_CONFIGURATION[kind], "dims": sizes[name]}
            for name, kind in OUTPUTS.items()
        ],
        "dynamic_batching": {"preferred_batch_size": [model.max_batch]},
    }


_IN_CONFIGURATION = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}


def _sizes(model: ServedModel) -> dict[str, list[int]]:
    """The size of each input and output for one image; -1 is any."""
    one = {name: [1] for name, kind in (INPUTS | OUTPUTS).items() if kind == "BYTES"}
    description = model.description
    images = [-1, -1, description.preprocessing.channels]
    return {**one, "images": images, "probabilities": [len(description.class_names)]} | {
        "features": [-1]
    }


def _statistics(model: ServedModel) -> dict[str, Any]:
    """What a model has computed; queue and compute count images, success and fail requests."""
    counted = model.statistics
    nothing = _in_nanoseconds(Duration())
    return {
        "name": model.name,
        "version": VERSION,
        "last_inference": int(counted.last * 1000),
        "inference_count": counted.images,
        "execution_count": sum(each.count for each in counted.batches.values()),
        "inference_stats": {
            "success": _in_nanoseconds(counted.success),
            "fail": _in_nanoseconds(counted.failure),
            "queue": _in_nanoseconds(counted.waiting),
            "compute_input": _in_nanoseconds(counted.decoding),
            "compute_infer": _in_nanoseconds(counted.computing),
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": nothing,
                "compute_infer": _in_nanoseconds(duration),
                "compute_output": nothing,
            }
            for size, duration in sorted(counted.batches.items())
        ],
    }


def _in_nanoseconds(duration: Duration) -> dict[str, int]:
    """A duration, as the statistics write it."""
    return {"count": duration.count, "ns": round(duration.seconds * 1e9)}


def _response(model: ServedModel, asked: InferRequest, answers: Sequence[Answer]) -> Response:
    """The response with the outputs that a request asked for."""
    outputs = [
        Output(each.name, _values(model, each, answers), each.binary) for each in asked.outputs
    ]
    body: dict[str, Any] = {"model_name": model.name, "model_version": VERSION}
    if asked.id is not None:
        body["id"] = asked.id
    body["outputs"] = [described(output) for output in outputs]
    if not any(output.binary for output in outputs):
        return JSON(body)
    header = to_json(body).encode()
    content = b"".join([header, *(in_binary(output) for output in outputs if output.binary)])
    return Response(
        content,
        media_type="application/octet-stream",
        headers={_HEADER_LENGTH: str(len(header))},
    )


def _values(
    model: ServedModel, asked: RequestedOutput, answers: Sequence[Answer]
) -> NDArray[np.float32] | NDArray[np.object_]:
    """The values of an output; of an image that cannot be read NaN, or empty texts.

    Raises:
        HTTPException: 501, the network has no features that it could give.
    """
    names = model.description.class_names
    if asked.name == "probabilities":
        rows = [None if each.outputs is None else each.outputs.probabilities for each in answers]
        if asked.classes:
            return _classifications(rows, names, min(asked.classes, len(names)))
        return _rows(rows, len(names))
    if asked.name == "features":
        features = [None if each.outputs is None else each.outputs.features for each in answers]
        sizes = {len(row) for row in features if row is not None}
        if not sizes:
            raise HTTPException(501, f"features: {model.name} gives none")
        return _rows(features, sizes.pop())
    texts = [getattr(each.prediction, asked.name) or "" for each in answers]
    return np.array(texts, np.object_)[:, None]


def _classifications(
    rows: Sequence[Floats | None], names: Sequence[str], top: int
) -> NDArray[np.object_]:
    """The most probable classes of each image, (N, top)."""
    none = [""] * top
    texts = [none if row is None else classification(row, names, top) for row in rows]
    return np.array(texts, np.object_)


def _rows(rows: Sequence[Floats | None], size: int) -> NDArray[np.float32]:
    """Rows of values, (N, size); NaN where there is none."""
    return np.stack([np.full(size, np.nan) if row is None else row for row in rows]).astype(
        np.float32
    )


_MODEL = "/v2/models/{name}"
ROUTES = [
    Route("/v2", without_parameters(_server_metadata)),
    Route("/v2/models/stats", without_parameters(_model_statistics)),
    *(
        Route(f"{base}{end}", without_parameters(function), methods=methods)
        for base in (_MODEL, f"{_MODEL}/versions/{{version}}")
        for end, function, methods in (
            ("", _model_metadata, ["GET"]),
            ("/ready", _model_ready, ["GET"]),
            ("/config", _model_config, ["GET"]),
            ("/stats", _model_statistics, ["GET"]),
            ("/infer", _infer, ["POST"]),
        )
    ),
]
