"""A run: its processes, its stages in order, its directory and its console."""
