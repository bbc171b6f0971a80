"""Predictions, evaluation, calibration and explanations of networks."""
