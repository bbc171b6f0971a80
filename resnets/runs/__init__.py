"""Training runs: prepared, carried out, saved, resumed and repeated."""
