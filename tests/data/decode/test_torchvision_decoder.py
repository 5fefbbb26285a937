import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from fastssd.data.decode.decoder import DecodeError
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.storage.image import StoredImage
from fastssd.errors import DataError

WHOLE = [0, 0, 30, 20]


def jpeg(content):
    return StoredImage("jpeg", np.frombuffer(content, np.uint8).copy())


def boxes_of(*rows):
    return np.array(rows, np.int64)


@pytest.fixture
def images(picture, encoded):
    contents = [encoded(picture(20, 30, seed=i), mode=mode) for i, mode in enumerate(("RGB", "L"))]
    return [*map(jpeg, contents), StoredImage("raw", picture(20, 30, seed=2))]


def test_jpeg_and_raw_images_give_the_pixels_that_pillow_sees(images):
    box = [4, 3, 16, 16]

    out = TorchvisionDecoder().decode(images, boxes_of([box], [box], [box]), 16)

    assert out.shape == (1, 3, 16, 16, 3)
    assert out.dtype == np.uint8
    for position, image in enumerate(images):
        if image.mode == "jpeg":
            pixels = np.array(Image.open(io.BytesIO(image.data.tobytes())).convert("RGB"))
        else:
            pixels = image.data
        # Two builds of libjpeg-turbo may round differently.
        difference = out[0, position].astype(int) - pixels[3:19, 4:20]
        assert np.abs(difference).max() <= (2 if image.mode == "jpeg" else 0)


def test_each_view_and_image_has_its_own_box(images):
    random = np.random.default_rng(0)
    boxes = np.stack([random.integers(-5, 10, (3, 2, 2)), random.integers(1, 25, (3, 2, 2))], 2)
    boxes = boxes.reshape(3, 2, 4)

    together = TorchvisionDecoder().decode(images, boxes, 12)

    for view in range(2):
        for position in range(3):
            alone = TorchvisionDecoder().decode(
                [images[position]], boxes[position : position + 1, view : view + 1], 12
            )
            assert np.array_equal(together[view, position], alone[0, 0])


def test_what_lies_outside_the_image_is_zero(images):
    box = [-4, -4, 16, 16]
    out = TorchvisionDecoder().decode(images, boxes_of([box], [box], [box]), 16)[0]
    assert not out[:, :4].any()
    assert not out[:, :, :4].any()
    assert out[:, 4:, 4:].any(axis=(1, 2, 3)).all()


def test_the_images_are_not_written_to(images):
    before = [image.data.copy() for image in images]
    TorchvisionDecoder().decode(images, boxes_of([WHOLE], [WHOLE], [WHOLE]), 8)
    for image, data in zip(images, before, strict=True):
        assert np.array_equal(image.data, data)


def test_threads_give_the_same_pixels(images):
    boxes = boxes_of([WHOLE], [WHOLE], [WHOLE])
    expected = TorchvisionDecoder().decode(images, boxes, 12)
    decoder = TorchvisionDecoder()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decoder.decode(images, boxes, 12), range(40)))
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.parametrize("damage", ["truncated", "no end", "garbage", "empty"])
def test_a_damaged_jpeg_is_an_error_that_says_which_and_why(images, damage):
    content = images[1].data.tobytes()
    broken = {
        "truncated": content[: len(content) // 2],
        "no end": content[:-2],
        "garbage": b"no picture at all" * 10,
        "empty": b"",
    }[damage]
    images[1] = jpeg(broken)

    with pytest.raises(DecodeError) as caught:
        TorchvisionDecoder().decode(images, boxes_of([WHOLE], [WHOLE], [WHOLE]), 8)

    assert caught.value.position == 1
    assert caught.value.reason
    assert ".cpp" not in caught.value.reason
    assert isinstance(caught.value, DataError)


def test_boxes_of_another_shape_are_refused(images):
    with pytest.raises(ValueError, match="for 3 images"):
        TorchvisionDecoder().decode(images, boxes_of([WHOLE]), 8)
