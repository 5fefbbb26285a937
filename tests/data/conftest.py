import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

EncodeImage = Callable[..., bytes]


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    """A smooth picture with structure at every scale, different for each seed."""

    def make(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        random = np.random.default_rng(seed)
        small = random.integers(0, 256, (5, 6, 3)).astype(np.uint8)
        return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def encoded() -> EncodeImage:
    """Encode pixels with Pillow."""

    def make(pixels: NDArray[np.uint8], kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


@pytest.fixture
def tree(tmp_path: Path, picture, encoded) -> Path:
    """A source tree: 3 classes of 8, 6 and 5 training images of different sizes, 2 of test."""
    root = tmp_path / "source"
    for label, (name, count) in enumerate({"ant": 8, "bee": 6, "cat": 5}.items()):
        for split, number in (("train", count), ("test", 2)):
            (root / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = picture(20 + i, 30 - i, seed=100 * label + i)
                kind = "PNG" if i == 2 else "JPEG"
                # As in ImageNet, the name says nothing about the kind of file.
                (root / split / name / f"{i}.JPEG").write_bytes(encoded(pixels, kind))
    return root
