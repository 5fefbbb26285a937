"""Kernels in C: what Python may not do once per image."""
