"""From stored bytes and boxes to uint8 batches of the output size."""
