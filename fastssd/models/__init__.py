"""Backbones, heads and the state around them that no gradient reaches."""
