"""Two made datasets, one like CIFAR and one like photographs, in every storage format."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastssd.data.dataset import Dataset, open_dataset
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.image import StoredImage

CLASSES = ["ant", "bee", "cat"]
NUM_IMAGES = 18
# How cameras, the web and tools write them.
JPEG_KINDS = [
    {"subsampling": 2, "quality": 90},
    {"subsampling": 0, "quality": 75},
    {"subsampling": 1, "quality": 95},
    {"progressive": True, "quality": 85},
]


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Structure at every scale that falls off with frequency, as in photographs."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side in (3, 8, 20, 50):
        noise = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer).astype(float) / side
    total -= total.min()
    return (total * (255 / total.max())).astype(np.uint8)


def stored(number: int, pixels: NDArray[np.uint8]) -> StoredImage:
    """Every sixth image is pixels (a PNG at conversion), some are grey, the rest JPEG files."""
    if number % 6 == 5:
        return StoredImage("raw", pixels)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    options = JPEG_KINDS[number % len(JPEG_KINDS)]
    if number % 7 == 3:
        image, options = image.convert("L"), {"quality": 90}
    image.save(buffer, "JPEG", **options)
    return StoredImage("jpeg", np.frombuffer(buffer.getvalue(), np.uint8).copy())


def write(folder: Path, format: str, images: list[StoredImage]) -> Dataset:
    """Write a dataset directory as the conversion does."""
    folder.mkdir()
    labels = np.array([(7 * i) % len(CLASSES) for i in range(len(images))], np.int64)
    writer = STORAGES[format].create(folder, "train", len(images))
    for image, label in zip(images, labels, strict=True):
        pixels = decode_pixels(image)
        kept = image if STORAGES[format].keeps_jpeg else StoredImage("raw", pixels)
        writer.append(kept, height=pixels.shape[0], width=pixels.shape[1], label=int(label))
    writer.finish()
    np.save(folder / "train.labels.npy", labels)
    names = [json.dumps(f"{CLASSES[label]}/{i}.jpg") + "\n" for i, label in enumerate(labels)]
    (folder / "train.names.jsonl").write_text("".join(names))
    counts = np.bincount(labels, minlength=len(CLASSES)).tolist()
    meta = {
        "layout": 1,
        "name": folder.name,
        "format": format,
        "classes": CLASSES,
        "splits": {"train": {"images": len(images), "per_class": counts}},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return open_dataset(folder)


@pytest.fixture(scope="session")
def images() -> dict[str, list[StoredImage]]:
    numbers = range(NUM_IMAGES)
    return {
        "cifar": [stored(i, picture(32, 32, i)) for i in numbers],
        "photos": [stored(i, picture(150 + 7 * i, 260 - 5 * i, 100 + i)) for i in numbers],
    }


@pytest.fixture(scope="session")
def datasets(
    tmp_path_factory: pytest.TempPathFactory, images: dict[str, list[StoredImage]]
) -> dict[tuple[str, str], Dataset]:
    """Datasets by what they show and their format."""
    root = tmp_path_factory.mktemp("contract")
    return {
        (kind, format): write(root / f"{kind}-{format}", format, images[kind])
        for kind in images
        for format in STORAGES
    }


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, list[StoredImage]], Dataset]:
    """Write images of one's own in a format, and open the dataset."""
    return lambda format, images: write(tmp_path / format, format, images)
