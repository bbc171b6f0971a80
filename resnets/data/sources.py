"""One function that opens labelled images, whatever the source."""

from pathlib import Path

import numpy as np

from resnets.data.digits import read_digits
from resnets.data.labelled import LabelledImages
from resnets.data.parquet import read_parquet
from resnets.data.splits import Digests, Parts, Splits, counts, draw, fingerprint
from resnets.data.storage import in_threads
from resnets.errors import UsageError

__all__ = ["LabelledImages", "Parts", "Splits", "open_data", "read_parts"]


def read_parts(source: str | Path) -> Parts:
    """What a source holds, in its own splits, unchecked."""
    if source == "digits":
        return read_digits()
    path = Path(source)
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder")
    return read_parquet(path)


def open_data(
    source: str | Path,
    *,
    validation: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    test: float = 0.1,
    test_seed: int = 0,
) -> Splits:
    """Open labelled images and split them honestly."""
    parts = read_parts(source)
    images = dict(parts.images)
    digests = {name: digest_all(part) for name, part in images.items()}
    print_of = fingerprint(parts.class_names, {n: (images[n].labels, digests[n]) for n in images})
    if "all" in images:
        images["train"], digests["train"] = images.pop("all"), digests.pop("all")
    if "test" not in images and test:
        divide(images, digests, "test", test, f"test {test_seed} ")
    if "validation" not in images and validation:
        divide(images, digests, "validation", validation, f"validation {seed} ")
    split = {"source": str(source), "kind": parts.kind, "seed": seed, "test_seed": test_seed}
    return Splits(
        train=images["train"],
        validation=images.get("validation"),
        test=images.get("test"),
        class_names=parts.class_names,
        fingerprint=print_of,
        split=split | {"counts": {name: counts(part) for name, part in images.items()}},
    )


def divide(
    images: dict[str, LabelledImages],
    digests: dict[str, Digests],
    name: str,
    fraction: float,
    key: str,
) -> None:
    chosen = draw(images["train"].labels, digests["train"], fraction, key)
    images[name] = images["train"].subset(chosen)
    digests[name] = digests["train"][chosen]
    images["train"] = images["train"].subset(~chosen)
    digests["train"] = digests["train"][~chosen]


def digest_all(images: LabelledImages) -> Digests:
    """(N, 32) uint8"""
    found = in_threads(
        lambda part: b"".join(images.storage.digest(int(images.indices[i])) for i in part),
        len(images),
    )
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, 32)
