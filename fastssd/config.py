"""The schema of a recipe: what a config may say, its defaults, and what contradicts itself.

Fields of one class are keys of one section of the YAML file; beside each number stand its least and
its most. Durations are in epochs, sizes in pixels, batch sizes in images per optimizer step over
all processes together.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from fastssd.core.bounds import ANY_INTEGER, YEAR, between, check_numbers, positive
from fastssd.errors import ConfigError

MAX_EPOCHS = 2**32 - 1
"""What a view number has room for."""
MAX_BATCH = 2**20
MAX_THREADS = 1_024
"""More than machines have cores; threads that cannot be started fail without naming a key."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images are and how they are read."""

    path: str
    """The dataset directory that tools/convert_dataset.py made."""
    decoder: str = "auto"
    """What turns stored bytes into pixels; `auto` takes the fastest that is installed."""
    threads: int = field(default=0, metadata=between(0, MAX_THREADS))
    """Decode threads of each process; 0 shares the machine's cores among the processes."""
    prefetch: int = field(default=4, metadata=between(0, 1_000))
    """Batches decoded ahead of the one in use."""
    read_ahead: int = field(default=4, metadata=between(0, 10_000))
    """Batches beyond those, whose bytes the system is asked to read from the disk."""
    timeout: float = field(default=600.0, metadata=positive(YEAR))
    """Seconds after which a batch that does not come ends the run with an error."""
    on_error: Literal["raise", "replace"] = "raise"
    """What a training image that cannot be decoded does: end the run, or be replaced by the next
    sample of its class and be listed in the report. Images that are evaluated always raise."""
    device_images: Literal["auto", "never", "always"] = "auto"
    """Whether a `memory` dataset is kept in the accelerator's memory and crops are cut there;
    `auto`: where it takes at most half of its memory."""
    train: str = "train"
    """The split that is trained on."""
    validation: str | None = None
    """The split evaluated during training, from which `best` checkpoints are chosen."""
    test: str = "test"
    """The split that the report's rows are measured on, once, after training."""

    def __post_init__(self) -> None:
        _named(self, "path")
        check_numbers("", self)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What the networks see of an image; names are those of fastssd/augment/recipes.py."""

    size: int = field(metadata=between(1, 4_096))
    """Side of the square that the networks see."""
    mean: list[float] = field(
        default_factory=lambda: [0.485, 0.456, 0.406], metadata=between(-1e6, 1e6)
    )
    """Subtracted from each channel in [0, 1]; the default is ImageNet's."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225], metadata=positive(1e6))
    """Each channel is divided by this afterwards."""
    train: str = "imagenet"
    """Augmentation of training images."""
    key: str = "moco_v2"
    """Augmentation of the momentum encoder's images (instance discrimination only)."""
    test: str = "center"
    """Augmentation of images that are evaluated."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ConfigError(f"{name} needs three numbers, one a channel")
        check_numbers("", self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network; a stage's block may differ from the recipe's in `model`."""

    backbone: str = "resnet32"
    """`resnet8` to `resnet110` (CIFAR's), `torchvision/NAME`, `timm/NAME` or `plaincnn`."""
    head: str = "linear"
    """The classifier on the backbone's feature, where a stage names none: `linear` or `cosine`."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and how fast weights learn."""

    epochs: int = field(metadata=between(1, MAX_EPOCHS))
    """An epoch is as many draws as there are training images."""
    batch_size: int = field(metadata=between(1, MAX_BATCH))
    """Images per optimizer step over all processes and micro-batches."""
    lr: float = field(metadata=positive(1e6))
    """Peak learning rate, for this batch size."""
    momentum: float = field(default=0.9, metadata=between(0, 1))
    """Of SGD."""
    nesterov: bool = False
    """SGD's Nesterov form; BBN's CIFAR recipe has it, the ImageNet-LT one has not."""
    weight_decay: float = field(default=5e-4, metadata=between(0, 1e6))
    """L2, on every weight that learns."""
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    """`cosine` falls to 0; `multistep` multiplies by `decay` at each milestone."""
    update: Literal["epoch", "step"] = "epoch"
    """How often the cosine moves; the reference code moves it once an epoch."""
    warmup_epochs: int = field(default=0, metadata=between(0, MAX_EPOCHS))
    """Epochs of linear warm-up from a third of the rate (BBN's)."""
    milestones: list[int] = field(default_factory=list, metadata=between(1, MAX_EPOCHS))
    """1-based epochs from which the rate is lower (`multistep`). Where `epochs` alone is
    overridden, milestones and warm-up are scaled with it."""
    decay: float = field(default=0.1, metadata=between(0, 1e6))
    """What each milestone multiplies the rate by."""
    accumulate: int = field(default=1, metadata=between(1, MAX_BATCH))
    """Micro-batches per optimizer step."""

    def __post_init__(self) -> None:
        check_numbers("", self)
        if self.milestones and self.schedule != "multistep":
            raise ConfigError(
                f"milestones={list(self.milestones)} but schedule={self.schedule}: write "
                "schedule: multistep"
            )
        if self.schedule == "multistep" and not self.milestones:
            raise ConfigError("schedule=multistep needs milestones")
        if self.milestones and max(self.milestones) > self.epochs:
            raise ConfigError(
                f"milestones={list(self.milestones)} lie beyond the {self.epochs} epochs"
            )
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov=true needs momentum above 0")


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """What tables hold, where a method's file does not say otherwise (docs/tables.md)."""

    views: int = field(default=0, metadata=between(0, MAX_EPOCHS))
    """Views of each image; 0: one for each epoch of the stage that reads the table longest."""
    store: Literal["logits", "features", "topk"] = "logits"
    """`logits`; `features`, smaller where there are more classes than features; `topk`, of
    one table alone: a teacher's largest logits with the mass of the others, to distil from."""
    dtype: Literal["float32", "float16"] = "float16"
    """Of logits or features."""
    topk: int = field(default=0, metadata=between(0, ANY_INTEGER))
    """Logits that a `topk` table keeps of each image; 0: as many as `bytes` has room for, or as
    `kept_mass` asks for."""
    bytes: int = field(default=0, metadata=between(0, ANY_INTEGER))
    """Size of a `topk` table at most, over all its views; 0: as `kept_mass` asks for."""
    kept_mass: float = field(default=0.9, metadata=positive(1))
    """Mean share of the softened teacher that the kept logits of a `topk` table have."""

    def __post_init__(self) -> None:
        check_numbers("", self)
        if self.topk and self.bytes:
            raise ConfigError("topk and bytes both say how many logits to keep: give one of them")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Measuring accuracy."""

    batch_size: int = field(default=512, metadata=between(1, MAX_BATCH))
    """Images at a time over all processes; does not change any number."""
    every: int = field(default=1, metadata=between(1, MAX_EPOCHS))
    """Epochs between evaluations on the validation split."""

    def __post_init__(self) -> None:
        check_numbers("", self)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written while training."""

    every: int = field(default=50, metadata=between(1, ANY_INTEGER))
    """Steps between log lines; each line waits for the device once."""
    trace: bool = False
    """Also write digests of every step's draws and pixels, and its losses, to trace.jsonl."""

    def __post_init__(self) -> None:
        check_numbers("", self)


def _default_budgets() -> dict[str, Budget]:
    return {
        "scratch": Budget(epochs=90, batch_size=256, lr=0.1),
        "classifier": Budget(epochs=5, batch_size=512, lr=0.2),
    }


@dataclass(frozen=True, kw_only=True)
class Config:
    """A recipe: everything about a dataset, and which methods are trained on it."""

    output: str
    """The run directory."""
    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    methods: list[Any] = field(default_factory=lambda: ["ce", "lws", "ssd"])
    """Names of `configs/methods/`, files of your own, or variants: `{name: ssd_no_task, base: ssd,
    I.task.kind: none}`."""
    budgets: dict[str, Budget] = field(default_factory=_default_budgets)
    """By the names that methods use: `scratch` trains a network, `classifier` re-balances one."""
    options: dict[str, Any] = field(default_factory=dict)
    """What this dataset asks of methods: `ldam_drw.model.loss.max_margin: 0.3`."""
    tables: TableConfig = field(default_factory=TableConfig)
    batchnorm: Literal["frozen", "recalibrated", "batch"] = "frozen"
    """Statistics of frozen networks: as trained; refreshed by one class-balanced pass; or each
    batch's own, as in the reference code (from images only)."""
    seed: int = field(default=0, metadata=between(-ANY_INTEGER, ANY_INTEGER))
    seeds: list[int] = field(default_factory=list, metadata=between(-ANY_INTEGER, ANY_INTEGER))
    """Repeat everything with each of these seeds; empty: with `seed` alone."""
    deterministic: bool = False
    """The same command on the same kind of machine ends with the same bits; may be slower."""
    precision: Literal["no", "fp16", "bf16"] = "no"
    """Of the networks' forward passes; `no` is float32."""
    compile: bool = False
    """Compile the backbones with torch.compile: seconds to minutes before each stage's first step,
    then faster steps on most GPUs. Needs a C++ compiler, and Triton on a GPU."""
    compute_threads: int = field(default=0, metadata=between(0, MAX_THREADS))
    """CPU threads of each process's networks; 0 shares the cores among the processes."""
    watchdog: int = field(default=600, metadata=between(0, YEAR))
    """Seconds without any progress, in this process or another that it waits for, after which it
    ends with a message; 0: never. More than the longest step, compilation and report take."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    published: dict[str, Any] = field(default_factory=dict)
    """Published accuracies by row, for the report: `SSD IV: 46.0`, or a list of many, medium, few
    and all classes."""

    def __post_init__(self) -> None:
        _named(self, "output")
        check_numbers("", self)
        if any("\ud800" <= char <= "\udfff" for char in self.output):
            raise ConfigError(
                f"output={self.output} is not UTF-8: safetensors could not open the weights there"
            )
        if self.tables.store == "topk":
            raise ConfigError(
                "tables.store=topk: no scales can be learned from a network's top logits: choose "
                "logits or features here, and read a teacher's by ssd.III.reads=S (docs/tables.md)"
            )
        if not self.methods:
            raise ConfigError("methods=[] trains nothing: name methods, such as [ce, lws, ssd]")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds={list(self.seeds)} has a seed twice")

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that are trained."""
        return list(self.seeds) or [self.seed]


def _named(values: object, name: str) -> None:
    path = getattr(values, name)
    if not path:
        raise ConfigError(f"{name} is empty: name a directory")
    if "\0" in path:
        raise ConfigError(f"{name} holds a zero byte: no directory is called so")
