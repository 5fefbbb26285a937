"""What every other room may use, and that knows none of them."""
