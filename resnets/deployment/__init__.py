"""How a network leaves: one file with its preprocessing inside, and the engines that run it."""
