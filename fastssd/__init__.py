"""SSD for long-tailed recognition as a trainer whose accelerator never waits for data."""

__version__ = "0.2.0"
