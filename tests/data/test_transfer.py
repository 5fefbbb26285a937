"""Batches on their way to the device: the same values, fewer copies."""

import numpy as np
import pytest
import torch
from host_waits import cuda_refuses_waits
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.core.buffers import Buffers
from fastssd.data.transfer import Transfer, packed, to_device

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DTYPES = [torch.uint8, torch.bool, torch.int64, torch.float32, torch.float16, torch.float64]


def batch_of(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"array{i}": torch.randint(0, 2, shape, generator=generator).to(DTYPES[i % len(DTYPES)])
        for i, shape in enumerate(shapes)
    }


def alike(one, other):
    return list(one) == list(other) and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.fixture(autouse=True)
def nothing_is_pinned(monkeypatch):
    # Without a GPU nothing can be, and PyTorch is not to be asked.
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=9))
def test_packed_batches_hold_the_same_values(shapes):
    batch = batch_of(shapes)

    assert alike(packed(batch, Buffers(keep=4)), batch)


def test_small_arrays_lie_together_and_large_ones_alone():
    batch = batch_of([(3,), (7, 2), (5,)]) | {"pixels": torch.ones(1 << 21, dtype=torch.uint8)}

    found = packed(batch, Buffers(keep=4))

    blocks = {name: values.untyped_storage().data_ptr() for name, values in found.items()}
    assert blocks["array0"] == blocks["array1"] == blocks["array2"] != blocks["pixels"]
    assert len({values.data_ptr() for values in found.values()}) == 4


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_batches_are_taken_to_the_device_by_name(device):
    batch = packed(batch_of([(3,), (2, 4), ()]), Buffers(keep=2))

    moved = to_device(batch, torch.device(device))

    assert list(moved) == list(batch)
    for name, values in moved.items():
        assert values.device.type == device
        assert (values.shape, values.dtype) == (batch[name].shape, batch[name].dtype)


def test_parts_of_one_array_that_do_not_lie_in_a_row_are_taken_right(monkeypatch):
    whole = torch.arange(24).view(4, 6)
    batch = {"column": whole[:, 1], "rows": whole[1:3]}

    moved = to_device(batch, torch.device("meta"))

    assert moved["column"].shape == (4,)
    assert moved["rows"].shape == (2, 6)


def test_on_the_cpu_nothing_is_copied():
    batch = batch_of([(3,), (4,)])

    moved = Transfer(torch.device("cpu"))(batch)

    assert all(moved[name].data_ptr() == batch[name].data_ptr() for name in batch)


@pytest.mark.gpu
@needs_gpu
def test_batches_reach_a_gpu_whole_while_their_memory_is_used_again():
    device, buffers = torch.device("cuda"), Buffers(keep=3, pin_memory=True)
    transfer = Transfer(device)
    busy = torch.rand(2048, 2048, device=device)
    sums = []
    for number in range(30):
        batch = packed(
            {
                "pixels": torch.full((1 << 22,), number, dtype=torch.uint8),
                "n": torch.tensor(number),
            },
            buffers,
        )
        moved = transfer(batch)
        del batch
        busy = busy @ busy / 1000  # the consumer is behind the host
        sums.append((moved["pixels"].long().sum(), moved["n"]))
    transfer.finish()

    assert [int(total) for total, _ in sums] == [number << 22 for number in range(30)]
    assert [int(number) for _, number in sums] == list(range(30))


@pytest.mark.gpu
@needs_gpu
def test_the_host_waits_for_no_copy():
    transfer = Transfer(torch.device("cuda"))
    batch = packed(batch_of([(3,), (4,)]), Buffers(keep=1, pin_memory=True))
    with cuda_refuses_waits():
        moved = transfer(batch)
    transfer.finish()
    assert np.array_equal(moved["array1"].cpu(), batch["array1"])
