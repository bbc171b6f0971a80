"""Networks that others have published: the table of them, their download, and their class names.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
