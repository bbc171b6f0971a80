"""The names by which sources call their splits."""

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


def split_of(word: str) -> str | None:
    """The split that a word means, or None.

    >>> split_of("Valid"), split_of("cats")
    ('validation', None)
    """
    return SPLITS.get(word.strip().lower())
