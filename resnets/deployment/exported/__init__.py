"""Exported files: their metadata, and checks before a runtime opens them. No torch here."""
