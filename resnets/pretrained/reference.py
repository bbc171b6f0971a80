"""The ids by which published networks are named."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from resnets.errors import UsageError
from resnets.networks.catalog import nearest
from resnets.pretrained.table import Published, find, published

_OWNERS = ("timm", "microsoft")  # of the hub, whose names stand without a prefix
_HUB, _TORCHVISION = ("hf-hub:", "hf_hub:"), "torchvision/"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([\w.][\w./-]*))?", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """What an id names.

    Attributes:
        id: as in the table, without a revision.
        host: the hub of Hugging Face, or torchvision's server.
        name: there: OWNER/NAME on the hub, NETWORK.WEIGHTS of torchvision.
        revision: commit, branch or tag on the hub; None is the newest version.
    """

    id: str
    host: Literal["hub", "torchvision"]
    name: str
    revision: str | None = None

    @property
    def row(self) -> Published | None:
        """Its row of the table; None if it has none."""
        return find(self.id)

    def __str__(self) -> str:
        return self.id + (f"@{self.revision}" if self.revision else "")


def is_reference(word: str) -> bool:
    """Whether a word is written as an id, whatever it names.

    >>> is_reference("timm/resnet50.a1_in1k"), is_reference("hf-hub:owner/name@v2")
    (True, True)
    >>> is_reference("photos/cat.jpg"), is_reference("resnet50")
    (False, False)
    """
    owner, slash, name = word.partition("/")
    known = bool(slash) and name and (owner in _OWNERS or word.startswith(_TORCHVISION))
    return word.startswith(_HUB) or bool(known)


def read_reference(word: str) -> Reference:
    """The parts of an id.

    Raises:
        UsageError: it is written otherwise than ids are, or torchvision has no such weights.

    >>> read_reference("timm/resnet50.a1_in1k@main").revision
    'main'
    """
    if word.startswith(_TORCHVISION):
        if find(word) is None:
            known = [row.id for row in published() if row.id.startswith(_TORCHVISION)]
            raise UsageError(f"{word}: torchvision has no such weights{nearest(word, known)}")
        return Reference(word, "torchvision", word.removeprefix(_TORCHVISION))
    name = word[len(_HUB[0]) :] if word.startswith(_HUB) else word
    match = _NAME.fullmatch(name)
    if match is None or ".." in name or "--" in name:
        raise UsageError(
            f"{word}: no id of published weights; write it as timm/resnet50.a1_in1k, "
            "hf-hub:OWNER/NAME or torchvision/resnet50.IMAGENET1K_V2, the first two with "
            "@REVISION behind them if need be"
        )
    in_table = find(match[1]) is not None or match[1].partition("/")[0] in _OWNERS
    return Reference(match[1] if in_table else f"hf-hub:{match[1]}", "hub", match[1], match[2])


def pinned(origin: Mapping[str, str]) -> str:
    """The id of published weights with their commit, by which they are found again.

    Args:
        origin: as `Generation.origin`; empty, or without an id, for what nobody published.

    >>> pinned({"id": "timm/resnet50.a1_in1k", "commit": "c0ffee"}), pinned({})
    ('timm/resnet50.a1_in1k@c0ffee', '')
    """
    name, commit = origin.get("id", ""), origin.get("commit")
    return f"{name}@{commit}" if name and commit else name
