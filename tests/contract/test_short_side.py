import io

import numpy as np
import pytest
from PIL import Image

from fastssd.data.convert import convert
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.torchvision_decoder import decode_pixels
from fastssd.data.orientation import turn
from fastssd.data.sources.sources import open_source
from fastssd.data.storage.formats import STORAGES

SHORT_SIDE = 24
# Height and width of the files, by class; the last is turned by its Exif data.
SIZES = {"ant": [(60, 90), (24, 70)], "bee": [(20, 31), (96, 48), (72, 48)]}
EXPECTED = [(24, 36), (24, 70), (20, 31), (48, 24), (24, 36)]


def gradient(height, width):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, 0 * x + 90], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for name, sizes in SIZES.items():
        (root / "train" / name).mkdir(parents=True)
        for i, (height, width) in enumerate(sizes):
            exif = Image.Exif()
            if (height, width) == (72, 48):
                exif[0x0112] = 6
            path = root / "train" / name / f"{i}.jpg"
            Image.fromarray(gradient(height, width)).save(path, quality=95, exif=exif)
    return root


@pytest.mark.parametrize("format", list(STORAGES))
def test_large_images_are_shrunk_in_every_format_and_small_ones_kept(tmp_path, photos, format):
    source = open_source(str(photos))

    meta = convert(source, tmp_path / "out", format=format, short_side=SHORT_SIDE)

    split = open_dataset(tmp_path / "out").split("train")
    assert meta["conversion"]["short_side"] == SHORT_SIDE
    assert split.sizes.tolist() == [list(size) for size in EXPECTED]
    for sample, (height, width) in enumerate(EXPECTED):
        stored = split.storage.read(sample)
        assert (stored.mode == "jpeg") == STORAGES[format].keeps_jpeg
        pixels = decode_pixels(stored)
        if split.orientations is not None:
            pixels = turn(pixels, int(split.orientations[sample]))
        expected = gradient(height, width)
        if sample == 4:
            expected = np.rot90(gradient(width, height), -1)
        assert np.abs(pixels.astype(int) - expected).mean() < 4
    if STORAGES[format].keeps_jpeg:
        small = (photos / "train" / "bee" / "0.jpg").read_bytes()
        kept = decode_pixels(split.storage.read(2))
        assert np.array_equal(kept, np.asarray(Image.open(io.BytesIO(small))))


def test_without_it_all_sizes_are_kept(tmp_path, photos):
    convert(open_source(str(photos)), tmp_path / "out", format="memory")
    sizes = open_dataset(tmp_path / "out").split("train").sizes.tolist()
    assert sizes == [[60, 90], [24, 70], [20, 31], [96, 48], [48, 72]]
