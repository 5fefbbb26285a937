"""What a recipe may say of each method's stage. Known without PyTorch, so that a graph is at once.

A stage's block holds these keys beside those of every stage (`fastssd.runtime.graph.StageKeys`).
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fastssd.config import Budget
from fastssd.core.bounds import between, check_numbers, positive
from fastssd.core.registry import Registry
from fastssd.core.schema import Chosen, chosen
from fastssd.errors import ConfigError

LABELS, TEACHER = "labels", "teacher"


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """What all methods' options have: what the graph needs to know of a stage."""

    ROLES: ClassVar[tuple[str, ...]] = ()
    """References to trained stages that must be given: `source`, `teacher`."""
    TRAINS: ClassVar[bool] = True
    """Whether weights learn over epochs, so that a budget and draws are needed."""
    SAMPLER: ClassVar[str] = "instance"
    """Where a block names none."""
    READS: ClassVar[tuple[str, ...]] = ("images",)
    """What batches may be read from, the default first: `images`; `plan`, a table of the stage's
    own draws; `table`, one that the method's file names."""

    SEES_IMAGES: ClassVar[bool] = True
    """Whether it needs images also where a table is read."""
    READS_TRAIN: ClassVar[bool] = False
    """Whether it is made, without training, from the features of every training image."""
    REBALANCES: ClassVar[bool] = False
    """Whether its network is its source's with something on top, so that a table of the source
    serves who learns from it."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that the stage predicts with."""
        return ("classifier",)

    @property
    def source_head(self) -> str | None:
        """Which head of its `source` it stands on."""
        return None

    @property
    def stores(self) -> tuple[str, ...]:
        """What a table must hold for it, the default first."""
        return ()

    @property
    def slots(self) -> tuple[str, ...]:
        """The recipe's augmentations that its images go through, beside `train`."""
        return ()

    @property
    def memory(self) -> tuple[int, str] | None:
        """Bytes that it keeps on the device beside its networks, and what of; None for little."""
        return None

    def check(self, budget: Budget) -> None:
        """Raise ConfigError where the options do not go with a budget."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What all tasks' options have."""

    SLOTS: ClassVar[tuple[str, ...]] = ()
    """Augmentations of the recipe that it needs beside `train`."""

    @property
    def memory(self) -> tuple[int, str] | None:
        """Bytes that it keeps on the device beside its networks, and what of; None for little."""
        return None

    def check(self, budget: Budget) -> None:
        """Raise ConfigError where the options do not go with a budget."""


@dataclass(frozen=True, kw_only=True)
class NoTaskOptions(TaskOptions):
    """The supervised loss alone."""


@dataclass(frozen=True, kw_only=True)
class RotationOptions(TaskOptions):
    """Telling by which of four angles an image was turned."""

    weight: float = field(default=1.0, metadata=between(0, 1e6))
    """alpha_2 of the paper's equation 1."""
    forward: Literal["joint", "separate"] = "joint"
    """Whether BatchNorm sees upright and rotated images as one batch or as two."""

    def __post_init__(self) -> None:
        check_numbers("", self)


@dataclass(frozen=True, kw_only=True)
class InstanceOptions(TaskOptions):
    """Instance discrimination with a momentum encoder and a queue of keys (MoCo)."""

    SLOTS: ClassVar[tuple[str, ...]] = ("key",)

    weight: float = field(default=1.0, metadata=between(0, 1e6))
    """alpha_2 of the paper's equation 1."""
    queue: int = field(default=65_536, metadata=between(1, 2**40))
    """Keys kept as negatives. Paper 4.2.1; the reference code's default is 115,712."""
    temperature: float = field(default=0.2, metadata=positive(1e6))
    """tau of the paper's equation 2."""
    encoder_momentum: float = field(default=0.999, metadata=between(0, 1))
    """m of the momentum encoder."""
    embedding: int = field(default=128, metadata=between(1, 2**20))
    """Width of the projected vectors."""
    mask_same_class: bool = False
    """Leave keys of the query's own class out of the negatives, as the reference code does."""
    shuffle_keys: bool = True
    """Deal keys to other processes, so that BatchNorm can't tell a query's own key."""

    def __post_init__(self) -> None:
        check_numbers("", self)

    @property
    def memory(self) -> tuple[int, str] | None:
        what = f"task.queue={self.queue} keys of task.embedding={self.embedding}"
        return 4 * self.queue * self.embedding, what

    def check(self, budget: Budget) -> None:
        if self.queue < budget.batch_size:
            raise ConfigError(
                f"task.queue={self.queue} must hold at least one batch of {budget.batch_size} keys"
            )


_HERE, _TASKS = "fastssd.methods.options", "fastssd.methods.tasks"

TASKS: Registry[Any] = Registry(
    "task",
    {
        "none": f"{_TASKS}.task:NoTask {_HERE}:NoTaskOptions",
        "rotation": f"{_TASKS}.rotation:Rotation {_HERE}:RotationOptions",
        "instance": f"{_TASKS}.instance:Instance {_HERE}:InstanceOptions",
    },
    group="fastssd.tasks",
)
"""Self-supervised tasks: a new one is a file in `methods/tasks/` and a line here."""


def _tasks() -> Registry[Any]:
    return TASKS


def _losses() -> Registry[Any]:
    from fastssd.losses.registry import LOSSES

    return LOSSES


def _class_weights() -> Registry[Any]:
    from fastssd.losses.registry import CLASS_WEIGHTS

    return CLASS_WEIGHTS


def _heads() -> Registry[Any]:
    from fastssd.models.registry import HEADS

    return HEADS


@dataclass(frozen=True, kw_only=True)
class SupervisedOptions(MethodOptions):
    """A backbone and a classifier under one loss, with or without a self-supervised task."""

    task: Chosen = chosen(_tasks, "none")
    """The self-supervised task beside the loss: `none`, `rotation` or `instance`."""
    head: Chosen | None = chosen(_heads, None)
    """The classifier; the recipe's `model.head` where none is named."""
    loss: Chosen = chosen(_losses, "cross_entropy")
    """The supervised loss."""
    class_weights: Chosen = chosen(_class_weights, "none")
    """What an image of each class weighs in the loss, and from when."""

    @property
    def slots(self) -> tuple[str, ...]:
        return self._task.SLOTS

    @property
    def memory(self) -> tuple[int, str] | None:
        return self._task.memory

    @property
    def _task(self) -> TaskOptions:
        options: TaskOptions = self.task.options
        return options

    def check(self, budget: Budget) -> None:
        from fastssd.losses.registry import CLASS_WEIGHTS

        weights = CLASS_WEIGHTS[self.class_weights.kind](self.class_weights.options)
        weights.first_epoch(budget.epochs)
        self._task.check(budget)


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(MethodOptions):
    """A classifier re-balanced on a frozen network: its scales (LWS), or new weights (cRT)."""

    ROLES: ClassVar[tuple[str, ...]] = ("source",)
    SAMPLER: ClassVar[str] = "class_aware"
    SEES_IMAGES: ClassVar[bool] = False
    REBALANCES: ClassVar[bool] = True
    READS: ClassVar[tuple[str, ...]] = ("plan", "table", "images")

    learn: list[Literal["scales", "weights"]] = field(default_factory=lambda: ["scales"])
    """`scales`: one a class on the source's logits; `weights`: a new linear classifier."""
    head: str = "classifier"
    """Head of the source, and the name of this stage's."""
    loss: Chosen = chosen(_losses, "cross_entropy")
    """Of the re-balanced logits."""

    def __post_init__(self) -> None:
        if not self.learn or len(set(self.learn)) < len(self.learn):
            raise ConfigError(f"learn={list(self.learn)} must name scales, weights or both, once")

    @property
    def heads(self) -> tuple[str, ...]:
        return (self.head,)

    @property
    def source_head(self) -> str | None:
        return self.head

    @property
    def stores(self) -> tuple[str, ...]:
        return ("features",) if "weights" in self.learn else ("logits", "features")


@dataclass(frozen=True, kw_only=True)
class DistillOptions(MethodOptions):
    """A fresh network whose heads learn from labels, from a teacher's soft labels, or from both."""

    ROLES: ClassVar[tuple[str, ...]] = ("teacher",)
    READS: ClassVar[tuple[str, ...]] = ("images", "table")

    learns: dict[str, Any] = field(
        default_factory=lambda: {"hard": LABELS, "soft": TEACHER}, metadata={"key": "heads"}
    )
    """Heads by name, and what each learns from: `labels`, `teacher`, or a list of both."""
    temperature: float = field(default=2.0, metadata=positive(1e6))
    """T of the paper's equation 4."""
    label_weight: float = field(default=1.0, metadata=between(0, 1e6))
    """lambda_1, of the cross-entropy with the labels."""
    teacher_weight: float = field(default=1.0, metadata=between(0, 1e6))
    """lambda_2, of the distillation."""

    def __post_init__(self) -> None:
        check_numbers("", self)
        if not self.learns:
            raise ConfigError("heads={} has no head: name one, such as {classifier: teacher}")
        for head in self.learns:
            for target in self.targets(head):
                if target not in (LABELS, TEACHER):
                    raise ConfigError(f"heads.{head}={target} is neither labels nor teacher")

    def targets(self, head: str) -> list[str]:
        """Return what a head learns from."""
        value = self.learns[head]
        return list(value) if isinstance(value, list) else [value]

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(self.learns)

    @property
    def stores(self) -> tuple[str, ...]:
        return ("logits", "features", "topk")
