"""One training step, written for each framework the way its users write it."""
