"""DALI's pixels left where its pipelines make them: the same code on the CPU as on a GPU."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastssd.data.storage.image import JPEG, RAW, StoredImage

pytest.importorskip("nvidia.dali", reason="nvidia-dali is not installed")

from fastssd.data.decode.dali_decoder import MIXED, DaliDecoder

SIZE = 16


def picture(seed):
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return np.array(Image.fromarray(small).resize((60, 40), Image.Resampling.BICUBIC))


def jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "JPEG")
    return StoredImage(JPEG, np.frombuffer(buffer.getvalue(), np.uint8).copy())


IMAGES = [jpeg(seed) for seed in range(4)]
BOXES = np.array([[[i, -i, 20 + i, 30], [5, 6, SIZE, SIZE]] for i in range(4)])


@pytest.fixture(scope="module")
def decoder():
    return DaliDecoder()


def test_the_tensor_has_the_pixels_of_decode_and_keeps_them(decoder):
    tensor = decoder.decode_tensor(IMAGES, BOXES, SIZE)
    for _ in range(3):  # the pipeline fills its memory anew
        decoder.decode_tensor(IMAGES[::-1], BOXES, SIZE)

    assert tensor.dtype == torch.uint8
    assert tensor.shape == (2, 4, SIZE, SIZE, 3)
    assert np.array_equal(tensor.numpy(), decoder.decode(IMAGES, BOXES, SIZE))


def damaged(image):
    return StoredImage(JPEG, image.data[: len(image.data) // 2])


@pytest.mark.parametrize(
    "odd", [StoredImage(RAW, picture(9)), damaged(IMAGES[0]), StoredImage(JPEG, IMAGES[0].data[:9])]
)
def test_a_batch_that_decode_has_to_look_at_has_no_tensor(decoder, odd):
    assert decoder.decode_tensor([IMAGES[0], odd, *IMAGES[2:]], BOXES, SIZE) is None
    assert decoder.decode_tensor(IMAGES, BOXES, SIZE) is not None  # and it serves on


def test_no_images_and_no_views_have_no_tensor(decoder):
    assert decoder.decode_tensor([], BOXES[:0], SIZE) is None
    assert decoder.decode_tensor(IMAGES, BOXES[:, :0], SIZE) is None


def test_on_the_cpu_batches_go_through_decode(decoder):
    assert not decoder.makes_tensors


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_pixels_stay_there():
    decoder = DaliDecoder(device=MIXED)
    assert decoder.makes_tensors
    tensor = decoder.decode_tensor(IMAGES, BOXES, SIZE)
    for _ in range(3):
        decoder.decode_tensor(IMAGES[::-1], BOXES, SIZE)

    assert tensor.is_cuda
    assert np.array_equal(tensor.cpu().numpy(), decoder.decode(IMAGES, BOXES, SIZE))
