"""Augmentation: crop boxes for the decoder, and colour and geometry batched on the device."""
