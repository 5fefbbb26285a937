"""Losses as functions of tensors, and as modules that a stage names."""
