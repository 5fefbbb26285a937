"""The training step of each method."""
