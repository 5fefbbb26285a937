import json
import threading

import numpy as np
import pytest
import torch

from fastssd.augment.boxes import CenterCrop, PaddedCrop, ResizedCrop
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.draws import Draws
from fastssd.data.ffcv_loader import FfcvImages
from fastssd.data.storage.formats import STORAGES
from fastssd.data.storage.image import StoredImage
from fastssd.errors import ConfigError, DataError

# NumPy 2.4, numba and ffcv warn of each other.
pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = 16


class Augmentation:
    """The parameters of no augmentation but a flip that is the parity of the sample."""

    size = SIZE

    def boxes(self, samples, views, sizes):
        raise AssertionError("FFCV cuts its own boxes")

    def parameters(self, samples, views):
        return {"query.flip": samples % 2 == 1}


@pytest.fixture
def compiled_not():
    """Run FFCV's code as Python: compiling it takes longer than all tests together."""
    pytest.importorskip("ffcv", reason="ffcv is not installed", exc_type=ImportError)
    threads = torch.get_num_threads()
    from ffcv.pipeline.compiler import Compiler

    Compiler.set_enabled(False)
    yield
    Compiler.set_enabled(True)
    torch.set_num_threads(threads)


def dataset_of(folder, images, *, format="ffcv"):
    """Write a dataset directory of two classes by hand, and open it."""
    folder.mkdir()
    writer = STORAGES[format].create(folder, "train", len(images))
    labels = np.arange(len(images)) % 2
    for (image, height, width), label in zip(images, labels, strict=True):
        writer.append(image, height=height, width=width, label=int(label))
    writer.finish()
    np.save(folder / "train.labels.npy", labels)
    names = [json.dumps(f"{i}.jpg") + "\n" for i in range(len(images))]
    (folder / "train.names.jsonl").write_text("".join(names))
    split = {"images": len(images), "per_class": np.bincount(labels).tolist()}
    meta = {"layout": 1, "name": "a", "format": format, "classes": ["x", "y"]}
    (folder / "meta.json").write_text(json.dumps(meta | {"splits": {"train": split}}))
    return open_dataset(folder)


@pytest.fixture
def pixels_of(picture):
    return [picture(20 + i, 30 - i, seed=i) for i in range(10)]


@pytest.fixture
def dataset(tmp_path, pixels_of, encoded):
    """JPEG files, and pixels of every third image."""
    images = [
        (
            StoredImage("raw", pixels)
            if i % 3 == 2
            else StoredImage("jpeg", np.frombuffer(encoded(pixels), np.uint8)),
            *pixels.shape[:2],
        )
        for i, pixels in enumerate(pixels_of)
    ]
    return dataset_of(tmp_path / "data", images)


def draws_of(*samples):
    return Draws(np.array(samples, np.int64), np.zeros(len(samples), np.int64))


def images_of(dataset, crops=None):
    crops = crops or [ResizedCrop((0.3, 1.0))]
    return FfcvImages(dataset, dataset.split("train"), Augmentation(), crops, threads=1)


def ffcv_threads():
    return [t for t in threading.enumerate() if type(t).__name__ == "Surfacing"]


def test_batches_follow_the_plan_with_repeats_over_epochs(compiled_not, dataset):
    torch.set_num_threads(2)
    images = images_of(dataset, [ResizedCrop((0.3, 1.0)), ResizedCrop((0.2, 1.0))])
    labels = dataset.split("train").labels

    for epoch in ([draws_of(9, 3, 3, 7), draws_of(0, 9, 1, 2)], [draws_of(5, 4, 3, 2)]):
        batches = list(images.batches(iter(epoch)))

        assert len(batches) == len(epoch)
        for draws, (seen, batch) in zip(epoch, batches, strict=True):
            assert seen is draws
            assert batch["pixels"].shape == (2, 4, SIZE, SIZE, 3)
            assert batch["pixels"].dtype == torch.uint8
            assert batch["labels"].tolist() == labels[draws.samples].tolist()
            assert batch["augment.query.flip"].tolist() == (draws.samples % 2 == 1).tolist()
        pixels = batches[0][1]["pixels"].float()
        assert (pixels[0] != pixels[1]).any()  # each view is a crop of its own
    assert not ffcv_threads()
    assert torch.get_num_threads() == 2


def test_a_whole_crop_is_near_our_decoders_and_earlier_batches_stay(compiled_not, dataset):
    split = dataset.split("train")
    sample = 0
    height, width = split.sizes[sample]
    images = images_of(dataset, [ResizedCrop((1.0, 1.0), (width / height, width / height))])

    batches = list(images.batches([draws_of(sample)] * 12))

    boxes = np.array([[[0, 0, width, height]]])
    expected = TorchvisionDecoder().decode([split.storage.read(sample)], boxes, SIZE)
    for _, batch in batches:
        difference = np.abs(batch["pixels"].numpy().astype(int) - expected)
        # OpenCV's area interpolation, and libjpeg-turbo's fast transform.
        assert difference.mean() < 6


def test_a_padded_crop_moves_the_image_over_zeros(compiled_not, tmp_path):
    class Eight(Augmentation):
        size = 8

    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    dataset = dataset_of(tmp_path / "data", [(StoredImage("raw", image), 8, 8) for image in pixels])
    split = dataset.split("train")
    images = FfcvImages(dataset, split, Eight(), [PaddedCrop(1)], threads=1)

    _, batch = next(iter(images.batches([draws_of(*range(12))])))

    for sample in range(12):
        padded = np.pad(split.storage.read(sample).data, ((1, 1), (1, 1), (0, 0)))
        moves = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
        assert any(np.array_equal(batch["pixels"][0, sample], move) for move in moves)


def test_turned_images_come_upright(compiled_not, tmp_path, pixels_of):
    square = [(StoredImage("raw", pixels[:20, :20]), 20, 20) for pixels in pixels_of]
    dataset = dataset_of(tmp_path / "squares", square)
    crops = [ResizedCrop((1.0, 1.0), (1.0, 1.0))]
    [(_, upright)] = images_of(dataset, crops).batches([draws_of(0, 1)])

    dataset.split("train").orientations = np.array([1, 6] + [1] * 8, np.uint8)
    [(_, turned)] = images_of(dataset, crops).batches([draws_of(0, 1)])

    assert torch.equal(turned["pixels"][0, 0], upright["pixels"][0, 0])
    clockwise = torch.rot90(upright["pixels"][0, 1], -1)  # what Exif's 6 asks for
    assert torch.equal(turned["pixels"][0, 1], clockwise)


def test_leaving_an_epoch_early_ends_ffcvs_thread(compiled_not, dataset):
    images = images_of(dataset)
    iteration = images.batches([draws_of(0, 1)] * 50)
    next(iteration)
    assert ffcv_threads()
    iteration.close()
    assert not ffcv_threads()


def test_an_error_in_ffcvs_thread_is_raised_and_nothing_hangs(compiled_not, dataset):
    images = images_of(dataset)
    iteration = images.batches([draws_of(0, 1), draws_of(2, 10_000)])

    next(iteration)  # the sample that isn't there is in the second batch
    with pytest.raises(RuntimeError, match=r"stopped at batch 1: IndexError"):
        next(iteration)
    assert not ffcv_threads()


@pytest.mark.parametrize("damage", ["header", "end"])
def test_a_damaged_jpeg_is_named(compiled_not, dataset, damage):
    split = dataset.split("train")
    stored = split.storage.read(4).data
    content = bytearray((dataset.path / "train.beton").read_bytes())
    start = bytes(content).index(stored.tobytes())
    if damage == "header":
        content[start : start + 20] = bytes(20)
    else:
        content[start + len(stored) // 2 : start + len(stored)] = bytes(
            len(stored) - len(stored) // 2
        )
    (dataset.path / "train.beton").write_bytes(content)
    damaged = open_dataset(dataset.path)
    name = damaged.split("train").describe(4)

    with pytest.raises(DataError, match=rf"{name} \(sample 4 of train\)"):
        list(images_of(damaged).batches([draws_of(3, 4)]))


def test_what_ffcv_cannot_do_is_refused_before_anything_is_read(tmp_path, pixels_of, dataset):
    raw = [(StoredImage("raw", pixels), *pixels.shape[:2]) for pixels in pixels_of]
    memory = dataset_of(tmp_path / "memory", raw, format="memory")
    with pytest.raises(ConfigError, match="has the format memory: convert it with --format ffcv"):
        images_of(memory)
    with pytest.raises(ConfigError, match="no crop like CenterCrop"):
        images_of(dataset, [CenterCrop(short_side=18)])
    with pytest.raises(ConfigError, match="needs stored images of 16 x 16"):
        images_of(dataset, [PaddedCrop(4)])


def test_batches_of_different_sizes_are_refused(compiled_not, dataset):
    with pytest.raises(RuntimeError, match="different sizes: 2, 1"):
        list(images_of(dataset).batches([draws_of(0, 1), draws_of(0)]))
    assert not ffcv_threads()


def test_the_plan_is_drawn_no_further_than_needed(compiled_not, dataset):
    drawn = []

    def endless():
        while True:
            drawn.append(draws_of(0, 1))
            yield drawn[-1]

    iteration = images_of(dataset).batches(endless())
    for _ in range(3):
        next(iteration)
    iteration.close()
    assert len(drawn) < 12
    assert not list(images_of(dataset).batches([]))
