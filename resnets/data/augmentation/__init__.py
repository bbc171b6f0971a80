"""Random changes of training images, by whole batches of tensors.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
