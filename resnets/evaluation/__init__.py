"""Predictions, evaluation, calibration and explanations of networks.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
