"""Exported files: what they may hold, and what they say of themselves. No torch here."""
