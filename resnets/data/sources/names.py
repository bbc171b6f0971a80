"""The meaning of names: splits, image files, and files left by operating systems."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from resnets.images.probing import ENDINGS

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

# how numpy and pandas write what is missing; NA, None and null may be names of classes
_NO_LABELS = frozenset({"", "nan", "NaN", "NaT", "<NA>"})

UNLABELLED = "no label"  # the one class of images whose labels are not asked for

_IMAGE_ENDINGS = tuple(ending for endings in ENDINGS.values() for ending in endings)

_LEFT_BY_SYSTEMS = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("$recycle.bin", "system volume information", "found.000"),
        *("__macosx", "network trash folder", "temporary items"),
        *("@eadir", "@recycle", "@recently-snapshot", "@sharebin"),
        *("#recycle", "#snapshot", "~snapshot", "lost+found", "lost+found.000"),
        "__pycache__",
    }
)
_UNREAD_IMAGES = (  # endings of kinds that are not read; those that Pillow here has are read
    *(".heic", ".heif", ".avif", ".avifs", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".svgz", ".psd"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw", ".tga", ".ico"),
    *(".dcm", ".dicom", ".nii", ".exr", ".hdr", ".qoi", ".xcf", ".eps", ".pcx", ".ai"),
)


def split_of(word: str) -> str | None:
    """The split that a word means, or None.

    >>> split_of("Valid"), split_of("cats")
    ('validation', None)
    """
    return SPLITS.get(word.strip().lower())


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or left by an operating system.

    >>> [is_hidden(name) for name in ("._cat.jpg", "Thumbs.db", "cat.jpg")]
    [True, True, False]
    """
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def has_image_ending(name: str) -> bool:
    """Whether a file name has the ending of an image format, in upper or lower case.

    >>> has_image_ending("CAT.JPG"), has_image_ending("cat.txt")
    (True, False)
    """
    return name.lower().endswith(_IMAGE_ENDINGS)


def is_unread_image(name: str) -> bool:
    """Whether a file name ends as that of an image of a kind that is not read here.

    >>> is_unread_image("IMG_0001.NEF"), is_unread_image("cat.jpg")
    (True, False)
    """
    return name.lower().endswith(_UNREAD_IMAGES) and not has_image_ending(name)


def printable(name: str) -> str:
    r"""A file name that can be printed and written as UTF-8, whatever its bytes.

    >>> printable("caf\udce9.png")
    'caf\\xe9.png'
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that differ only by case or by how accents are encoded.

    >>> alike(["cat", "dog", "Cat"])
    ('cat', 'Cat')
    """
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name.casefold())
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def listed(names: Sequence[str], most: int = 5, counts: Mapping[str, int] | None = None) -> str:
    """The names in quotes; if there are many, the first few and the number of the others.

    >>> listed(["cat", "dog", "owl"], most=2)
    "'cat', 'dog' and 1 more"
    >>> listed(["cat", "dog"], counts={"cat": 3, "dog": 1})
    "'cat' (3), 'dog' (1)"
    """
    of_each = {name: f" ({counts[name]})" if counts else "" for name in names[:most]}
    shown = ", ".join(f"{name!r}{count}" for name, count in of_each.items())
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def is_no_label(text: str) -> bool:
    """Whether a text stands for a label that is missing.

    >>> is_no_label(" "), is_no_label("nan"), is_no_label("None")
    (True, True, False)
    """
    return text.strip() in _NO_LABELS
