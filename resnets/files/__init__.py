"""Files of this machine: read within limits, written completely or not, and folders for them.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
