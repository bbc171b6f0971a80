"""Checkpoint files of other projects: read, recognised, and converted in both directions."""
