"""Class names of networks that were trained on ImageNet. Imports no torch."""

import difflib
import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from resnets.files.reading import read_input, read_text

_FOLDER = Path(__file__).parent / "class_names"
_LARGEST = 1 << 20  # bytes of a packed list


@cache
def _synsets(classes: int) -> tuple[str, ...]:
    """The synset id of each class of ImageNet with this number of classes; empty if unknown.

    >>> _synsets(1000)[:2]
    ('n01440764', 'n01443537')
    """
    return tuple(synset for synset, _ in _lines(classes))


@cache
def class_names(classes: int) -> tuple[str, ...]:
    """The name of each class of ImageNet with this number of classes; empty if unknown.

    Classes whose names are the same, such as two that are called crane, get their synset id too.

    >>> class_names(1000)[0], class_names(1000)[134], class_names(7)
    ('tench, Tinca tinca', 'crane (n02012849)', ())
    """
    lines = _lines(classes)
    counts = Counter(name for _, name in lines)
    return tuple(f"{name} ({synset})" if counts[name] > 1 else name for synset, name in lines)


def class_numbers(names: Iterable[str], known: tuple[str, ...]) -> list[int | None]:
    """The number of each class among those of a network; None for one that it does not have.

    Classes of ImageNet may be called by their synset ids, as the folders of its images are, or by
    one of their names, if no other class has it.

    Args:
        names: of the classes to find.
        known: names of the network's classes.

    >>> class_numbers(["n01440764", "ant", "crane", "tench, Tinca tinca"], class_names(1000))
    [0, 310, None, 0]
    """
    numbers = {name: number for number, name in enumerate(known)}
    if known == class_names(len(known)):
        numbers = _other_names(len(known)) | numbers
    return [numbers.get(name) for name in names]


_FEW_CLASSES = 10  # whose names a message has room for


def known_in_words(name: str, known: Sequence[str]) -> str:
    """Which classes a network knows, for a message about one that it does not know.

    >>> known_in_words("bird", ("cat", "dog"))
    'it knows cat, dog'
    >>> known_in_words("bees", class_names(1000))
    "it knows 1,000 classes; nearest: 'bee', 'apiary, bee house', 'bolete'"
    """
    if len(known) <= _FEW_CLASSES:
        return f"it knows {', '.join(known)}"
    single = {one: whole for whole in known for one in [whole, *whole.split(", ")]}
    like = difflib.get_close_matches(name, single, n=3, cutoff=0)
    nearest = ", ".join(repr(whole) for whole in dict.fromkeys(single[one] for one in like))
    return f"it knows {len(known):,} classes; nearest: {nearest}"


@cache
def _other_names(classes: int) -> dict[str, int]:
    """The numbers of ImageNet's classes by synset id, and by each name that one class alone has."""
    lines = _lines(classes)
    pairs = [(name, number) for number, line in enumerate(lines) for name in line[1].split(", ")]
    counts = Counter(name for name, _ in pairs)
    by_name = {name: number for name, number in pairs if counts[name] == 1}
    return by_name | {synset: number for number, (synset, _) in enumerate(lines)}


def _lines(classes: int) -> list[tuple[str, str]]:
    """The synset id and the names of each class."""
    file = _FOLDER / f"imagenet-{classes}.txt"
    packed = file.with_suffix(".txt.gz")
    if file.is_file():
        text = read_text(file)
    elif packed.is_file():
        text = gzip.decompress(read_input(packed, _LARGEST)).decode()
    else:
        return []
    pairs = (line.partition("\t") for line in text.splitlines())
    return [(synset, name) for synset, _, name in pairs]
