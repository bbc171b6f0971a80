"""Training of networks: recipes, optimizers, schedules and the training loop."""
