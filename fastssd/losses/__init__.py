"""The losses of the stages, as plain functions of tensors."""
