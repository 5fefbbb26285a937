"""Images on the device: the host path's pixels, gathered by the same code on the CPU."""

import zlib

import numpy as np
import pytest
import torch
from host_waits import cuda_refuses_waits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastssd.data import device_images
from fastssd.data.dataset import Split
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.device_images import DeviceFetch, DeviceImages, kept_on_device, num_taps
from fastssd.data.draws import Draws
from fastssd.data.images import CHECKSUMS, PIXELS, image_fetch
from fastssd.data.storage.image import RAW, StoredImage
from fastssd.data.storage.memory import MemoryWriter, open_memory
from fastssd.errors import ConfigError

CPU = torch.device("cpu")
NUM_IMAGES = 6


def split_of(folder, sizes, name="train"):
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(len(sizes))
    writer = MemoryWriter(folder, name, len(sizes))
    for height, width in sizes:
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        writer.append(StoredImage(RAW, pixels), height=height, width=width, label=0)
    writer.finish()
    return Split(
        name,
        labels=np.arange(len(sizes)) % 2,
        counts=np.array([1, 1]),
        storage=open_memory(folder, name),
        names_file=folder / "names.jsonl",
    )


@pytest.fixture(params=["equal", "packed"])
def split(request, tmp_path):
    sizes = [(10, 12)] * NUM_IMAGES
    if request.param == "packed":
        sizes = [(10 + 3 * i, 40 - 5 * i) for i in range(NUM_IMAGES)]
    return split_of(tmp_path / request.param, sizes)


class Boxes:
    """Boxes that are given."""

    def __init__(self, boxes, size):
        self.given, self.size = boxes, size

    def boxes(self, samples, views, sizes):
        return self.given

    def parameters(self, samples, views):
        return {"query.flip": samples % 2 == 0}


def both(split, samples, boxes, size):
    """Return (V, B, S, S, 3) int pixels from the device's path and from the host's."""
    draws = Draws(np.array(samples), np.zeros(len(samples), np.int64))
    views = Boxes(np.array(boxes, dtype=np.int64), size)
    fetch = DeviceFetch(split, DeviceImages(split.storage, CPU), views, checksums=True)
    batch = fetch.complete(fetch(draws))
    expected = image_fetch(split, TorchvisionDecoder(), views, checksums=True)(draws)
    assert set(batch) == set(expected)
    for name in set(batch) - {PIXELS, CHECKSUMS}:
        assert torch.equal(batch[name], expected[name])
    sums = [zlib.crc32(batch[PIXELS][:, i].numpy().tobytes()) for i in range(len(draws))]
    assert batch[CHECKSUMS].tolist() == sums
    return batch[PIXELS].int(), expected[PIXELS].int()


def drawn_boxes(data, num_views, sides):
    samples = data.draw(st.lists(st.integers(0, NUM_IMAGES - 1), min_size=1, max_size=5))
    places = st.integers(-25, 45)
    box = st.tuples(places, places, sides, sides)
    views = st.lists(box, min_size=num_views, max_size=num_views)
    boxes = data.draw(st.lists(views, min_size=len(samples), max_size=len(samples)))
    return samples, boxes


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), num_views=st.integers(1, 2), size=st.integers(1, 9))
def test_boxes_of_the_outputs_size_are_the_hosts_pixels(split, data, num_views, size):
    samples, boxes = drawn_boxes(data, num_views, st.just(size))

    found, expected = both(split, samples, boxes, size)

    assert torch.equal(found, expected)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), num_views=st.integers(1, 2), size=st.integers(1, 24))
def test_resized_boxes_are_the_hosts_within_a_grey_level(split, data, num_views, size):
    samples, boxes = drawn_boxes(data, num_views, st.integers(1, 40))

    found, expected = both(split, samples, boxes, size)

    assert (found - expected).abs().max() <= 1


def test_a_batch_in_parts_is_the_batch(split, monkeypatch):
    boxes = [[[i, -i, 20, 10], [0, i, 7, 8]] for i in range(NUM_IMAGES)]
    whole, _ = both(split, range(NUM_IMAGES), boxes, 7)
    monkeypatch.setattr(device_images, "_CHUNK_PIXELS", 100)

    parts, _ = both(split, range(NUM_IMAGES), boxes, 7)

    assert torch.equal(parts, whole)


def test_boxes_that_are_copied_beside_resized_ones_stay_exact(split):
    boxes = [[[1, 2, 8, 8]], [[0, 0, 10, 10]], [[-3, 5, 8, 8]]]

    found, expected = both(split, [0, 1, 2], boxes, 8)

    assert torch.equal(found[:, [0, 2]], expected[:, [0, 2]])


@pytest.mark.parametrize(
    ("sides", "size", "taps"), [([8], 8, 0), ([8, 9], 8, 5), ([4], 8, 3), ([16, 8], 8, 5)]
)
def test_the_filter_is_as_wide_as_the_largest_box_needs(sides, size, taps):
    boxes = np.array([[[0, 0, side, side]] for side in sides])

    assert num_taps(boxes, size) == taps


@pytest.fixture
def splits(tmp_path):
    return [split_of(tmp_path / "data", [(8, 8)] * 4, name) for name in ("train", "test")]


def on_gpu(monkeypatch, *, room, free=None):
    """Let a GPU of that many bytes seem to be there, all of them free or some."""
    free = room if free is None else free
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, room))
    monkeypatch.setattr(device_images, "DeviceImages", lambda storage, device: storage)
    return torch.device("cuda")


@pytest.mark.parametrize(
    ("room", "names"),
    [(4 * 4 * 192, {"train", "test"}), (4 * 4 * 192 - 1, {"train"}), (2 * 4 * 192 - 1, set())],
)
def test_images_are_kept_on_a_gpu_where_they_take_half_of_its_memory(
    monkeypatch, splits, room, names
):
    images, line = kept_on_device(splits, on_gpu(monkeypatch, room=room), "auto")

    assert set(images) == names
    assert ("more than 50% of the" in line) == (not names)


def test_what_else_uses_a_gpu_does_not_change_which_are_kept_but_may_forbid_it(monkeypatch, splits):
    total = 2 * 4 * 192
    device = on_gpu(monkeypatch, room=10 * total, free=total)
    assert set(kept_on_device(splits, device, "auto")[0]) == {"train", "test"}

    device = on_gpu(monkeypatch, room=10 * total, free=total - 1)
    with pytest.raises(ConfigError, match=r"data\.device_images=auto: .*are free: end what else"):
        kept_on_device(splits, device, "auto")


def test_the_config_may_insist(monkeypatch, splits):
    device = on_gpu(monkeypatch, room=10**9)

    assert set(kept_on_device(splits, device, "always")[0]) == {"train", "test"}
    assert kept_on_device(splits, device, "never") == ({}, "")


def test_on_the_cpu_the_mapped_file_is_the_device(splits):
    assert kept_on_device(splits, CPU, "auto") == ({}, "")
    images, _ = kept_on_device(splits, CPU, "always")
    pixels = images["train"]._pixels
    assert pixels.data_ptr() == splits[0].storage.pixels.ctypes.data


def test_other_formats_stay_on_the_host(splits, monkeypatch):
    device = on_gpu(monkeypatch, room=10**9)
    splits[0].storage = object()

    assert kept_on_device(splits, device, "auto") == ({}, "")
    with pytest.raises(ConfigError, match=r"data\.device_images=always.*--format memory"):
        kept_on_device(splits, device, "always")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sides", [7, 18])
def test_on_a_gpu_the_pixels_are_those_of_the_cpu_and_nothing_waits(split, sides):
    device = torch.device("cuda")
    samples = torch.arange(NUM_IMAGES)
    boxes = torch.tensor([[[i - 3, 2 * i - 5, sides, sides]] for i in range(NUM_IMAGES)])
    taps = torch.arange(num_taps(boxes.numpy(), 7))
    expected = DeviceImages(split.storage, CPU).gather(samples, boxes, taps, 7)
    images = DeviceImages(split.storage, device)
    arguments = [values.to(device) for values in (samples, boxes, taps)]
    images.gather(*arguments, 7)  # what is made at the first call may wait

    with cuda_refuses_waits():
        found = images.gather(*arguments, 7)

    assert (found.cpu().int() - expected.int()).abs().max() <= int(sides != 7)
