"""The smallest complete recipe, for tests that load one and train nothing."""

SMALLEST = "output: runs/x\ndata:\n  path: data/x\naugment:\n  size: 32\n"
