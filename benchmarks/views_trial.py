"""One trial of the views study: a seed's stage I and table, and a variant's II to IV on it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastssd.augment.augmentation import Augmentation, AugmentedViews
from fastssd.augment.boxes import ResizedCrop
from fastssd.augment.recipe import Recipe
from fastssd.augment.recipes import build_recipe
from fastssd.config import Budget, ModelConfig
from fastssd.core.counter_rng import key_of
from fastssd.core.files import write_atomically
from fastssd.core.schema import Chosen
from fastssd.data.dataset import Dataset, Split, open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.draws import Draws
from fastssd.data.plans import ClassIndex, Plan, bind
from fastssd.evaluation.metrics import accuracies
from fastssd.losses.distillation import distillation_loss
from fastssd.methods.batch import Batch, Moment
from fastssd.methods.method import Parts
from fastssd.methods.options import RotationOptions, SupervisedOptions
from fastssd.methods.supervised import Supervised
from fastssd.models.backbones import build_backbone
from fastssd.models.heads import ClassScale, build_head
from fastssd.models.seeding import seeded
from fastssd.training.checkpoints import load_weights, save_weights
from fastssd.training.learning_rate import learning_rate

Array = NDArray[np.float32]
Source = Literal["rows", "fresh"]

SIZE, EPOCHS, BATCH, BACKBONE = 32, 20, 128, "resnet8"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CROPS = Recipe(name="resized_32", size=SIZE, crop=ResizedCrop(scale=(0.25, 1.0)), flip=0.5)
SGD: dict[str, Any] = {"batch_size": BATCH, "lr": 0.1, "nesterov": True, "weight_decay": 2e-4}
SCRATCH = Budget(epochs=EPOCHS, **SGD)
BALANCE = Budget(epochs=5, batch_size=512, lr=0.2, weight_decay=2e-4)
TEMPERATURE = 2.0
_MOMENT = Moment(epoch=0, epochs=EPOCHS, step=0, steps_per_epoch=1)  # the losses do not look at it


@dataclass(frozen=True, slots=True)
class Variant:
    """What stage III sees and is told.

    Attributes:
        name: In the tables.
        views: K, rows of each sample.
        crops: Whether the student sees the rows' crops, or a new one at every draw.
        flips: The same of the flips alone.
        label: The row of the crop, the mean of all K rows, the clean image's, or the teacher's
            answer to the very image (`online`).
        plan: The sampler of stage III.
    """

    name: str
    views: int
    crops: Source = "rows"
    flips: Source = "rows"
    label: Literal["row", "mean", "clean", "online"] = "row"
    plan: str = "instance"


VARIANTS = [
    # In the order of what one would give up last.
    Variant("K = 1", 1),
    Variant("K = 4", 4),
    Variant(f"K = {EPOCHS} (epochs)", EPOCHS),
    Variant("K = 1, clean", 1, crops="fresh", flips="fresh", label="clean"),
    Variant("K = 10", 10),
    Variant("K = 2", 2),
    Variant("K = 4, fresh flips", 4, flips="fresh"),
    Variant("mean of 10, fresh crops", 10, crops="fresh", flips="fresh", label="mean"),
    Variant("class-balanced, K = 4", 4, plan="class_balanced"),
    Variant(f"class-balanced, K = {EPOCHS}", EPOCHS, plan="class_balanced"),
    Variant("class-balanced, K = 1", 1, plan="class_balanced"),
    Variant(
        "class-balanced, online",
        EPOCHS,
        crops="fresh",
        flips="fresh",
        label="online",
        plan="class_balanced",
    ),
    Variant("K = 1, fresh flips", 1, flips="fresh"),
]


class Images:
    """The views of a split's samples, cut and finished.

    Args:
        split: Of a dataset in memory format.
        seed: Of the views.
        stream: Of the views; `test` shows whole images.
    """

    def __init__(self, split: Split, *, seed: int, stream: str, rotate: bool = False) -> None:
        self._split, self._decoder = split, build_decoder()
        recipe = build_recipe("whole", SIZE) if stream == "test" else CROPS
        self._augmentation = Augmentation(
            recipe, rotate=rotate, mean=MEAN, std=STD, seed=seed, stream=stream
        )

    def views(self, crops: Draws, flips: Draws | None = None) -> AugmentedViews:
        """Return the images of draws; `flips` takes all but the crop from other views."""
        sizes = self._split.sizes[crops.samples]
        boxes = self._augmentation.boxes(crops.samples, crops.views, sizes)
        stored = [self._split.storage.read(int(sample)) for sample in crops.samples]
        pixels = torch.from_numpy(self._decoder.decode(stored, boxes, SIZE))
        others = crops if flips is None else flips
        parameters = self._augmentation.parameters(others.samples, others.views)
        return self._augmentation.apply(
            pixels, {name: torch.from_numpy(values) for name, values in parameters.items()}
        )


class Teacher(nn.Module):
    """A frozen backbone and classifier."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def logits(self, images: Images, draws: Draws) -> Array:
        """Return (B, C) logits of draws."""
        parts = []
        for start in range(0, len(draws), 512):
            query = images.views(draws[start : start + 512]).query
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(self.head(self.backbone(query)).float().numpy())
        return np.concatenate(parts)


def optimizer_of(parameters: Sequence[nn.Parameter], budget: Budget) -> torch.optim.SGD:
    """Return SGD with a stage's settings."""
    return torch.optim.SGD(
        parameters,
        lr=budget.lr,
        momentum=budget.momentum,
        nesterov=budget.nesterov,
        weight_decay=budget.weight_decay,
    )


def steps(plan: Plan, budget: Budget) -> Iterator[tuple[float, Draws]]:
    """Yield the learning rate and draws of every full batch of all epochs."""
    per_epoch = len(plan.index) // budget.batch_size
    for epoch in range(budget.epochs):
        draws = plan.epoch(epoch)
        for number in range(per_epoch):
            step = epoch * per_epoch + number
            rate = learning_rate(budget, step, steps_per_epoch=per_epoch)
            start = number * budget.batch_size
            yield rate, draws[start : start + budget.batch_size]


def minimise(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Take one step."""
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def learned_scales(index: ClassIndex, rows: Array, *, seed: int, part: str) -> ClassScale:
    """Return LWS's scales, learned from (N, K, C) rows under class-aware sampling."""
    plan = Plan(
        index=index,
        sampler="class_aware",
        seed=seed,
        stream=part,
        num_epochs=BALANCE.epochs,
        num_views=rows.shape[1],
    )
    scale = ClassScale(rows.shape[2])
    optimizer = optimizer_of([*scale.parameters()], BALANCE)
    for rate, draws in steps(plan, BALANCE):
        logits = scale(torch.from_numpy(rows[draws.samples, draws.views]))
        labels = torch.from_numpy(index.labels[draws.samples])
        minimise(optimizer, torch.nn.functional.cross_entropy(logits, labels), rate)
    return scale


def measured(logits: Array, split: Split, counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Return a split's accuracies by shot group, in percent."""
    hits = logits.argmax(axis=1) == split.labels
    num_classes = len(counts)
    correct = np.bincount(split.labels[hits], minlength=num_classes)
    total = np.bincount(split.labels, minlength=num_classes)
    groups = accuracies(correct, total, counts)
    return {name: groups[name] for name in ("overall", "many", "medium", "few")}


def all_of(split: Split, view: int = 0) -> Draws:
    """Return one view of every sample."""
    samples = np.arange(len(split), dtype=np.int64)
    return Draws(samples, np.full_like(samples, view))


def network(seed: int, part: str, num_classes: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return a backbone and two heads with the initial weights of a part of the run."""
    backbone = build_backbone(BACKBONE, seed=key_of(seed, part))
    with seeded(seed, f"{part}/heads"):
        heads = [build_head("linear", backbone.width, num_classes) for _ in range(2)]
    return backbone.to(memory_format=torch.channels_last), heads[0], heads[1]


def prepare(dataset: Dataset, folder: Path, seed: int) -> None:
    """Train stage I of a seed and tabulate it: `features.safetensors`, `rows.npy`, `clean.npy`."""
    train = dataset.split("train")
    index = ClassIndex(train.labels, len(dataset.classes))
    backbone, classifier, _ = network(seed, "features", len(dataset.classes))
    options = SupervisedOptions(task=Chosen("rotation", RotationOptions()))
    parts = Parts(
        seed=seed,
        order="features",
        num_classes=len(dataset.classes),
        counts=train.counts,
        model=ModelConfig(backbone=BACKBONE),
    )
    method = Supervised(options, parts)
    method.backbone, method.classifier = backbone, classifier
    optimizer = optimizer_of([*method.parameters()], SCRATCH)
    images = Images(train, seed=seed, stream="features", rotate=True)
    plan = Plan(index=index, sampler="instance", seed=seed, stream="features", num_epochs=EPOCHS)
    started = time.perf_counter()
    method.train()
    for rate, draws in steps(plan, SCRATCH):
        labels = torch.from_numpy(train.labels[draws.samples])
        batch = Batch(draws=draws, labels=labels, views=images.views(draws))
        with torch.autocast("cpu", torch.bfloat16):
            losses = method(batch, _MOMENT).losses
        minimise(optimizer, torch.stack([*losses.values()]).sum(), rate)
    seconds = {"features": time.perf_counter() - started}
    teacher = Teacher(backbone, classifier)
    views = Images(train, seed=seed, stream="distill")
    started = time.perf_counter()
    rows = np.stack([teacher.logits(views, all_of(train, k)) for k in range(EPOCHS)], axis=1)
    seconds["table_view"] = (time.perf_counter() - started) / EPOCHS
    clean = teacher.logits(Images(train, seed=seed, stream="test"), all_of(train))
    rest = {
        name: teacher.logits(Images(split, seed=seed, stream="test"), all_of(split))
        for name in ("val", "test")
        for split in [dataset.split(name)]
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "features.safetensors", nn.ModuleList([backbone, classifier]))
    for name, values in {"rows": rows, "clean": clean, **rest}.items():
        np.save(folder / f"{name}.npy", values)
    write_atomically(folder / "seconds.json", json.dumps(seconds))


def run(dataset_path: Path, output: Path, variant: Variant, seed: int) -> dict[str, Any]:
    """Return what a variant reaches with a seed: accuracies of II, III and IV, and seconds."""
    torch.set_num_threads(1)
    dataset = open_dataset(dataset_path)
    train, num_classes = dataset.split("train"), len(dataset.classes)
    index = ClassIndex(train.labels, num_classes)
    folder = output / f"seed-{seed}"
    if not (folder / "seconds.json").exists():
        prepare(dataset, folder, seed)
    all_rows: Array = np.load(folder / "rows.npy")
    rows = all_rows[:, : variant.views]
    if variant.label == "clean":
        rows = np.load(folder / "clean.npy")[:, None]
    elif variant.label == "mean":
        rows = rows.mean(axis=1, keepdims=True)
    result: dict[str, Any] = {"variant": variant.name, "seed": seed, "views": variant.views}
    splits = {name: dataset.split(name) for name in ("val", "test")}

    scale = learned_scales(index, rows, seed=seed, part="balance-II").requires_grad_(False)
    for name, split in splits.items():
        logits = scale(torch.from_numpy(np.load(folder / f"{name}.npy"))).numpy()
        result[f"II {name}"] = measured(logits, split, train.counts)

    started = time.perf_counter()
    student, hard, soft = _distilled(variant, train, index, rows, scale, folder, seed)
    result["seconds III"] = time.perf_counter() - started
    for name, split in splits.items():
        images = Images(split, seed=seed, stream="test")
        for head_name, head in (("III-hard", hard), ("III-soft", soft)):
            logits = Teacher(student, head).logits(images, all_of(split))
            result[f"{head_name} {name}"] = measured(logits, split, train.counts)
            if head is hard:
                result[f"_{name}"] = logits
    started = time.perf_counter()
    frozen, views = Teacher(student, hard), Images(train, seed=seed, stream="balance")
    of_student = np.stack([frozen.logits(views, all_of(train, k)) for k in range(5)], axis=1)
    scale = learned_scales(index, of_student, seed=seed, part="balance-IV").requires_grad_(False)
    result["seconds IV"] = time.perf_counter() - started
    for name, split in splits.items():
        logits = scale(torch.from_numpy(result.pop(f"_{name}"))).numpy()
        result[f"IV {name}"] = measured(logits, split, train.counts)
    return result


def _distilled(
    variant: Variant,
    train: Split,
    index: ClassIndex,
    rows: Array,
    scale: ClassScale,
    folder: Path,
    seed: int,
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return the student of a variant with its two heads."""
    backbone, classifier, _ = network(seed, "features", index.num_classes)
    load_weights(folder / "features.safetensors", nn.ModuleList([backbone, classifier]))
    teacher = Teacher(backbone, classifier)
    student, hard, soft = network(seed, "distill", index.num_classes)
    parameters = [p for module in (student, hard, soft) for p in module.parameters()]
    optimizer = optimizer_of(parameters, SCRATCH)
    images = Images(train, seed=seed, stream="distill")
    plan = Plan(index=index, sampler=variant.plan, seed=seed, stream="distill", num_epochs=EPOCHS)
    for rate, fresh in steps(plan, SCRATCH):
        bound = bind(fresh, variant.views, seed)
        crops = fresh if variant.crops == "fresh" else bound
        query = images.views(crops, fresh if variant.flips == "fresh" else bound).query
        labels = torch.from_numpy(index.labels[fresh.samples])
        with torch.autocast("cpu", torch.bfloat16):
            if variant.label == "online":
                with torch.no_grad():
                    said = teacher.head(teacher.backbone(query)).float()
            elif variant.label == "row":
                said = torch.from_numpy(rows[bound.samples, bound.views])
            else:
                said = torch.from_numpy(rows[fresh.samples, 0])
            feature = student(query)
            loss = torch.nn.functional.cross_entropy(hard(feature).float(), labels)
            loss = loss + distillation_loss(soft(feature), scale(said), temperature=TEMPERATURE)
        minimise(optimizer, loss, rate)
    return student, hard, soft
