"""Where labelled images come from: folders, archives, tables, parquet files, a hub."""
