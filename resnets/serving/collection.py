"""Images with the labels that users give them, in a folder that `train` and `doctor` read.

FOLDER/CLASS/DIGEST.jpg is an image as it was sent, and FOLDER/labels.jsonl has a line for each
label: the image, the label, the prediction and the model's digest. An image has one label, the
latest.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from resnets.data.sources.names import alike, is_hidden, split_of
from resnets.data.sources.walking import LABELS
from resnets.escaping import safe_name
from resnets.files.outputs import writable_folder
from resnets.files.writing import open_appending, write_atomically
from resnets.format import byte_size
from resnets.images.opening import format_of
from resnets.images.probing import ENDINGS
from resnets.json_text import to_json
from resnets.serving.worth_labelling import Queue

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
        self._labelled = Queue()  # those that waited: one whose label is taken back waits again
        self.lock = asyncio.Lock()  # of changes of the folder
        self._look()
        self._own: set[str] = set()  # digests of images that this process has written

    def _look(self) -> None:
        """Find out what the folder holds: users move images away, too."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        self._size = sum(path.stat().st_size for path in files)
        self._places = {path.stem: path for path in files if path.name != LABELS}

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
        elif "\N{REPLACEMENT CHARACTER}" in label:
            reason = "it is not written in UTF-8"
        elif safe_name(label) != label or is_hidden(label):
            reason = f"a folder of this name is not allowed on every system; {_advice(label)}"
        elif label.casefold() == LABELS or (self.folder / label).is_file():
            reason = "a file of --collect has this name; take another one"
        elif split_of(label):
            reason = "folders of this name are taken for a split of the data"
        elif same := alike([*classes, label]):
            reason = f"there is a class {same[0]!r}; choose that one"
        if reason:
            shown = label if len(label) <= _LONGEST else f"{label[:_LONGEST]}..."
            raise HTTPException(422, f"label {shown!r}: {reason}")
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
        before = before if before is not None and before.exists() else None
        if before == target:
            return {"image": f"{folder}/{name}", "digest": digest, "stored": False}
        line = {"image": f"{folder}/{name}", "time": _now(), **entry}
        try:
            self._refuse_beyond(0 if before else len(content))
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
            if before is not None:
                _remove(before)
            self._note(line)
        except OSError as error:
            raise HTTPException(_FULL, f"the image cannot be stored ({error.strerror})") from None
        self._size += 0 if before else len(content)
        self._places[digest] = target
        self._own.add(digest)
        return {"image": line["image"], "digest": digest, "stored": True}

    def has(self, digest: str) -> bool:
        """Whether the image of a digest has a label."""
        place = self._places.get(digest)
        return place is not None and place.exists()

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
        _remove(path)
        self._note({"image": path.relative_to(self.folder).as_posix(), "withdrawn": _now()})

    def wait_no_more(self, digest: str) -> None:
        """Let an image that has a label wait for none. In the event loop."""
        if (candidate := self.queue.drop(digest)) is not None:
            self._labelled.add(candidate)

    def wait_again(self, digest: str) -> None:
        """Let an image wait whose label was taken back, if it waited. In the event loop."""
        if (candidate := self._labelled.drop(digest)) is not None:
            self.queue.add(candidate)

    def _refuse_beyond(self, more: int) -> None:
        if self._size + more > self.most:
            self._look()
        if self._size + more > self.most:
            raise HTTPException(
                _FULL,
                f"the folder of --collect is full ({byte_size(self.most)}, --collect-mb); move "
                "images away, or raise the limit",
            )

    def _note(self, line: Mapping[str, Any]) -> None:
        text = (to_json(line, ensure_ascii=False) + "\n").encode()
        with open_appending(self.folder / LABELS) as file:
            file.write(text)
        self._size += len(text)


def _advice(label: str) -> str:
    """What to take in place of a class that is no safe name of a folder.

    >>> [_advice(label) for label in (".con", "a/b", "..")]
    ["take '_con'", "take 'a_b'", 'use letters or digits']
    """
    near = safe_name(safe_name(label, "").lstrip(". "), "")  # the first may uncover another fault
    is_name = any(character.isalnum() for character in near) and not is_hidden(near)
    return f"take {near!r}" if is_name else "use letters or digits"


def _now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ending(content: bytes) -> str:
    """The usual ending of an image's format.

    >>> _ending(b"BM"), _ending(b"P6 2 2 255")
    ('.bmp', '.ppm')
    """
    return ENDINGS[format_of(content) or "PPM"][0]


def _remove(path: Path) -> None:
    """Remove an image, and its folder once that is empty: it would be a class without images."""
    path.unlink(missing_ok=True)
    with suppress(OSError):  # where other images are in it
        path.parent.rmdir()
