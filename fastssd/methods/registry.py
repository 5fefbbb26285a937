"""How stages are trained, by the names that methods' files use for it."""

from typing import Any

from fastssd.core.registry import Registry

METHODS: Registry[Any] = Registry(
    "method",
    {
        "supervised": "fastssd.methods.supervised:Supervised fastssd.methods.options:SupervisedOptions",
        "classifier": "fastssd.methods.classifier:Classifier fastssd.methods.options:ClassifierOptions",
        "distill": "fastssd.methods.distill:Distill fastssd.methods.options:DistillOptions",
        "tau_norm": "fastssd.methods.posthoc.stage:TauNormStage fastssd.methods.posthoc.options:TauNormOptions",
        "ncm": "fastssd.methods.posthoc.stage:NcmStage fastssd.methods.posthoc.options:NcmOptions",
        "la_posthoc": "fastssd.methods.posthoc.stage:LaStage fastssd.methods.posthoc.options:LaPosthocOptions",
    },
    group="fastssd.training",
)
"""A new method is a file in `methods/`, a line here and a YAML file in `configs/methods/`."""
