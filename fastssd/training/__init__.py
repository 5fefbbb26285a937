"""The one training loop, and what it keeps so that a run can go on."""
