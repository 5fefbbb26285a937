"""The post-hoc methods that a stage may name."""

from fastssd.methods.posthoc.la_posthoc import LaPosthoc
from fastssd.methods.posthoc.ncm import Ncm
from fastssd.methods.posthoc.posthoc import Posthoc
from fastssd.methods.posthoc.tau_norm import TauNorm

POSTHOC: dict[str, type[Posthoc]] = {
    "tau_norm": TauNorm,
    "ncm": Ncm,
    "la_posthoc": LaPosthoc,
}
