"""The step of each method."""
