"""The schema of a recipe: what a config may say, its defaults, and what contradicts itself.

Fields of one class are keys of one section of the YAML file; beside each number stand its least and
its most. Durations are in epochs, sizes in pixels, batch sizes in images per optimizer step over
all processes together.
"""

from dataclasses import dataclass, field
from typing import Literal

from fastssd.bounds import ANY_INTEGER, YEAR, between, check_numbers, positive
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
    timeout: float = field(default=600, metadata=positive(YEAR))
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
    """The split evaluated during training; `best` checkpoints have its best class mean."""
    test: str = "test"
    """The split that the report's rows are measured on, once, after training."""

    def __post_init__(self) -> None:
        _named("data", self, "path")
        check_numbers("data", self)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What the networks see of an image; the names are those of fastssd/augment/recipes.py."""

    size: int = field(metadata=between(1, 4_096))
    """Side of the square that the networks see."""
    mean: list[float] = field(
        default_factory=lambda: [0.485, 0.456, 0.406], metadata=between(-1e6, 1e6)
    )
    """Subtracted from each channel in [0, 1]; the default is ImageNet's."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225], metadata=positive(1e6))
    """Each channel is divided by this afterwards."""
    query: str = "imagenet"
    """Recipe of training images."""
    key: str = "moco_v2"
    """Recipe of the momentum encoder's images (instance discrimination only)."""
    test: str = "center"
    """Recipe of images that are evaluated."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ConfigError(f"augment.{name} needs three numbers, one a channel")
        check_numbers("augment", self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network of stages I and III."""

    backbone: str = "resnet32"
    """`resnet8` to `resnet110` (CIFAR's), `torchvision/NAME`, `timm/NAME` or `plaincnn`."""
    head: Literal["linear", "cosine"] = "linear"
    """The classifier on the backbone's feature."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how fast weights learn: common to all stages."""

    epochs: int = field(metadata=between(1, MAX_EPOCHS))
    """Passes over as many draws as there are training images."""
    batch_size: int = field(metadata=between(1, MAX_BATCH))
    """Images per optimizer step over all processes and micro-batches."""
    lr: float = field(metadata=positive(1e6))
    """Peak learning rate, for this batch size."""
    plan: str = "instance"
    """The sampler, with its options after a colon: `class_aware:per_class=2` (docs/plans.md)."""
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
    """1-based epochs from which the rate is lower (`multistep`)."""
    decay: float = field(default=0.1, metadata=between(0, 1e6))
    """What each milestone multiplies the rate by."""
    accumulate: int = field(default=1, metadata=between(1, MAX_BATCH))
    """Micro-batches per optimizer step."""

    def _check(self, section: str) -> None:
        check_numbers(section, self)
        if self.milestones and self.schedule != "multistep":
            raise ConfigError(
                f"{section}.milestones is set but {section}.schedule={self.schedule}: "
                f"write {section}.schedule: multistep"
            )
        if self.schedule == "multistep" and not self.milestones:
            raise ConfigError(f"{section}.schedule=multistep needs {section}.milestones")
        if self.nesterov and self.momentum == 0:
            raise ConfigError(f"{section}.nesterov needs {section}.momentum above 0")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(TrainingConfig):
    """Stage I, and with task `none` the CE baseline on the same budget."""

    epochs: int = 90
    batch_size: int = 256
    lr: float = 0.1
    task: Literal["none", "rotation", "instance"] = "rotation"
    """The self-supervised task beside cross-entropy."""
    task_weight: float = field(default=1.0, metadata=between(0, 1e6))
    """alpha_2 of the paper's equation 1."""
    forward: Literal["joint", "separate"] = "joint"
    """Whether BatchNorm sees upright and rotated images as one batch or as two."""
    queue: int = field(default=65_536, metadata=between(1, 2**24))
    """Keys kept as negatives (instance). Paper 4.2.1; the reference code's default is 115,712."""
    temperature: float = field(default=0.2, metadata=positive(1e6))
    """tau of the paper's equation 2 (instance)."""
    encoder_momentum: float = field(default=0.999, metadata=between(0, 1))
    """m of the momentum encoder (instance)."""
    embedding: int = field(default=128, metadata=between(1, 2**16))
    """Width of the projected vectors (instance)."""
    mask_same_class: bool = False
    """Leave keys of the query's own class out of the negatives, as the reference code does."""
    shuffle_keys: bool = True
    """Deal keys to other processes, so that BatchNorm can't tell a query's own key."""

    def __post_init__(self) -> None:
        self._check("features")
        if self.task == "instance" and self.queue < self.batch_size:
            raise ConfigError(
                f"features.queue={self.queue} must hold at least one batch of "
                f"features.batch_size={self.batch_size} keys"
            )


@dataclass(frozen=True, kw_only=True)
class BalanceConfig(TrainingConfig):
    """Stages II and IV and the LWS baseline: one scale a class, everything else frozen."""

    epochs: int = 5
    batch_size: int = 512
    lr: float = 0.2
    plan: str = "class_aware"
    source: Literal["table", "images"] = "table"
    """Whether the frozen network's logits are read from a table or made from images anew."""

    def __post_init__(self) -> None:
        self._check("balance")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """Stage III: a fresh network under hard labels on one head and soft labels on the other."""

    epochs: int = 90
    batch_size: int = 256
    lr: float = 0.1
    temperature: float = field(default=2.0, metadata=positive(1e6))
    """T of the paper's equation 4."""
    hard_weight: float = field(default=1.0, metadata=between(0, 1e6))
    """lambda_1, of the hard head's cross-entropy."""
    soft_weight: float = field(default=1.0, metadata=between(0, 1e6))
    """lambda_2, of the soft head's distillation."""
    teacher: Literal["table", "online"] = "table"
    """Whether the teacher's logits are read from a table or the teacher runs at every step."""

    def __post_init__(self) -> None:
        self._check("distill")


@dataclass(frozen=True, kw_only=True)
class FrozenConfig:
    """The frozen networks of stages II to IV and the tables of what they say."""

    batchnorm: Literal["frozen", "recalibrated", "batch"] = "frozen"
    """Running statistics; those refreshed by one class-balanced pass; or each batch's own."""
    views: int = field(default=0, metadata=between(0, MAX_EPOCHS))
    """Views of each image that stages II and III share; 0: one for each of stage III's epochs."""
    dtype: Literal["float32", "float16"] = "float16"
    """Of a table's logits or features."""
    store: Literal["logits", "features", "topk"] = "logits"
    """What a table holds; `topk` is stage III's alone (docs/tables.md)."""
    topk: int = field(default=0, metadata=between(0, 2**31))
    """Logits that a `topk` table keeps of each image; 0: as many as `table_bytes` has room for, or
    as `kept_mass` asks for."""
    table_bytes: int = field(default=0, metadata=between(0, 2**60))
    """Size of a `topk` table at most, over all its views; 0: as `kept_mass` asks for."""
    kept_mass: float = field(default=0.9, metadata=positive(1))
    """Mean share of the softened teacher that the kept logits of a `topk` table have."""

    def __post_init__(self) -> None:
        check_numbers("frozen", self)
        if self.topk and self.table_bytes:
            raise ConfigError("frozen.topk and frozen.table_bytes both say how many logits to keep")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Measuring accuracy."""

    batch_size: int = field(default=512, metadata=between(1, MAX_BATCH))
    """Images at a time over all processes; does not change any number."""
    every: int = field(default=1, metadata=between(1, MAX_EPOCHS))
    """Epochs between evaluations on the validation split."""

    def __post_init__(self) -> None:
        check_numbers("evaluation", self)


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written while training."""

    every: int = field(default=50, metadata=between(1, ANY_INTEGER))
    """Steps between log lines; each line waits for the device once."""
    trace: bool = False
    """Also write digests of every step's draws and pixels, and its losses, to trace.jsonl."""

    def __post_init__(self) -> None:
        check_numbers("log", self)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A recipe, complete for all stages of a run."""

    output: str
    """The run directory."""
    data: DataConfig
    augment: AugmentConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    seed: int = field(default=0, metadata=between(-ANY_INTEGER, ANY_INTEGER))
    deterministic: bool = False
    """Bits repeat on the same device type, threads, processes and versions; may be slower."""
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
    stages: list[str] = field(default_factory=lambda: ["I", "II", "III", "IV"])
    """SSD's stages to run; each needs those before it."""
    baselines: list[str] = field(default_factory=lambda: ["CE", "LWS"])
    """Baselines to train beside them on stage I's and II's budget."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    frozen: FrozenConfig = field(default_factory=FrozenConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        _named("", self, "output")
        if any("\ud800" <= char <= "\udfff" for char in self.output):
            raise ConfigError(
                f"output={self.output} is not UTF-8: safetensors could not open the weights there"
            )
        check_numbers("", self)
        order = ["I", "II", "III", "IV"]
        if self.stages != order[: len(self.stages)]:
            raise ConfigError(
                f"stages={self.stages} must be {order} or its beginning: each stage stands on "
                "those before it"
            )
        if self.baselines not in ([], ["CE"], ["CE", "LWS"]):
            raise ConfigError(f"baselines={self.baselines} must be [], [CE] or [CE, LWS]")
        if self.frozen.batchnorm == "batch":
            for key, value, needed in (
                ("balance.source", self.balance.source, "images"),
                ("distill.teacher", self.distill.teacher, "online"),
            ):
                if value != needed:
                    raise ConfigError(
                        f"frozen.batchnorm=batch makes an image's logits depend on its batch, so "
                        f"no table can hold them: set {key}={needed}, or frozen.batchnorm to "
                        "frozen or recalibrated"
                    )


def _named(section: str, values: object, name: str) -> None:
    path = getattr(values, name)
    if not path:
        raise ConfigError(f"{_key(section, name)} is empty: name a directory")
    if "\0" in path:
        raise ConfigError(f"{_key(section, name)} holds a zero byte: no directory is called so")


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name
