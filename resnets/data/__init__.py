"""Labelled images: sources, splits, augmentation and batches.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
