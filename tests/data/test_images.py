"""Fetching images for draws, through our own storage and decoder and through fakes of both."""

import zlib

import numpy as np
import pytest
import torch

from fastssd.data.dataset import Split
from fastssd.data.decode.decoder import DecodeError
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.draws import Draws
from fastssd.data.images import CHECKSUMS, LABELS, PARAMETER, PIXELS, image_fetch
from fastssd.data.storage.image import JPEG, RAW, StoredImage
from fastssd.errors import DataError

SIZE = 6


class ListStorage:
    """Images in a list."""

    def __init__(self, images, sizes):
        self.images = images
        self.sizes = np.array(sizes, np.int32)

    def __len__(self):
        return len(self.images)

    def read(self, sample):
        if self.images[sample] is None:
            raise DataError(f"train.beton: sample {sample} is cut off")
        return self.images[sample]


class Views:
    """Two crops that depend on sample and view: a shifted one and the whole image."""

    size = SIZE

    def boxes(self, samples, views, sizes):
        shifted = np.stack([views, -views, *np.full((2, len(samples)), SIZE)], axis=1)
        heights, widths = sizes.T
        whole = np.stack([0 * widths, 0 * heights, widths, heights], axis=1)
        return np.stack([shifted, whole], axis=1).astype(np.int64)

    def parameters(self, samples, views):
        return {"query.flip": (samples + views) % 2 == 0, "query.gain": samples / 2}


@pytest.fixture
def split(tmp_path, picture, encoded):
    """Five images of different sizes, as pixels and as JPEG in turn."""
    images, sizes, labels = [], [], [2, 0, 1, 0, 2]
    for sample in range(5):
        pixels = picture(8 + sample, 12 - sample, seed=sample)
        sizes.append(pixels.shape[:2])
        data = np.frombuffer(bytearray(encoded(pixels)), np.uint8)
        images.append(StoredImage(JPEG, data) if sample % 2 else StoredImage(RAW, pixels))
    names = tmp_path / "train.names.jsonl"
    names.write_text("".join(f'"train/{sample}.JPEG"\n' for sample in range(5)), encoding="utf-8")
    return Split(
        "train",
        labels=np.array(labels),
        counts=np.bincount(labels),
        storage=ListStorage(images, sizes),
        names_file=names,
    )


DRAWS = Draws(np.array([3, 0, 3, 4]), np.array([1, 0, 2, 5]))


def test_a_batch_holds_each_draws_crops_label_and_parameters(split):
    decoder = TorchvisionDecoder()

    batch = image_fetch(split, decoder, Views())(DRAWS)

    assert set(batch) == {PIXELS, LABELS, PARAMETER + "query.flip", PARAMETER + "query.gain"}
    assert batch[PIXELS].dtype == torch.uint8
    assert batch[PIXELS].shape == (2, 4, SIZE, SIZE, 3)
    assert batch[LABELS].tolist() == [0, 2, 0, 2]
    assert batch[PARAMETER + "query.flip"].tolist() == [True, True, False, False]
    assert batch[PARAMETER + "query.gain"].tolist() == [1.5, 0.0, 1.5, 2.0]
    for i, (sample, view) in enumerate(zip(DRAWS.samples, DRAWS.views, strict=True)):
        height, width = split.sizes[sample]
        boxes = np.array([[[view, -view, SIZE, SIZE], [0, 0, width, height]]])
        alone = decoder.decode([split.storage.read(int(sample))], boxes, SIZE)
        np.testing.assert_array_equal(batch[PIXELS][:, i].numpy(), alone[:, 0])


def test_a_draw_is_fetched_alike_in_any_batch(split):
    fetch = image_fetch(split, TorchvisionDecoder(), Views(), checksums=True)

    together, alone = fetch(DRAWS), [fetch(DRAWS[i : i + 1]) for i in range(len(DRAWS))]

    for name, values in together.items():
        axis = 1 if name == PIXELS else 0
        assert torch.equal(values, torch.cat([batch[name] for batch in alone], dim=axis))


def test_checksums_are_those_of_each_draws_pixels_in_all_its_views(split):
    batch = image_fetch(split, TorchvisionDecoder(), Views(), checksums=True)(DRAWS)

    expected = [zlib.crc32(batch[PIXELS][:, i].numpy().tobytes()) for i in range(len(DRAWS))]
    assert batch[CHECKSUMS].tolist() == expected
    assert len(set(expected)) == len(DRAWS)


def test_a_damaged_image_is_named_by_file_and_sample(split):
    damaged = split.storage.images[3]
    split.storage.images[3] = StoredImage(JPEG, damaged.data[: len(damaged.data) // 2])

    with pytest.raises(DataError) as caught:
        image_fetch(split, TorchvisionDecoder(), Views())(DRAWS[1:])

    assert str(caught.value).startswith("train/3.JPEG (sample 3 of train): ")
    assert isinstance(caught.value.__cause__, DecodeError)
    assert caught.value.__cause__.position == 1


def test_a_damaged_image_is_named_by_sample_even_where_the_names_are_lost(split, tmp_path):
    (tmp_path / "train.names.jsonl").unlink()
    split.storage.images[4] = StoredImage(JPEG, np.zeros(100, np.uint8))

    with pytest.raises(DataError, match=r"sample 4 of train\)") as caught:
        image_fetch(split, TorchvisionDecoder(), Views())(DRAWS)

    assert str(tmp_path) in str(caught.value)


def test_what_a_storage_says_of_a_sample_is_passed_on(split):
    split.storage.images[0] = None

    with pytest.raises(DataError, match=r"^train.beton: sample 0 is cut off$"):
        image_fetch(split, TorchvisionDecoder(), Views())(DRAWS)
