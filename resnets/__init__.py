"""Residual networks, exact to the papers: trained, evaluated, explained and exported."""
