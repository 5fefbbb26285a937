import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastssd.data.decode.decoder import DecodeError
from fastssd.data.decode.torchvision_decoder import TorchvisionDecoder
from fastssd.data.storage.image import StoredImage
from fastssd.errors import DataError

pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")

from fastssd.data.decode import dali_decoder
from fastssd.data.decode.dali_decoder import DaliDecoder

HEIGHT, WIDTH = 40, 60
WHOLE = [0, 0, WIDTH, HEIGHT]


def smooth(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return StoredImage("jpeg", np.frombuffer(buffer.getvalue(), np.uint8).copy())


IMAGES = [
    jpeg(smooth(HEIGHT, WIDTH)),
    StoredImage("raw", smooth(HEIGHT, WIDTH, seed=1)),
    jpeg(smooth(HEIGHT, WIDTH, seed=2), progressive=True, subsampling=0),
    jpeg(smooth(HEIGHT, WIDTH, seed=3)[..., 0]),
]
DECODER = DaliDecoder()


def boxes_of(*rows):
    return np.array(rows, np.int64)


def difference(out, images, boxes, size):
    expected = TorchvisionDecoder().decode(images, boxes, size)
    assert out.shape == expected.shape
    assert out.dtype == expected.dtype
    return np.abs(out.astype(int) - expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-70, 70)] * 2), min_size=4, max_size=4))
@example([(-23, 0)] * 4)  # one column of chroma-subsampled JPEG
def test_a_box_of_the_outputs_size_has_torchvisions_pixels_wherever_it_lies(corners):
    boxes = boxes_of(*([[x, y, 24, 24]] for x, y in corners))
    assert not difference(DECODER.decode(IMAGES, boxes, 24), IMAGES, boxes, 24).any()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-30, 60)] * 2, *[st.integers(1, 90)] * 2), min_size=8, max_size=8
    )
)
def test_a_resized_box_differs_by_rounding_within_the_output(rows):
    boxes = boxes_of(*rows).reshape(4, 2, 4)

    out = DECODER.decode(IMAGES, boxes, 16)

    # Only the outermost pixels of the output have a filter that reaches out of the box.
    inner = difference(out, IMAGES, boxes, 16)[:, :, 1:-1, 1:-1]
    assert inner.max() <= 1


def test_orientation_is_left_to_others():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = jpeg(smooth(HEIGHT, WIDTH), exif=exif)
    boxes = boxes_of([[30, 5, 24, 24]])
    assert not difference(DECODER.decode([image], boxes, 24), [image], boxes, 24).any()


def test_batches_of_any_size_share_the_pool():
    decoder = DaliDecoder()
    for count in (1, 4, 3, 9, 2):
        images = (IMAGES * 3)[:count]
        boxes = np.tile(boxes_of([[2, 3, 24, 24]]), (count, 1, 1))
        assert not difference(decoder.decode(images, boxes, 24), images, boxes, 24).any()


def test_no_image_and_no_view_are_no_pixels():
    assert DECODER.decode([], np.zeros((0, 2, 4), np.int64), 8).shape == (2, 0, 8, 8, 3)
    assert DECODER.decode(IMAGES, np.zeros((4, 0, 4), np.int64), 8).shape == (0, 4, 8, 8, 3)


def test_threads_give_the_same_pixels():
    boxes = np.tile(boxes_of([WHOLE]), (4, 1, 1))
    expected = DECODER.decode(IMAGES, boxes, 12)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: DECODER.decode(IMAGES, boxes, 12), range(24)))
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.parametrize("damage", ["truncated", "no end", "garbage", "empty"])
def test_a_damaged_jpeg_is_named_and_the_next_batch_is_right(damage):
    content = IMAGES[2].data
    broken = {
        "truncated": content[: len(content) // 2],
        "no end": content[:-2],
        "garbage": np.frombuffer(b"no picture at all" * 10, np.uint8).copy(),
        "empty": content[:0],
    }[damage]
    decoder = DaliDecoder()
    boxes = np.tile(boxes_of([[2, 3, 24, 24]]), (4, 1, 1))
    images = [*IMAGES[:2], StoredImage("jpeg", broken), IMAGES[3]]

    with pytest.raises(DecodeError) as caught:
        decoder.decode(images, boxes, 24)

    assert caught.value.position == 2
    assert not difference(decoder.decode(IMAGES, boxes, 24), IMAGES, boxes, 24).any()


def test_the_first_of_several_damaged_images_is_named():
    truncated = StoredImage("jpeg", IMAGES[0].data[:-2])
    garbage = StoredImage("jpeg", np.zeros(50, np.uint8))
    boxes = np.tile(boxes_of([WHOLE]), (4, 1, 1))
    with pytest.raises(DecodeError) as caught:
        DECODER.decode([IMAGES[0], truncated, garbage, truncated], boxes, 8)
    assert caught.value.position == 1


def test_a_file_that_only_torchvision_reads_has_its_pixels_and_spoils_no_other():
    buffer = io.BytesIO()
    Image.fromarray(smooth(HEIGHT, WIDTH)).convert("CMYK").save(buffer, "JPEG")
    cmyk = StoredImage("jpeg", np.frombuffer(buffer.getvalue(), np.uint8).copy())
    images = [IMAGES[0], cmyk, IMAGES[1]]
    boxes = np.tile(boxes_of([WHOLE]), (3, 1, 1))

    out = DECODER.decode(images, boxes, 16)

    assert not difference(out, images, boxes, 16)[:, 1].any()
    alone = DECODER.decode([IMAGES[0]], boxes[:1], 16)
    assert np.array_equal(out[:, 0], alone[:, 0])


def test_boxes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="for 4 images"):
        DECODER.decode(IMAGES, boxes_of([WHOLE]), 8)
    with pytest.raises(ValueError, match="without pixels"):
        DECODER.decode(IMAGES[:1], boxes_of([[0, 0, 0, 5]]), 8)


def test_a_device_that_is_none_is_refused():
    with pytest.raises(ValueError, match="choose cpu or mixed"):
        DaliDecoder(device="gpu")


def test_the_manifest_tells_the_devices_apart():
    assert DaliDecoder().filter != DaliDecoder(device=dali_decoder.MIXED).filter


def test_pipelines_that_run_for_no_sound_image_end_the_run(monkeypatch):
    def broken(self, inputs):
        raise RuntimeError("nvml error 999\nand a page of places")

    monkeypatch.setattr(dali_decoder._Runner, "run", broken)
    decoder, boxes = DaliDecoder(), np.tile(boxes_of([WHOLE]), (4, 1, 1))

    with pytest.raises(DataError, match=r"none of 3 sound images on the CPU \(nvml error 999\)"):
        decoder.decode(IMAGES, boxes, 8)


def test_what_is_wrong_outside_dali_is_no_refusal(monkeypatch):
    def full(self, outputs):
        raise torch.OutOfMemoryError("no memory for the copy")

    monkeypatch.setattr(DaliDecoder, "_tensor", full)

    with pytest.raises(torch.OutOfMemoryError, match="for the copy"):
        DaliDecoder().decode_tensor(IMAGES[:1], boxes_of([WHOLE]), 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_gpu_that_dali_cannot_use_is_said_to_be_so():
    boxes = np.tile(boxes_of([WHOLE]), (2, 1, 1))

    with pytest.raises(DataError, match="DALI decodes none of 2 sound images on a GPU"):
        DaliDecoder(device=dali_decoder.MIXED).decode([IMAGES[0], IMAGES[2]], boxes, 24)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("end", [2, 3, 40, 400])
def test_on_a_gpu_a_truncated_jpeg_is_named(end):
    boxes = np.tile(boxes_of([WHOLE]), (2, 1, 1))
    truncated = StoredImage("jpeg", IMAGES[2].data[:-end])

    with pytest.raises(DecodeError) as caught:
        DaliDecoder(device=dali_decoder.MIXED).decode([IMAGES[0], truncated], boxes, 24)

    assert caught.value.position == 1


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_an_images_pixels_do_not_depend_on_its_batch():
    decoder = DaliDecoder(device=dali_decoder.MIXED)
    boxes = boxes_of([[-4, 3, 50, 30], WHOLE])
    (alone,) = decoder.decode(IMAGES[:1], boxes, 16).transpose(1, 0, 2, 3, 4)

    for count in (4, 64):
        images = [IMAGES[i % 4] for i in range(count)]
        together = decoder.decode(images, np.tile(boxes, (count, 1, 1)), 16)
        assert all(np.array_equal(together[:, i], alone) for i in range(0, count, 4))


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_the_pixels_are_near(monkeypatch):
    boxes = np.tile(boxes_of([[-4, 3, 50, 30], WHOLE]), (4, 1, 1))
    decoder = DaliDecoder(device=dali_decoder.MIXED)
    monkeypatch.setattr(decoder, "_decode_singly", None)  # nothing may be refused
    found = difference(decoder.decode(IMAGES, boxes, 16), IMAGES, boxes, 16)
    assert found.mean() <= 2
