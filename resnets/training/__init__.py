"""Training of networks: recipes, optimizers, schedules and the training loop.

Its names are those of its modules; the package has none of its own.
"""

__all__: list[str] = []
