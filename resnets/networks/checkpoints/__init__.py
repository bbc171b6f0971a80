"""Checkpoint files of other projects: read, recognised, and converted in both directions.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
