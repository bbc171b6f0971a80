"""Where labelled images come from: folders, archives, tables, parquet files, a hub.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
