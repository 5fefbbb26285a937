"""What a conversion reads: one module per kind of source."""
