"""Fetching images for draws, through our own storage and decoder and through fakes of both."""

import json
import threading
import zlib

import numpy as np
import pytest
import torch

from fastssd.core.buffers import Buffers
from fastssd.data.damage import Damage, successors
from fastssd.data.dataset import Split
from fastssd.data.decode.decoder import DecodeError
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.draws import Draws
from fastssd.data.images import CHECKSUMS, LABELS, PARAMETER, PIXELS, image_fetch
from fastssd.data.storage.image import JPEG, RAW, StoredBatch, StoredImage
from fastssd.errors import DataError

SIZE = 6


class ListStorage:
    """Images in a list."""

    mapped = ()

    def __init__(self, images, sizes):
        self.images = images
        self.sizes = np.array(sizes, np.int32)

    def __len__(self):
        return len(self.images)

    def read(self, sample):
        if self.images[sample] is None:
            raise DataError(f"train.beton: sample {sample} is cut off")
        return self.images[sample]

    def read_batch(self, samples):
        return StoredBatch.of([self.read(sample) for sample in samples.tolist()])

    def locate(self, samples):
        return self.read_batch(samples)


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


def test_the_pixels_are_put_where_the_buffers_say(split):
    buffers = Buffers(keep=2)
    fetch = image_fetch(split, TorchvisionDecoder(), Views(), buffers=buffers)
    expected = image_fetch(split, TorchvisionDecoder(), Views())(DRAWS)[PIXELS]
    places = set()

    for _ in range(5):
        pixels = fetch(DRAWS)[PIXELS]
        assert torch.equal(pixels, expected)
        places.add(pixels.data_ptr())
        del pixels

    assert len(places) == 1


class FailingDecoder(TorchvisionDecoder):
    """Cannot decode some images, which it knows by their bytes, and says what of others."""

    def __init__(self, damaged):
        self.damaged = damaged

    def decode(self, images, boxes, size, *, out=None, turns=None):
        out = super().decode(images, boxes, size, out=out, turns=turns)
        damaged = {
            position: "no image at all"
            for position, image in enumerate(images)
            if any(np.array_equal(image.data, other.data) for other in self.damaged)
        }
        if damaged:
            out[:, list(damaged)] = 77  # what a decoder leaves there is not to be used
            raise DecodeError.of(damaged)
        return out


@pytest.fixture
def damaged(split, tmp_path):
    """Return what makes a fetch that replaces some samples, its list and its warnings."""

    def make(*samples, name="damaged.jsonl"):
        warnings = []
        damage = Damage(tmp_path / name, warn=warnings.append)
        decoder = FailingDecoder([split.storage.images[sample] for sample in samples])
        return image_fetch(split, decoder, Views(), damage=damage), tmp_path / name, warnings

    return make


def test_a_damaged_image_is_replaced_by_the_next_of_its_class_in_the_same_view(split, damaged):
    # Samples 0 and 4 are of class 2, samples 1 and 3 of class 0.
    fetch, path, warnings = damaged(3, 4)
    shown = Draws(np.array([1, 0, 1, 0]), DRAWS.views)
    expected = image_fetch(split, TorchvisionDecoder(), Views())(shown)

    batch = fetch(DRAWS)

    assert set(batch) == set(expected)
    for name, values in expected.items():
        assert torch.equal(batch[name], values), name
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert entries == [
        {
            "split": "train",
            "sample": sample,
            "file": f"train/{sample}.JPEG",
            "reason": "no image at all",
            "replaced_by": other,
        }
        for sample, other in ((3, 1), (4, 0))
    ]
    assert [warning.split(":")[0] for warning in warnings] == [
        "train/3.JPEG (sample 3 of train) is damaged",
        "train/4.JPEG (sample 4 of train) is damaged",
    ]


def test_what_replaces_an_image_depends_on_the_draw_alone(damaged):
    fetch, _, _ = damaged(3, 4)
    together = fetch(DRAWS)

    for i in reversed(range(len(DRAWS))):
        anew, _, _ = damaged(3, 4, name=f"other{i}.jsonl")
        alone = anew(DRAWS[i : i + 1])
        for name, values in alone.items():
            whole = together[name][:, i] if name == PIXELS else together[name][i]
            assert torch.equal(values[:, 0] if name == PIXELS else values[0], whole)


def test_an_image_is_noted_once_by_threads_and_by_a_resumed_run(damaged):
    fetch, path, warnings = damaged(3)
    threads = [threading.Thread(target=fetch, args=(DRAWS,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(warnings) == 1

    # The run was killed as it wrote a line.
    with path.open("a", encoding="utf-8") as file:
        file.write('{"split": "tr')
    again, _, later_warnings = damaged(3)
    again(DRAWS)

    assert later_warnings == []
    [line] = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["sample"] == 3


def test_a_class_without_a_sound_image_is_an_error(damaged):
    fetch, _, _ = damaged(1, 3)

    with pytest.raises(DataError, match=r"3.JPEG \(sample 3 of train\): no image.*its class"):
        fetch(DRAWS)


def test_by_default_a_damaged_image_is_an_error(split):
    decoder = FailingDecoder([split.storage.images[4]])

    with pytest.raises(DataError, match=r"^train/4.JPEG \(sample 4 of train\): no image at all"):
        image_fetch(split, decoder, Views())(DRAWS)


def test_successors_are_the_others_of_the_class_those_behind_first():
    labels = np.array([5, 1, 5, 5, 1, 5])

    assert list(successors(labels, 2)) == [3, 5, 0]
    assert list(successors(labels, 5)) == [0, 2, 3]
    assert list(successors(labels, 1)) == [4]
    assert list(successors(np.array([0, 1]), 1)) == []


class DeviceDecoder(TorchvisionDecoder):
    """Leaves the pixels of batches without a certain sample on what it takes for a device."""

    makes_tensors = True

    def __init__(self, odd):
        self.odd, self.num_tensors = odd, 0

    def decode_tensor(self, images, boxes, size):
        if any(np.array_equal(image.data, self.odd.data) for image in images):
            return None
        self.num_tensors += 1
        return torch.from_numpy(super().decode(images, boxes, size))


def test_pixels_stay_on_the_device_where_the_decoder_leaves_them(split):
    decoder = DeviceDecoder(odd=split.storage.images[4])
    expected = image_fetch(split, TorchvisionDecoder(), Views(), checksums=True)
    fetch = image_fetch(split, decoder, Views(), checksums=True)

    for draws, num_tensors in ((DRAWS[:3], 1), (DRAWS, 1), (DRAWS[1:3], 2)):
        found = fetch(draws)
        assert decoder.num_tensors == num_tensors
        for name, values in expected(draws).items():
            assert torch.equal(found[name], values)


def test_a_decoder_with_threads_of_its_own_is_known_by_them(split):
    class Threaded(TorchvisionDecoder):
        threads = 3

    assert image_fetch(split, TorchvisionDecoder(), Views()).threads == 1
    assert image_fetch(split, Threaded(), Views()).threads == 3


def test_small_batches_made_together_are_those_made_alone(split):
    fetch = image_fetch(split, TorchvisionDecoder(), Views(), checksums=True)
    batches = [DRAWS, DRAWS[:1], DRAWS[1:3]]

    assert 1 < fetch.num_together(DRAWS) <= 8
    assert fetch.num_together(Draws.joined([DRAWS] * 20_000)) < 2
    for made, draws in zip(fetch.together(batches), batches, strict=True):
        alone = fetch(draws)
        assert made.keys() == alone.keys()
        for name, values in alone.items():
            assert made[name].is_contiguous()
            assert torch.equal(made[name], values), name
