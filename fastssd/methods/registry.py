"""How stages are trained, by the names that methods' files use for it."""

from typing import Any

from fastssd.core.registry import Registry

_HERE = "fastssd.methods"
_OPTIONS, _POSTHOC = f"{_HERE}.options", f"{_HERE}.posthoc"

METHODS: Registry[Any] = Registry(
    "method",
    {
        "supervised": f"{_HERE}.supervised:Supervised {_OPTIONS}:SupervisedOptions",
        "classifier": f"{_HERE}.classifier:Classifier {_OPTIONS}:ClassifierOptions",
        "distill": f"{_HERE}.distill:Distill {_OPTIONS}:DistillOptions",
        "tau_norm": f"{_POSTHOC}.stage:TauNormStage {_POSTHOC}.options:TauNormOptions",
        "ncm": f"{_POSTHOC}.stage:NcmStage {_POSTHOC}.options:NcmOptions",
        "la_posthoc": f"{_POSTHOC}.stage:LaStage {_POSTHOC}.options:LaPosthocOptions",
    },
    group="fastssd.training",
)
"""A new method is a file in `methods/`, a line here and a YAML file in `configs/methods/`."""
