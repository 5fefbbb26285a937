"""The whole augmentation: same draw, same view; torchvision's pixels; refusals."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fastssd.augment import executors
from fastssd.augment.augmentation import Augmentation, AugmentedViews
from fastssd.augment.recipes import build_recipe
from fastssd.errors import ConfigError
from fastssd.native import library

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)


@pytest.fixture(params=["native", "torch"])
def executor(request, monkeypatch):
    """Run a test on the native kernels, and again on PyTorch's own operations."""
    if request.param == "torch":
        monkeypatch.setitem(executors.EXECUTORS, "cpu", [])
    elif library.library() is None:
        pytest.skip(library.problem())


def augmentation(query, size, *, key=None, rotate=False, seed=0, stream="features"):
    return Augmentation(
        build_recipe(query, size),
        key=None if key is None else build_recipe(key, size),
        rotate=rotate,
        mean=MEAN,
        std=STD,
        seed=seed,
        stream=stream,
    )


@dataclass
class Batch:
    """Draws and the decoded crops that would come with them."""

    samples: np.ndarray
    views: np.ndarray
    pixels: torch.Tensor

    def rows(self, rows):
        return Batch(self.samples[rows], self.views[rows], self.pixels[:, rows])


def batch_of(augment, num, *, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(
        0, 256, (augment.num_crops, num, augment.size, augment.size, 3), dtype=np.uint8
    )
    return Batch(rng.integers(0, 50_000, num), rng.integers(0, 200, num), torch.from_numpy(pixels))


def tensors(parameters):
    return {name: torch.from_numpy(values) for name, values in parameters.items()}


def views_of(augment, batch):
    parameters = tensors(augment.parameters(batch.samples, batch.views))
    return augment.apply(batch.pixels, parameters)


def present(views: AugmentedViews):
    every = {"query": views.query, "key": views.key, "rotated": views.rotated}
    return {name: images for name, images in every.items() if images is not None}


def torchvision_view(pixels, parameters, prefix, row, kernel_size):
    """One image through torchvision, operation by operation, from the same parameters."""
    mine = {
        name.removeprefix(prefix): values[row]
        for name, values in parameters.items()
        if name.startswith(prefix)
    }
    image = tv.to_dtype(pixels.permute(2, 0, 1), torch.float32, scale=True)
    operations = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for operation in mine.get("order", torch.empty(0)).tolist():
        image = operations[operation](image, mine["jitter"][operation].item())
    if mine.get("grayscale", False):
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    if mine.get("blur", 0) > 0:
        image = tv.gaussian_blur(image, [kernel_size] * 2, [mine["blur"].item()] * 2)
    if mine.get("flip", False):  # last, as MoCo v2 has it: it commutes with all the others
        image = tv.horizontal_flip(image)
    return tv.normalize(image, MEAN, STD)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize(
    ("query", "key", "size", "num"),
    [
        ("cifar", None, 32, 20),
        ("digits", None, 8, 10),
        ("imagenet_plain", "imagenet", 24, 20),
        ("imagenet", "moco_v2", 32, 40),
        ("whole", None, 16, 4),
        ("center", None, 16, 4),
    ],
)
def test_views_are_those_of_torchvision_with_the_same_parameters(query, key, size, num):
    augment = augmentation(query, size, key=key)
    batch = batch_of(augment, num)
    parameters = tensors(augment.parameters(batch.samples, batch.views))

    views = augment.apply(batch.pixels, parameters)

    for crop, (name, images) in enumerate(present(views).items()):
        for row in range(num):
            expected = torchvision_view(
                batch.pixels[crop, row], parameters, f"{name}.", row, kernel_size=3
            )
            # 1e-5 of the pixel range, divided by the deviation; hue adds some rounding.
            torch.testing.assert_close(images[row], expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("executor")
def test_views_are_float_channels_last_and_the_pixels_are_left_alone():
    augment = augmentation("imagenet", 32, key="moco_v2", rotate=True)
    batch = batch_of(augment, 6)
    before = batch.pixels.clone()

    views = views_of(augment, batch)

    assert set(present(views)) == {"query", "key", "rotated"}
    for images in present(views).values():
        assert images.shape == (6, 3, 32, 32)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert not images.requires_grad
    assert torch.equal(batch.pixels, before)


@pytest.mark.usefixtures("executor")
def test_the_rotated_image_is_the_query_turned_by_its_own_turns():
    augment = augmentation("cifar", 32, rotate=True)
    batch = batch_of(augment, 32)

    views = views_of(augment, batch)

    assert views.rotated is not None
    assert views.turns is not None
    assert views.turns.dtype == torch.int64
    assert set(views.turns.tolist()) == {0, 1, 2, 3}
    for query, rotated, turns in zip(views.query, views.rotated, views.turns.tolist(), strict=True):
        assert torch.equal(rotated, torch.rot90(query, turns, (1, 2)))


@pytest.mark.usefixtures("executor")
def test_rotation_changes_neither_the_query_nor_its_boxes():
    plain, rotating = augmentation("cifar", 32), augmentation("cifar", 32, rotate=True)
    batch = batch_of(plain, 16)
    sizes = np.full((16, 2), 32)

    assert torch.equal(views_of(plain, batch).query, views_of(rotating, batch).query)
    np.testing.assert_array_equal(
        plain.boxes(batch.samples, batch.views, sizes),
        rotating.boxes(batch.samples, batch.views, sizes),
    )


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 9), slice(20, 60), [31, 3, 17]])
def test_a_crop_and_flip_are_the_same_bits_in_any_batch(rows):
    augment = augmentation("cifar", 32, rotate=True)
    batch = batch_of(augment, 60)

    together, apart = views_of(augment, batch), views_of(augment, batch.rows(rows))

    for name, images in present(apart).items():
        assert torch.equal(images, present(together)[name][rows])


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(5, 18), [31, 3, 17]])
def test_colours_and_blur_are_the_same_in_any_batch(rows, size):
    augment = augmentation("imagenet", size, key="moco_v2")
    batch = batch_of(augment, 40)

    together, apart = views_of(augment, batch), views_of(augment, batch.rows(rows))

    for name, images in present(apart).items():
        # Matrix products may sum in another order in a batch of another size.
        torch.testing.assert_close(images, present(together)[name][rows], atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    draws=st.lists(
        st.tuples(st.integers(0, 2**31), st.integers(0, 2**40)), min_size=1, max_size=12
    ),
    seed=st.integers(0, 2**31),
)
def test_a_draw_has_the_same_boxes_and_parameters_in_any_batch(draws, seed):
    augment = augmentation("imagenet", 32, key="moco_v2", rotate=True, seed=seed)
    samples, views = (np.array(column) for column in zip(*draws, strict=True))
    sizes = 40 + np.stack([samples, views], axis=1) % 300

    boxes = augment.boxes(samples, views, sizes)
    parameters = augment.parameters(samples, views)

    assert boxes.shape == (len(draws), 2, 4)
    for row in range(len(draws)):
        one = slice(row, row + 1)
        alone = augment.boxes(samples[one], views[one], sizes[one])
        np.testing.assert_array_equal(boxes[one], alone)
        for name, values in augment.parameters(samples[one], views[one]).items():
            np.testing.assert_array_equal(values, parameters[name][one])


def test_a_run_resumed_at_an_epoch_sees_what_it_would_have_seen():
    samples, sizes = np.arange(64), np.full((64, 2), 32)
    straight = augmentation("cifar", 32, rotate=True)
    for epoch in range(3):
        expected = straight.boxes(samples, np.full(64, epoch), sizes)
        expected_parameters = straight.parameters(samples, np.full(64, epoch))

    resumed = augmentation("cifar", 32, rotate=True)

    np.testing.assert_array_equal(resumed.boxes(samples, np.full(64, 2), sizes), expected)
    parameters = resumed.parameters(samples, np.full(64, 2))
    assert set(parameters) == {"query.flip", "turns"}
    for name, values in parameters.items():
        np.testing.assert_array_equal(values, expected_parameters[name])


@pytest.mark.parametrize(
    ("query", "key", "size", "known"),
    [
        ("cifar", None, 32, "3c02bf8999acb768"),
        ("imagenet", "moco_v2", 224, "d3e7642153db01a0"),
        ("imagenet_plain", None, 64, "ab9a633fe9e22a1d"),
    ],
)
def test_a_draw_has_the_boxes_and_parameters_that_it_had_in_the_first_version(
    query, key, size, known
):
    augment = augmentation(query, size, key=key, rotate=True, seed=7)
    rng = np.random.default_rng(3)
    samples, views = rng.integers(0, 2**32, 500), rng.integers(0, 2**40, 500)
    sizes = rng.integers(1, 900, (500, 2)) if query != "cifar" else np.full((500, 2), size)

    digest = hashlib.sha256(augment.boxes(samples, views, sizes).tobytes())
    for name, values in sorted(augment.parameters(samples, views).items()):
        digest.update(f"{name} {values.dtype}".encode() + values.tobytes())

    assert digest.hexdigest()[:16] == known


def test_query_and_key_boxes_are_uncorrelated():
    num_draws = 10_000
    augment = augmentation("imagenet_plain", 32, key="imagenet_plain")

    boxes = augment.boxes(
        np.arange(num_draws), np.zeros(num_draws, int), np.tile([375, 500], (num_draws, 1))
    )

    correlations = np.corrcoef(boxes[:, 0], boxes[:, 1], rowvar=False)[:4, 4:]
    assert np.abs(correlations).max() < 5 / np.sqrt(num_draws)
    assert (boxes[:, 0] == boxes[:, 1]).all(axis=1).mean() < 0.01


@pytest.mark.parametrize("change", [{"seed": 1}, {"stream": "distill"}])
def test_another_seed_or_stream_gives_other_crops(change):
    num_draws = 5_000
    draws = np.arange(num_draws), np.zeros(num_draws, int), np.full((num_draws, 2), 32)

    boxes = augmentation("cifar", 32).boxes(*draws)[:, 0, :2]
    other = augmentation("cifar", 32, **change).boxes(*draws)[:, 0, :2]

    correlations = np.corrcoef(boxes, other, rowvar=False)[:2, 2:]
    assert np.abs(correlations).max() < 5 / np.sqrt(num_draws)


def test_a_new_view_of_a_sample_is_another_crop():
    views = np.arange(1000)

    boxes = augmentation("cifar", 32).boxes(np.full(1000, 7), views, np.full((1000, 2), 32))

    assert len(np.unique(boxes[:, 0], axis=0)) == 81


def test_a_test_view_needs_no_parameters():
    augment = augmentation("whole", 16)
    batch = batch_of(augment, 3)

    parameters = augment.parameters(batch.samples, batch.views)
    boxes = augment.boxes(batch.samples, batch.views, [[16, 16], [30, 20], [7, 9]])

    assert parameters == {}
    assert boxes.tolist() == [[[0, 0, 16, 16]], [[0, 0, 20, 30]], [[0, 0, 9, 7]]]


@pytest.mark.usefixtures("executor")
def test_autocast_around_the_augmentation_does_not_coarsen_it():
    augment = augmentation("moco_v2", 32)
    batch = batch_of(augment, 16)
    expected = views_of(augment, batch).query

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = views_of(augment, batch).query

    assert torch.equal(found, expected)


@pytest.mark.usefixtures("executor")
def test_an_empty_batch_is_an_empty_batch():
    augment = augmentation("imagenet", 32, key="moco_v2", rotate=True)
    batch = batch_of(augment, 0)

    boxes = augment.boxes(batch.samples, batch.views, np.empty((0, 2), int))
    views = views_of(augment, batch)

    assert boxes.shape == (0, 2, 4)
    assert all(images.shape == (0, 3, 32, 32) for images in present(views).values())


def test_a_padded_crop_of_images_of_another_size_is_refused_by_sample():
    augment = augmentation("cifar", 32)

    with pytest.raises(ConfigError, match=r"'cifar'.*32 x 32.*sample 11 is stored as 30 x 28"):
        augment.boxes([10, 11], [0, 0], [[32, 32], [28, 30]])


def test_roles_of_different_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"'imagenet'.*32.*'moco_v2'.*64"):
        Augmentation(
            build_recipe("imagenet", 32),
            key=build_recipe("moco_v2", 64),
            mean=MEAN,
            std=STD,
            seed=0,
            stream="features",
        )


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), STD), (MEAN, (0.2, 0.2)), (MEAN, (0.2, 0.0, 0.2))]
)
def test_statistics_that_are_not_three_channels_are_refused(mean, std):
    with pytest.raises(ConfigError, match="three numbers"):
        Augmentation(build_recipe("cifar", 32), mean=mean, std=std, seed=0, stream="features")


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 2, 32, 32, 3),
        torch.zeros(2, 2, 32, 32, 3, dtype=torch.uint8),
        torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 32, 32, 3, dtype=torch.uint8),
    ],
    ids=["float", "a crop too many", "channels first", "no crops"],
)
def test_pixels_of_another_layout_are_refused(pixels):
    augment = augmentation("cifar", 32)

    with pytest.raises(ValueError, match=r"expected uint8 pixels of \(1, B, 32, 32, 3\)"):
        augment.apply(pixels, tensors(augment.parameters([0, 1], [0, 0])))
