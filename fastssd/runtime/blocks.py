"""What the blocks of a method's file may say: the keys of every stage, and of every table."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class StageKeys:
    """What every stage's block may say, beside its method's own options."""

    method: str
    """How it is trained: a name of `fastssd/methods/registry.py`."""
    budget: Any = None
    """A budget of the recipe, by name, or `{base: NAME, epochs: 30}`."""
    draws: str | None = None
    """`STREAM` or `STREAM/ORDER`: which crops its images have, and in which order they come.
    Weights, order and crops depend on this and on the seed, not on the stage's name."""
    sampler: str | None = None
    """Which images an epoch draws (docs/plans.md)."""
    source: str | None = None
    """The trained stage that is frozen: `STAGE` of this method, or `METHOD:STAGE`."""
    teacher: str | None = None
    """The trained stage whose answers are soft labels."""
    weights: Literal["last", "best"] = "last"
    """Of the source or teacher: after its last epoch, or at its best on the validation split."""
    reads: str | None = None
    """Where a frozen network's answers come from: a table of this method or `METHOD:TABLE`; `plan`,
    a table of the stage's own draws; `images`, asking it at every step."""
    bind: str | None = None
    """Keep to the views of this table without reading it."""
    batchnorm: Literal["frozen", "recalibrated", "batch"] | None = None
    """Of the frozen network; the recipe's where not given."""
    model: dict[str, Any] = field(default_factory=dict)
    """What differs from the recipe's `model`."""
    rows: dict[str, str] = field(default_factory=dict)
    """The report's name of each head; heads without one are not reported."""


@dataclass(frozen=True, kw_only=True)
class TableKeys:
    """What a table's block may say; views, store and the like default to the recipe's `tables`."""

    source: str
    """The trained stage that is asked."""
    draws: str
    """The stream of its crops."""
    weights: Literal["last", "best"] = "last"
    """Of the source."""
    head: str | None = None
    """Of the source; its first where not given."""
    transform: Literal["train", "test"] = "train"
    """The augmentation of its images."""
    batchnorm: Literal["frozen", "recalibrated", "batch"] | None = None
    """Of the network that is asked; the recipe's where not given."""
    views: int | None = None
    """Of each image; 0: one for each epoch of the stage that reads the table longest."""
    store: Literal["logits", "features", "topk"] | None = None
    """What is kept."""
    dtype: Literal["float32", "float16"] | None = None
    """Of what is kept."""
    topk: int | None = None
    """Logits kept of each image, of a `topk` table."""
    bytes: int | None = None
    """Size of a `topk` table at most."""
    kept_mass: float | None = None
    """Mean share of the softened teacher that is kept, of a `topk` table."""
