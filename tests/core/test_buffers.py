"""Memory that batches are made in: one rule, what nothing refers to is used again."""

import gc
import threading

import numpy as np
import pytest
import torch

from fastssd.core.buffers import Buffers


def test_memory_is_used_again_once_nothing_refers_to_it():
    buffers = Buffers(keep=1)
    array = buffers.empty(4, 8)
    where = array.ctypes.data
    del array

    assert buffers.empty(4, 8).ctypes.data == where


def slice_of(array):
    return array[2:, 3]


def tensor_of(array):
    return torch.from_numpy(array)


def view_of_a_tensor(array):
    return torch.from_numpy(array)[1:].permute(1, 0)


def array_of_a_tensor(array):
    return torch.from_numpy(array).numpy()[:1]


def bytes_of(array):
    return memoryview(array)


@pytest.mark.parametrize(
    "keep", [slice_of, tensor_of, view_of_a_tensor, array_of_a_tensor, bytes_of]
)
def test_whatever_refers_to_memory_keeps_it(keep):
    buffers = Buffers(keep=2)
    array = buffers.empty(6, 8)
    where = array.ctypes.data
    kept = keep(array)
    del array
    gc.collect()

    other = buffers.empty(6, 8)
    assert other.ctypes.data != where
    del kept
    assert buffers.empty(6, 8).ctypes.data == where


def test_smaller_batches_fit_and_larger_ones_get_new_memory():
    buffers = Buffers(keep=2)
    where = buffers.empty(100).ctypes.data  # let go of at once

    small = buffers.empty(3, 5)
    assert small.ctypes.data == where
    assert small.shape == (3, 5)
    del small
    assert buffers.empty(101).shape == (101,)


def test_no_more_waits_than_is_to_be_kept():
    buffers = Buffers(keep=2)
    arrays = [buffers.empty(1 << 20) for _ in range(5)]
    places = {array.ctypes.data for array in arrays}
    assert len(places) == 5
    arrays.clear()

    assert len(buffers._waiting) == 2


def test_an_array_without_bytes_is_no_exception():
    assert Buffers(keep=1).empty(2, 0, 3).shape == (2, 0, 3)


def test_threads_never_get_the_same_memory_at_once():
    buffers, problems = Buffers(keep=3), []

    def work(number):
        for _ in range(300):
            array = buffers.empty(64)
            array[...] = number
            if not (array == number).all():
                problems.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_memory_for_a_gpu_is_page_locked_and_used_again():
    buffers = Buffers(keep=1, pin_memory=True)
    array = buffers.empty(1 << 20)
    where = array.ctypes.data
    assert torch.from_numpy(array).is_pinned()
    del array

    assert buffers.empty(1 << 20).ctypes.data == where
    assert isinstance(np.asarray(buffers.empty(3)), np.ndarray)
