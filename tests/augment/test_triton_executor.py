"""The Triton kernels: their values in Triton's interpreter, and that they compile for real GPUs.

The interpreter is chosen when Triton is first imported, so it has a process of its own.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from host_waits import cuda_refuses_waits

from fastssd.augment.executor import Task, UnavailableError
from fastssd.augment.parameters import KeyedDraws, Role, operation_parameters
from fastssd.augment.recipes import build_recipe
from fastssd.augment.torch_executor import TorchExecutor
from fastssd.augment.triton_executor import TritonExecutor

pytest.importorskip("triton")

COMPARE = """
import json
import numpy as np, torch
from fastssd.augment.boxes import WholeImage
from fastssd.augment.executor import Task
from fastssd.augment.recipe import ColourJitter, GaussianBlur, Recipe
from fastssd.augment.torch_executor import TorchExecutor
from fastssd.augment.triton_executor import TritonExecutor

jitter = torch.tensor([[1.3, 0.7, 1.2, 0.1], [0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, -0.5],
                       [1.0, 1.0, 0.0, 0.5], [1.0, 1.0, 1.0, 0.0], [0.6, 1.4, 1.4, -0.1]])
order = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [0, 1, 2, 3],
                      [3, 1, 0, 2]])
every = {
    "flip": torch.tensor([True, False, True, False, True, False]),
    "jitter": jitter, "order": order,
    "grayscale": torch.tensor([False, False, False, True, False, False]),
    "blur": torch.tensor([0.0, 0.3, 2.0, 0.0, 0.0, 9.0]),
}
three = {"jitter": jitter[:, :3].contiguous(), "order": torch.tensor([[0, 1, 2], [2, 1, 0]] * 3)}
turns = torch.tensor([0, 1, 2, 3, 1, 3])
differences = {}
for name, side, kernel_size, parameters in [
    ("several programs an image", 33, 3, every),
    ("a wide blur", 12, 15, every),
    ("jitter without hue", 9, 1, three),
    ("a flip", 7, 1, {"flip": every["flip"]}),
    ("nothing", 1, 1, {}),
]:
    rng = np.random.default_rng(side)
    images = torch.from_numpy(rng.integers(0, 256, (6, side, side, 3), np.uint8))
    recipe = Recipe(
        name="test", size=side, crop=WholeImage(),
        flip=0.5 if "flip" in parameters else 0,
        jitter=ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4,
                            hue=0.1 if len(parameters["jitter"].T) == 4 else 0)
        if "jitter" in parameters else None,
        grayscale=0.5 if "grayscale" in parameters else 0,
        blur=GaussianBlur(sigma=(0.1, 2.0), kernel_size=kernel_size) if "blur" in parameters
        else None,
    )
    task = Task(recipe, (1.0, 1.5, 0.5), (0.0, -1.0, 0.25), torch.device("cpu"))
    triton, reference = TritonExecutor(task), TorchExecutor(task)
    results = triton.finish(images, parameters, turns)
    expected = reference.finish(images, parameters, turns)
    differences[name] = [float((a - b).abs().max()) for a, b in zip(results, expected)]
    rows = [4, 1]
    alone, _ = triton.finish(images[rows], {k: v[rows] for k, v in parameters.items()}, None)
    assert torch.equal(alone, results[0][rows]), "a batch changes an image's bits"
    assert alone.is_contiguous(memory_format=torch.channels_last)
    none = triton.finish(images[:0], {k: v[:0] for k, v in parameters.items()}, turns[:0])
    assert [tuple(result.shape) for result in none] == [(0, 3, side, side)] * 2
print(json.dumps(differences))
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fastssd.augment import triton_kernels as kernels

types = {"pixels": "*u8", "flip": "*i1", "order": "*i64", "grayscale": "*i1", "turns": "*i64"}
types |= {name: "fp32" for i in range(3) for name in (f"scale_{i}", f"shift_{i}")}
constants = {"HAS_FLIP": True, "NUM_STEPS": 4, "HAS_GRAYSCALE": True, "HAS_BLUR": True,
             "HAS_TURNS": True, "SIDE": 224, "BLOCK": 1024, "NUM_BLOCKS": 49, "SUMS": 64,
             "RADIUS": 11}
for kernel in (kernels.add_greys, kernels.colour, kernels.blur_along, kernels.blur_down):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else types.get(n, "*fp32") for n in names}
    source = ASTSource(kernel, signature=signature,
                       constexprs={n: constants[n] for n in names if n in constants})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    print(kernel.__name__, len(compiled.asm["cubin"]))
"""


def run(script, folder, **environment):
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_CACHE_DIR": str(folder)} | environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_in_the_interpreter_the_kernels_give_what_pytorchs_operations_give(tmp_path):
    differences = json.loads(run(COMPARE, tmp_path, TRITON_INTERPRET="1"))

    assert len(differences) == 5
    for name, both in differences.items():
        assert len(both) == 2, name
        assert max(both) < 3e-6, name


def test_the_kernels_compile_for_an_h100_without_having_one(tmp_path):
    lines = run(COMPILE, tmp_path, TRITON_INTERPRET="0").split("\n")

    assert [line.split()[0] for line in lines if line] == [
        "add_greys",
        "colour",
        "blur_along",
        "blur_down",
    ]


def test_kernels_that_cannot_run_are_refused_with_the_reason():
    # Compiled kernels, unlike interpreted ones, take no tensors of the CPU.
    task = Task(build_recipe("imagenet", 8), (1.0,) * 3, (0.0,) * 3, torch.device("cpu"))

    with pytest.raises(UnavailableError, match="Triton cannot run the kernels"):
        TritonExecutor(task)


def test_without_triton_the_executor_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastssd.augment.triton_kernels", None)
    monkeypatch.delattr("fastssd.augment.triton_kernels", raising=False)
    task = Task(build_recipe("imagenet", 8), (1.0,) * 3, (0.0,) * 3, torch.device("cpu"))

    with pytest.raises(UnavailableError, match="cannot be imported"):
        TritonExecutor(task)


def on_gpu(name, size, batch):
    """A task, images and parameters on a GPU."""
    task = Task(build_recipe(name, size), (4.0, 4.1, 4.2), (-2.0,) * 3, torch.device("cuda"))
    rows = np.arange(batch)
    found = operation_parameters(task.recipe, KeyedDraws(0, "test", rows, rows), Role.QUERY)
    parameters = {name: torch.from_numpy(values).cuda() for name, values in found.items()}
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (batch, size, size, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8, device="cuda")
    return task, images, parameters


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "size"), [("cifar", 32), ("imagenet", 224), ("moco_v2", 224), ("moco_v2", 33)]
)
def test_on_a_gpu_the_kernels_give_what_pytorchs_operations_give_on_the_cpu(name, size):
    task, images, parameters = on_gpu(name, size, 24)
    turns = torch.arange(24) % 4
    reference = TorchExecutor(Task(task.recipe, task.scale, task.shift, torch.device("cpu")))
    on_cpu = {name: values.cpu() for name, values in parameters.items()}

    results = TritonExecutor(task).finish(images, parameters, turns.cuda())

    for found, expected in zip(results, reference.finish(images.cpu(), on_cpu, turns), strict=True):
        torch.testing.assert_close(found.cpu(), expected, atol=5e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_of_the_host_waits():
    task, images, parameters = on_gpu("moco_v2", 64, 8)
    executor, turns = TritonExecutor(task), torch.arange(8, device="cuda") % 4
    with cuda_refuses_waits():
        executor.finish(images, parameters, turns)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_batch_of_more_than_2_31_values_has_right_last_images():
    batch = 2**31 // (3 * 224 * 224) + 8
    if torch.cuda.mem_get_info()[0] < 24 * batch * 3 * 224 * 224:
        pytest.skip("needs 52 GB of free device memory")
    task, images, parameters = on_gpu("moco_v2", 224, batch)
    last = {name: values[-4:] for name, values in parameters.items()}
    executor = TritonExecutor(task)

    together, _ = executor.finish(images, parameters, None)
    alone, _ = executor.finish(images[-4:], last, None)

    assert torch.equal(together[-4:], alone)
