"""Which executor a task gets, and what is said of it."""

import numpy as np
import pytest
import torch

from fastssd.augment import executors
from fastssd.augment.augmentation import Augmentation
from fastssd.augment.executor import Task, UnavailableError
from fastssd.augment.executors import choose_executor
from fastssd.augment.native_executor import NativeExecutor
from fastssd.augment.recipes import build_recipe
from fastssd.augment.torch_executor import TorchExecutor
from fastssd.augment.triton_executor import TritonExecutor
from fastssd.native import library

CPU = torch.device("cpu")


class Broken:
    """An executor that cannot work on this machine."""

    name = "broken"

    def __init__(self, task):
        raise UnavailableError("its compiler is on strike")


def task(name="moco_v2", size=16, device=CPU):
    return Task(build_recipe(name, size), (4.0,) * 3, (-2.0,) * 3, device)


@pytest.mark.kernels
def test_a_cpu_takes_the_native_kernels_without_a_word():
    choice = choose_executor(task())

    assert isinstance(choice.executor, NativeExecutor)
    assert choice.reason == ""


def test_without_native_kernels_a_cpu_takes_pytorchs_operations_and_says_why(monkeypatch):
    monkeypatch.setattr(library, "library", lambda: None)
    monkeypatch.setattr(library, "problem", lambda: "the native kernels were not built")

    choice = choose_executor(task())

    assert isinstance(choice.executor, TorchExecutor)
    assert "were not built" in choice.reason
    assert library.INSTALL in choice.reason


def test_the_first_that_works_is_taken(monkeypatch):
    monkeypatch.setitem(executors.EXECUTORS, "cpu", [Broken, TorchExecutor, Broken])

    choice = choose_executor(task())

    assert isinstance(choice.executor, TorchExecutor)
    assert choice.reason == "its compiler is on strike"


def test_a_device_of_another_kind_takes_pytorchs_operations():
    choice = choose_executor(task(device=torch.device("meta")))

    assert isinstance(choice.executor, TorchExecutor)
    assert choice.reason == ""


def test_a_gpu_is_first_given_to_triton():
    assert executors.EXECUTORS["cuda"][0] is TritonExecutor


def test_a_person_reads_what_is_taken_and_why_nothing_faster_is(monkeypatch):
    monkeypatch.setitem(executors.EXECUTORS, "cpu", [Broken])
    augment = Augmentation(
        build_recipe("imagenet", 16),
        key=build_recipe("moco_v2", 16),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
        stream="features",
    )

    assert augment.executor(CPU) == "PyTorch (its compiler is on strike)"


def test_an_executor_is_made_once_for_a_device(monkeypatch):
    made = []

    class Counted(TorchExecutor):
        def __init__(self, task):
            made.append(task.recipe.name)
            super().__init__(task)

    monkeypatch.setitem(executors.EXECUTORS, "cpu", [Counted])
    augment = Augmentation(
        build_recipe("cifar", 8), mean=(0.5,) * 3, std=(0.25,) * 3, seed=0, stream="features"
    )
    pixels = torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8)
    parameters = augment.parameters(np.arange(2), np.arange(2))
    for _ in range(3):
        augment.apply(pixels, {name: torch.from_numpy(v) for name, v in parameters.items()})

    assert made == ["cifar"]
