"""Routes by which users label images: with --collect FOLDER only.

Images that were predicted wait in a queue, in memory; the label of one, or of an image that is
sent, goes to the folder.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnets.images.opening import format_of
from resnets.serving.answers import Answer, Upload
from resnets.serving.collection import Collection
from resnets.serving.requests import (
    body_of,
    deadline_of,
    kind_of_body,
    refuse_unknown,
    while_wanted,
)
from resnets.serving.responses import JSON
from resnets.serving.worth_labelling import Candidate, digest_of

if TYPE_CHECKING:
    from resnets.serving.served_model import ServedModel
    from resnets.serving.state import Server

_NOT_WAITING = "no image of this digest waits for a label"
_NO_FORM = "the body is a form; send the bytes of one image instead (curl --data-binary @photo.jpg)"


async def offer(
    server: "Server", model: "ServedModel", uploads: Sequence[Upload], answers: Sequence[Answer]
) -> None:
    """Let the images of a request wait for a label, if labels are collected.

    One that has a label waits for none: the page sends it again for its heat map.
    """
    if server.collection is None:
        return
    for upload, answer in zip(uploads, answers, strict=True):
        content = upload.content
        if answer.outputs is not None and isinstance(content, bytes):
            digest = await asyncio.to_thread(digest_of, content)
            if await asyncio.to_thread(server.collection.has, digest):
                continue
            server.collection.queue.add(
                Candidate(
                    content, digest, upload.name, model.name, answer.prediction, answer.outputs
                )
            )


def _collection(request: Request) -> Collection:
    """The collection, for a request that may use it.

    Raises:
        HTTPException: 404, labels are not collected.
    """
    collection: Collection | None = request.app.state.server.collection
    if collection is None:
        raise HTTPException(404, "labels are not collected here (resnets serve --collect FOLDER)")
    return collection


async def _collect(request: Request) -> Response:
    """Store an image, the body or one of the queue, with the label that a user gives it."""
    collection, server = _collection(request), request.app.state.server
    refuse_unknown(request, ("label", "model", "image"))
    model = server.model(request.query_params.get("model"))
    label = request.query_params.get("label")
    if label is None:
        raise HTTPException(400, "say what the image is: ?label=CLASS")
    classes = model.description.class_names
    label = label if label in classes else label.strip()
    folder = collection.check_label(label, classes)
    deadline = deadline_of(request, server.settings)
    waiting = collection.queue.get(request.query_params.get("image", ""))
    if waiting is None and kind_of_body(request) == "multipart/form-data":
        raise HTTPException(415, _NO_FORM)
    with server.arriving():
        limit = server.settings.max_body
        content = waiting.content if waiting else await body_of(request, limit, deadline)
    if not content and request.query_params.get("image"):
        raise HTTPException(404, f"{_NOT_WAITING}; send its bytes with the label")
    if not content:
        raise HTTPException(400, "send the bytes of the image, or ?image=DIGEST of the queue")
    server.answering.places.take()
    try:
        work = server.answering.answers(model, [Upload("image", content)], 1, repeated=True)
        (answer,) = await while_wanted(request, work, deadline)
    finally:
        server.answering.places.give_back()
    prediction = answer.prediction
    if prediction.error is not None:
        raise HTTPException(answer.http_status, prediction.error)
    entry = {
        "label": label,
        "prediction": prediction.prediction,
        "probability": prediction.probability,
        "status": prediction.status,
        "model": model.name,
        "digest": model.digest,
    }
    async with collection.lock:
        stored = await asyncio.to_thread(collection.add, content, folder, entry)
    collection.wait_no_more(stored["digest"])
    return JSON(stored, 201 if stored["stored"] else 200)


async def _withdraw(request: Request) -> Response:
    """Take a label back."""
    collection = _collection(request)
    async with collection.lock:
        await asyncio.to_thread(collection.withdraw, request.path_params["digest"])
    collection.wait_again(request.path_params["digest"])
    return JSON({"withdrawn": True})


async def _queue(request: Request) -> Response:
    """The images worth labelling, the most worthy first."""
    rows = [
        {
            "digest": each.digest,
            "image": each.name,
            "model": each.model,
            "prediction": each.prediction.prediction,
            "probability": each.prediction.probability,
            "status": each.prediction.status,
            "top": [{"class": name, "probability": share} for name, share in each.prediction.top],
        }
        for each in _collection(request).queue.ordered()
    ]
    return JSON({"images": rows}, headers={"Cache-Control": "no-store"})


async def _image(request: Request) -> Response:
    """An image of the queue, as it was sent."""
    candidate = _collection(request).queue.get(request.path_params["digest"])
    if candidate is None:
        raise HTTPException(404, _NOT_WAITING)
    kind = f"image/{(format_of(candidate.content) or 'x-portable-anymap').lower()}"
    headers = {
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(candidate.content, media_type=kind, headers=headers)


ROUTES = [
    Route("/collect", _collect, methods=["POST"]),
    Route("/collect/{digest}", _withdraw, methods=["DELETE"]),
    Route("/queue", _queue),
    Route("/queue/{digest}", _image),
]
