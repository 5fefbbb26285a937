"""Self-supervised tasks beside a supervised loss."""
