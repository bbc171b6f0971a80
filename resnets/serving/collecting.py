"""Images with the labels that users give them, in a folder that `train` and `doctor` read.

FOLDER/CLASS/DIGEST.jpg is an image as it was sent, and FOLDER/labels.jsonl has a line for each
label: the image, the label, the prediction and the model's digest. An image has one label, the
latest. The queue holds the latest images worth labelling, in memory.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from resnets.data.sources.names import alike, is_hidden, split_of
from resnets.escaping import safe_name
from resnets.files import open_appending, writable_folder, write_atomically
from resnets.images.opening import format_of
from resnets.images.probing import ENDINGS
from resnets.serving.answering import Answer, Upload
from resnets.serving.requests import body_of, deadline_of
from resnets.serving.responses import JSON
from resnets.serving.worth_labelling import Candidate, Queue

if TYPE_CHECKING:
    from resnets.serving.served_model import ServedModel
    from resnets.serving.state import Server

_LABELS = "labels.jsonl"  # beside the folders of the classes
_LONGEST = 100  # characters of a class that a user names
_FULL = 507  # Insufficient Storage


class Collection:
    """A folder of labelled images of limited size, and the images that wait for a label.

    Args:
        folder: is created if it is missing.
        most: bytes that it may hold.

    Raises:
        UsageError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder = writable_folder(folder)
        self.most = most
        self.queue = Queue()
        self.lock = asyncio.Lock()  # of changes of the folder
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
        self._size = sum(path.stat().st_size for path in files)
        self._places = {path.stem: path for path in files if path.name != _LABELS}
        self._own: set[str] = set()  # digests of images that this process has written

    def check_label(self, label: str, classes: Sequence[str]) -> str:
        """The folder's name for a class.

        Raises:
            HTTPException: 422, the class is new and its name is no safe name of a folder.
        """
        if label in classes:
            return safe_name(label)
        reason = None
        if not label.strip() or len(label) > _LONGEST:
            reason = f"a class has a name of 1 to {_LONGEST} characters"
        elif safe_name(label) != label or is_hidden(label):
            reason = "a new class needs a name that any system allows for a folder"
        elif split_of(label):
            reason = "folders of this name are taken for a split of the data"
        elif same := alike([*classes, label]):
            reason = f"there is a class {same[0]!r}; choose that one"
        if reason:
            raise HTTPException(422, f"label {label!r}: {reason}")
        return label

    def add(self, content: bytes, folder: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Store an image with its label; one that has another label is moved.

        Args:
            content: the bytes of an image file.
            folder: of its class.
            entry: what labels.jsonl tells besides.

        Raises:
            HTTPException: 507, the folder is full or cannot be written to.
        """
        digest = sha256(content).hexdigest()
        name = f"{digest}{_ending(content)}"
        target = self.folder / folder / name
        before = self._places.get(digest)
        if before == target:
            return {"image": f"{folder}/{name}", "digest": digest, "stored": False}
        self._refuse_beyond(0 if before else len(content))
        line = {"image": f"{folder}/{name}", "time": _now(), **entry}
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
            if before is not None:
                before.unlink(missing_ok=True)
            self._note(line)
        except OSError as error:
            raise HTTPException(_FULL, f"the image cannot be stored ({error.strerror})") from None
        self._size += 0 if before else len(content)
        self._places[digest] = target
        self._own.add(digest)
        return {"image": line["image"], "digest": digest, "stored": True}

    def withdraw(self, digest: str) -> None:
        """Remove an image that was labelled since the start.

        Raises:
            HTTPException: 404, there is none.
        """
        if digest not in self._own:
            raise HTTPException(404, "no image of this digest was labelled since the start")
        path = self._places.pop(digest)
        self._own.discard(digest)
        self._size -= path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
        self._note({"image": path.relative_to(self.folder).as_posix(), "withdrawn": _now()})

    def _refuse_beyond(self, more: int) -> None:
        if self._size + more > self.most:
            raise HTTPException(
                _FULL,
                f"the folder of --collect is full ({self.most >> 20:,} MiB, --collect-mb); move "
                "images away, or raise the limit",
            )

    def _note(self, line: Mapping[str, Any]) -> None:
        text = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        with open_appending(self.folder / _LABELS) as file:
            file.write(text)
        self._size += len(text)


def _now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ending(content: bytes) -> str:
    """The usual ending of an image's format.

    >>> _ending(b"BM"), _ending(b"P6 2 2 255")
    ('.bmp', '.ppm')
    """
    return ENDINGS[format_of(content) or "PPM"][0]


def offer(
    server: "Server", model: "ServedModel", uploads: Sequence[Upload], answers: Sequence[Answer]
) -> None:
    """Let the images of a request wait for a label, if labels are collected."""
    if server.collection is None:
        return
    for upload, answer in zip(uploads, answers, strict=True):
        if answer.outputs is not None and isinstance(upload.content, bytes):
            server.collection.queue.add(
                Candidate(
                    upload.content, upload.name, model.name, answer.prediction, answer.outputs
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
    model = server.model(request.query_params.get("model"))
    label = request.query_params.get("label", "")
    folder = collection.check_label(label, model.description.class_names)
    deadline = deadline_of(request, server.settings)
    waiting = collection.queue.get(request.query_params.get("image", ""))
    places = server.answering.places
    places.take()
    try:
        content = (
            waiting.content
            if waiting
            else await body_of(request, server.settings.max_body, deadline)
        )
        if not content:
            raise HTTPException(400, "send the bytes of the image, or ?image=DIGEST of the queue")
        (answer,) = await server.answering.answers(model, [Upload("image", content)], 1, deadline)
    finally:
        places.give_back(1)
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
    collection.queue.drop(stored["digest"])
    return JSON(stored, 201 if stored["stored"] else 200)


async def _withdraw(request: Request) -> Response:
    """Take a label back."""
    collection = _collection(request)
    async with collection.lock:
        await asyncio.to_thread(collection.withdraw, request.path_params["digest"])
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
        raise HTTPException(404, "no image of this digest waits for a label")
    kind = f"image/{(format_of(candidate.content) or 'x-portable-anymap').lower()}"
    headers = {
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
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
