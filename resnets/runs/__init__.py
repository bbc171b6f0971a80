"""Training runs: prepared, carried out, saved, resumed and repeated.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
