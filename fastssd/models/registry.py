"""Classifiers by the names that recipes use: a new one is a class and a line here."""

from typing import Any

from fastssd.core.registry import Registry

HEADS: Registry[Any] = Registry(
    "head",
    {
        "linear": "fastssd.models.heads:LinearHead fastssd.models.head_options:LinearOptions",
        "cosine": "fastssd.models.heads:CosineHead fastssd.models.head_options:CosineOptions",
    },
    group="fastssd.heads",
)
"""Modules from (B, D) features to (B, C) logits."""
