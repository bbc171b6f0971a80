"""Residual networks: blocks, networks, the catalog, printed and foreign forms."""
