"""How good a network is, and what it does not know."""
