"""What frozen networks said of (sample, view), kept in memory-mapped tables."""
