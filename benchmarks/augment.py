"""Augmentation after the crop: bytes of the output size in, normalised floats out, batch by batch.

    python benchmarks/augment.py [--data DIR] [--json FILE] [--batch 256] [--devices cpu]

The recipes are the query (`imagenet`: flip and colour jitter), the key (`moco_v2`: hue, grayscale
and a blur of 23 x 23 besides) and CIFAR's (a flip; its crop is cut before). All have all cores:

* fastssd: `Augmentation.parameters` and `.apply`, as a stage calls them.
* fastssd on PyTorch's operations: what runs where the kernels do not.
* kornia: `AugmentationSequential` on the float batch, parameters an image; as it is, and where
  there is a C++ compiler under `torch.compile`. On the CPU it takes chunks of 16 images of
  224 x 224, with which both are faster; small images come all at once.
* torchvision v2 per image: bytes until the end, as its documentation advises, since a call draws
  parameters once; on the CPU in as many threads as there are cores, each with one thread within,
  and in as many processes of a DataLoader.
* torchvision v2 per batch: the same parameters for all images, so not the same thing.

In the same run a part of our images is compared with torchvision's functions on floats, given the
same parameters, and the peers' mean and deviation with ours.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from harness import Benchmark, Case, Row, Target, interleaved, judged, num_cores, rows_of
from photographs import photographs
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from fastssd.augment.augmentation import Augmentation
from fastssd.augment.executor import Task
from fastssd.augment.parameters import KeyedDraws, Role, operation_parameters
from fastssd.augment.recipe import Recipe
from fastssd.augment.recipes import build_recipe
from fastssd.augment.torch_executor import TorchExecutor

try:
    import kornia.augmentation as kornia
except ImportError:
    kornia = None

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KORNIA_CHUNK = 16 * 224 * 224
CHECKED = 16
_LEAST_SECONDS = 0.3
TOLERANCE = 2e-5  # of normalised values, whose range is about 5
KORNIA, PER_IMAGE, PER_BATCH = "kornia", "torchvision v2 per image", "torchvision v2 per batch"
COMPILED = "kornia, compiled"
IN_PROCESSES = "torchvision v2 per image, DataLoader"
NOTES = {PER_BATCH: "one set of parameters for all images: not the same thing"}

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Part:
    """A recipe, and the batch that it is measured on.

    Attributes:
        section: Of the table.
        recipe: Ours.
        images: (B, S, S, 3) bytes, on the device.
        few: Images that the slow peers take: a rate, so it is not the worse for it.
    """

    section: str
    recipe: Recipe
    images: Tensor
    few: int


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write what the options ask for."""
    benchmark = Benchmark("augment", "Images a second of augmentation, from bytes to floats.")
    parser = benchmark.parser()
    parser.add_argument("--batch", type=int, default=256, metavar="B", help="images a batch (256)")
    here = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser.add_argument("--devices", nargs="+", default=here, metavar="NAME", help="of cpu, cuda")
    options = parser.parse_args(arguments)
    torch.set_num_threads(num_cores())
    batch = 8 if options.quick else options.batch
    side = 48 if options.quick else 224
    large, small = pixels(options, batch, side), pixels(options, batch, 32)
    parts = [
        Part(
            name if device == "cpu" else f"{name} on {device}",
            recipe,
            images.to(device),
            few=min(batch, 64 if recipe.size > 64 else batch) if device == "cpu" else batch,
        )
        for device in options.devices
        for name, recipe, images in (
            ("query recipe", build_recipe("imagenet", side), large),
            ("key recipe", build_recipe("moco_v2", side), large),
            ("CIFAR recipe", build_recipe("cifar", 32), small),
        )
    ]
    rows: list[Row] = []
    difference = 0.0
    for part in parts:
        difference = max(difference, check(part))
        found = measured(part, options)
        against = KORNIA if KORNIA in found else PER_IMAGE
        rows += rows_of(found, unit="images/s", against=against, section=part.section, notes=NOTES)
    targets = [
        Target("fastssd", peer, at_least=bound, section=part.section)
        for part in parts
        if part.recipe.size == side
        for peer, bound in (
            (KORNIA, 1.5),
            (COMPILED, 1.5),
            (PER_IMAGE, 5.0),
            (IN_PROCESSES, 5.0),
        )
    ]
    sections = {
        part.section: f"Batch of {len(part.images)} images of {part.recipe.size} x "
        f"{part.recipe.size}"
        + (f", by all {num_cores()} cores." if not part.images.is_cuda else ", on the GPU.")
        for part in parts
    }
    return benchmark.finish(
        judged(rows, targets),
        options,
        sections,
        compared=f"{CHECKED} images a recipe with torchvision's float functions",
        largest_difference=difference,
    )


def measured(part: Part, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return images a second of every way, repeat by repeat."""
    ways: dict[str, tuple[int, Run]] = {}
    if not part.images.is_cuda:  # first: its processes are forked before there are other threads
        ways[IN_PROCESSES] = (part.few, torchvision_in_processes(part))
    ways |= {
        "fastssd": (len(part.images), ours(part)),
        "fastssd on PyTorch's operations": (part.few, by_torch(part)),
        PER_IMAGE: (part.few, torchvision_per_image(part)),
        PER_BATCH: (part.few, torchvision_per_batch(part)),
    }
    if kornia is not None:
        ways[KORNIA] = (len(part.images), by_kornia(part))
        if not options.quick and shutil.which("g++"):
            ways[COMPILED] = (len(part.images), by_kornia(part, compiled=True))
    reference = ours(part)()
    for name, (_, run) in ways.items():
        if name != PER_BATCH:
            check_alike(name, run(), reference)

    def case(name: str, count: int, run: Run) -> Case:
        def rate() -> float:
            # Fast ones again and again: the first call suffers from what ran before it.
            started, seconds, calls = time.perf_counter(), 0.0, 0
            while seconds < (0 if options.quick else _LEAST_SECONDS) or not calls:
                run()
                if part.images.is_cuda:
                    torch.cuda.synchronize()
                calls += 1
                seconds = time.perf_counter() - started
            return calls * count / seconds

        return Case(name, rate)

    cases = [case(name, count, run) for name, (count, run) in ways.items()]
    return interleaved(cases, repeats=options.repeats)


def pixels(options: argparse.Namespace, batch: int, side: int) -> Tensor:
    """Return (B, S, S, 3) bytes of photographs, as a decoder would deliver them."""
    found = photographs(options.data, count=batch)
    resized = [
        np.asarray(Image.fromarray(photo.pixels()).resize((side, side), Image.Resampling.BILINEAR))
        for photo in found
    ]
    return torch.from_numpy(np.stack([resized[i % len(resized)] for i in range(batch)]))


def ours(part: Part) -> Run:
    """Return the augmentation of a stage."""
    augment = Augmentation(part.recipe, mean=MEAN, std=STD, seed=0, stream="benchmark")
    samples, device = np.arange(len(part.images)), part.images.device
    views = iter(range(2**31))

    def run() -> Tensor:
        found = augment.parameters(samples, np.full_like(samples, next(views)))
        parameters = {
            name: torch.from_numpy(values).to(device, non_blocking=True)
            for name, values in found.items()
        }
        return augment.apply(part.images[None], parameters).query

    return run


def by_torch(part: Part) -> Run:
    """Return our augmentation by PyTorch's own operations."""
    images = part.images[: part.few]
    executor = TorchExecutor(task_of(part))
    parameters = parameters_of(part.recipe, len(images), images.device)
    return lambda: executor.finish(images, parameters, None)[0]


def task_of(part: Part) -> Task:
    """Return what an executor has to do."""
    scale = [1 / value for value in STD]
    shift = [-mean / value for mean, value in zip(MEAN, STD, strict=True)]
    return Task(part.recipe, scale, shift, part.images.device)


def parameters_of(recipe: Recipe, count: int, device: torch.device) -> dict[str, Tensor]:
    """Return the parameters of some draws."""
    rows = np.arange(count)
    found = operation_parameters(recipe, KeyedDraws(0, "benchmark", rows, rows), Role.QUERY)
    return {name: torch.from_numpy(values).to(device) for name, values in found.items()}


def by_kornia(part: Part, *, compiled: bool = False) -> Run:
    """Return kornia's transforms of the same recipe."""
    recipe, images = part.recipe, part.images.permute(0, 3, 1, 2)
    steps = [kornia.RandomHorizontalFlip(p=recipe.flip)]
    if recipe.jitter is not None:
        jitter = recipe.jitter
        reaches = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        steps.append(kornia.ColorJitter(*reaches, p=jitter.probability))
    if recipe.grayscale:
        steps.append(kornia.RandomGrayscale(p=recipe.grayscale))
    if recipe.blur is not None:
        kernel = (recipe.blur.kernel_size, recipe.blur.kernel_size)
        steps.append(
            kornia.RandomGaussianBlur(kernel, recipe.blur.sigma, p=recipe.blur.probability)
        )
    steps.append(kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)))
    transform = kornia.AugmentationSequential(*steps, data_keys=["input"], same_on_batch=False).to(
        images.device
    )
    transform = torch.compile(transform) if compiled else transform
    chunk = len(images) if images.is_cuda else max(1, KORNIA_CHUNK // recipe.size**2)

    @torch.no_grad()
    def run() -> Tensor:
        parts = [transform(some.float().div_(255)) for some in images.split(chunk)]
        return torch.cat(parts)

    return run


def torchvision_transform(recipe: Recipe) -> v2.Transform:
    """Return torchvision's transforms of the same recipe."""
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(recipe.flip)]
    if recipe.jitter is not None:
        jitter = recipe.jitter
        colours = v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        always = jitter.probability == 1
        steps.append(colours if always else v2.RandomApply([colours], jitter.probability))
    if recipe.grayscale:
        steps.append(v2.RandomGrayscale(recipe.grayscale))
    if recipe.blur is not None:
        blur = v2.GaussianBlur(recipe.blur.kernel_size, recipe.blur.sigma)
        steps.append(v2.RandomApply([blur], recipe.blur.probability))
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def torchvision_per_image(part: Part) -> Run:
    """Return torchvision's transforms, called for each image."""
    transform = torchvision_transform(part.recipe)
    images = part.images[: part.few].permute(0, 3, 1, 2).contiguous()
    if images.is_cuda:
        return lambda: torch.stack([transform(image) for image in images])
    threads = ThreadPoolExecutor(num_cores(), initializer=lambda: torch.set_num_threads(1))
    return lambda: torch.stack(list(threads.map(transform, images)))


class _Images(Dataset[Tensor]):
    """Images in shared memory, transformed one by one."""

    def __init__(self, images: Tensor, transform: v2.Transform) -> None:
        self._images, self._transform = images.share_memory_(), transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> Tensor:
        transformed: Tensor = self._transform(self._images[row])
        return transformed


def torchvision_in_processes(part: Part) -> Run:
    """Return torchvision's transforms in the processes of a DataLoader, which stay."""
    images = part.images[: part.few].permute(0, 3, 1, 2).contiguous()
    loader = DataLoader(
        _Images(images, torchvision_transform(part.recipe)),
        batch_size=max(1, len(images) // (4 * num_cores())),
        num_workers=num_cores(),
        persistent_workers=True,
    )
    return lambda: torch.cat(list(loader))


def torchvision_per_batch(part: Part) -> Run:
    """Return torchvision's transforms, called once for all images."""
    transform = torchvision_transform(part.recipe)
    images = part.images[: part.few].permute(0, 3, 1, 2)
    return lambda: transform(images)


def check(part: Part) -> float:
    """Return how far our images are from torchvision's functions with the same parameters."""
    images, recipe = part.images[:CHECKED], part.recipe
    augment = Augmentation(recipe, mean=MEAN, std=STD, seed=0, stream="benchmark")
    parameters = parameters_of(recipe, len(images), images.device)
    given = {f"query.{name}": values for name, values in parameters.items()}
    found = augment.apply(images[None], given).query
    differences = [
        float((found[row] - expected(images[row], parameters, row, recipe)).abs().max())
        for row in range(len(images))
    ]
    for row, difference in enumerate(differences):
        if not difference < TOLERANCE:  # a NaN is not
            sys.exit(
                f"{part.section}: our image {row} is off by {difference:.2g}; nothing was measured"
            )
    return max(differences)


def expected(image: Tensor, parameters: Mapping[str, Tensor], row: int, recipe: Recipe) -> Tensor:
    """Return one image by torchvision's functions on floats, operation by operation."""
    mine = {name: values[row] for name, values in parameters.items()}
    floats = tv.to_dtype(image.permute(2, 0, 1), torch.float32, scale=True)
    if mine["flip"]:
        floats = tv.horizontal_flip(floats)
    operations = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for operation in mine["order"].tolist() if "order" in mine else []:
        floats = operations[operation](floats, float(mine["jitter"][operation]))
    if mine.get("grayscale", False):
        floats = tv.rgb_to_grayscale(floats, num_output_channels=3)
    if recipe.blur is not None and mine["blur"] > 0:
        kernel = [recipe.blur.kernel_size] * 2
        floats = tv.gaussian_blur(floats, kernel, [float(mine["blur"])] * 2)
    return tv.normalize(floats, list(MEAN), list(STD))


def check_alike(name: str, found: Tensor, reference: Tensor) -> None:
    """Stop if a peer's images are not of the kind of ours: the same work was not done."""
    wrong = found.shape[1:] != reference.shape[1:] or found.dtype != reference.dtype
    # A jitter of 0.4 moves an image's mean by 0.5 or so, each image by its own.
    limit = 5 * 0.5 * (2 / len(found)) ** 0.5
    for statistic in (Tensor.mean, Tensor.std):
        distance = (statistic(found) - statistic(reference[: len(found)])).abs()
        wrong = wrong or not bool(distance <= limit)  # a NaN is wrong
    if wrong:
        sys.exit(f"{name} makes other images than we do; nothing was measured")


if __name__ == "__main__":
    sys.exit(main())
