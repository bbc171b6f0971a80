"""Exported files: their metadata, and checks before a runtime opens them. No torch here.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
