"""Checkpoints: what is loaded is what was saved, and a file is whole or not there."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest
import safetensors
import torch
from torch import nn

from fastssd.core import files
from fastssd.errors import DataError
from fastssd.training import checkpoints
from fastssd.training.checkpoints import (
    DamagedError,
    DivergedError,
    check_file,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)


class Network(nn.Module):
    """Convolutions of several kinds, BatchNorm, a buffer of integers and a scalar."""

    def __init__(self, seed=0, width=8, channels_last=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Conv2d(3, width, 3)
            self.norm = nn.BatchNorm2d(width)
            self.point = nn.Conv2d(width, 5, 1)
            self.scale = nn.Parameter(torch.rand(()))
        self.register_buffer("labels", torch.arange(6) - 1 + seed)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images):
        return self.scale * self.point(self.norm(self.first(images))).mean(dim=(2, 3))


def sgd(module, **options):
    return torch.optim.SGD(
        module.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, **options
    )


OPTIMIZERS = {
    "sgd": sgd,
    "fused sgd": lambda module: sgd(module, fused=True),
    "sgd without momentum": lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=0.01, amsgrad=True),
    "fused adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=0.01, fused=True),
}


def train(module, optimizer, steps):
    for step in steps:
        random = np.random.default_rng(step)
        images = torch.from_numpy(random.random((4, 3, 7, 7), np.float32))
        optimizer.zero_grad()
        module(images.to(memory_format=torch.channels_last)).pow(2).sum().backward()
        optimizer.step()


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        assert torch.equal(value, right[name]), name


def saved(path, *, module=None, optimizer=None, tensors=None, progress=None):
    module = module or Network()
    optimizer = optimizer or sgd(module)
    save_checkpoint(
        path, module=module, optimizer=optimizer, tensors=tensors or {}, progress=progress or {}
    )
    return path


@contextmanager
def files_of_at_most(num_bytes):
    """Let writing fail with an error once a file has this length, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, make, channels_last):
    straight = Network(channels_last=channels_last)
    optimizer = make(straight)
    train(straight, optimizer, range(3))
    path = saved(tmp_path / "c.safetensors", module=straight, optimizer=optimizer)
    train(straight, optimizer, range(3, 6))

    resumed = Network(seed=1, channels_last=channels_last)
    resumed_optimizer = make(resumed)
    load_checkpoint(path, module=resumed, optimizer=resumed_optimizer)
    train(resumed, resumed_optimizer, range(3, 6))

    assert_same(state_of(resumed), state_of(straight))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert resumed.first.weight.is_contiguous(memory_format=memory_format)


def test_an_optimizer_that_has_not_stepped_is_kept_too(tmp_path):
    first, second = Network(0), Network(1)
    path = saved(tmp_path / "c.safetensors", module=first)
    optimizer = sgd(second)

    load_checkpoint(path, module=second, optimizer=optimizer)
    first_optimizer = sgd(first)
    for module, its_optimizer in ((first, first_optimizer), (second, optimizer)):
        train(module, its_optimizer, range(2))

    assert_same(state_of(first), state_of(second))


def test_the_optimizers_settings_are_those_that_were_saved(tmp_path):
    module = Network()
    optimizer = sgd(module)
    optimizer.param_groups[0]["lr"] = 0.0123
    path = saved(tmp_path / "c.safetensors", module=module, optimizer=optimizer)
    other = Network(1)
    loaded = sgd(other)

    load_checkpoint(path, module=other, optimizer=loaded)

    assert loaded.param_groups[0]["lr"] == 0.0123
    assert loaded.param_groups[0]["nesterov"] is True


def test_further_tensors_and_progress_come_back_as_they_were(tmp_path):
    tensors = {
        "loss.classifier": torch.tensor(1 / 3),
        "hits.rotation": torch.arange(12, dtype=torch.float64).reshape(3, 4).t(),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(5, generator=torch.Generator().manual_seed(0)).half(),
        "nothing": torch.zeros(0),
    }
    progress = {"epoch": 3, "best": None, "seconds": 0.1 + 0.2, "scaler": {"scale": 65536.0}}
    path = saved(tmp_path / "c.safetensors", tensors=tensors, progress=progress)

    module = Network()
    found_tensors, found_progress = load_checkpoint(path, module=module, optimizer=sgd(module))

    assert_same(found_tensors, tensors)
    assert found_progress == progress


def test_weights_come_back_as_they_were(tmp_path):
    first, second = Network(0), Network(1)
    save_weights(tmp_path / "w.safetensors", first)

    load_weights(tmp_path / "w.safetensors", second)

    assert_same(state_of(second), state_of(first))
    assert second.first.weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_are_an_ordinary_safetensors_file(tmp_path):
    module = Network()
    save_weights(tmp_path / "w.safetensors", module)

    with safetensors.safe_open(tmp_path / "w.safetensors", framework="np") as file:
        assert set(file.keys()) == set(module.state_dict())
        np.testing.assert_array_equal(
            file.get_tensor("first.weight"), module.first.weight.detach().numpy()
        )


def test_tensors_that_share_memory_are_saved_each(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    save_weights(tmp_path / "w.safetensors", module)
    apart = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    load_weights(tmp_path / "w.safetensors", apart)

    assert torch.equal(apart[0].weight, module[0].weight)
    assert torch.equal(apart[1].weight, module[0].weight)


def test_loading_leaves_the_file_free_to_be_replaced(tmp_path):
    path = tmp_path / "c.safetensors"
    saved(path, tensors={"sum": torch.ones(1000)})
    module = Network()
    tensors, _ = load_checkpoint(path, module=module, optimizer=sgd(module))

    saved(path, tensors={"sum": torch.zeros(1000)})

    assert torch.equal(tensors["sum"], torch.ones(1000))


# Files that are not what they should be


def load_both_ways(path):
    """Load a file as a checkpoint and as weights; return the messages of both."""
    messages = []
    for load in (
        lambda module: load_checkpoint(path, module=module, optimizer=sgd(module)),
        lambda module: load_weights(path, module),
    ):
        with pytest.raises(DataError) as caught:
            load(Network())
        assert str(path) in str(caught.value)
        assert "delete it" in str(caught.value)
        messages.append(str(caught.value))
    return messages


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_damaged(tmp_path, share):
    path = saved(tmp_path / "c.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    load_both_ways(path)


@pytest.mark.parametrize("content", [b"garbage", b"\xff" * 5000, b"{}" * 100, bytes(64)])
def test_garbage_is_damaged(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)

    load_both_ways(path)


def test_a_missing_file_and_a_folder_in_its_place_are_said(tmp_path):
    (tmp_path / "folder").mkdir()

    load_both_ways(tmp_path / "none.safetensors")
    load_both_ways(tmp_path / "folder")


@pytest.mark.parametrize("module", [Network(width=9), nn.Linear(3, 2)])
def test_a_file_of_another_network_is_said_to_be_one(tmp_path, module):
    saved(tmp_path / "c.safetensors", module=module)
    save_weights(tmp_path / "w.safetensors", module)
    network = Network()

    with pytest.raises(DataError, match="another network"):
        load_checkpoint(tmp_path / "c.safetensors", module=network, optimizer=sgd(network))
    with pytest.raises(DataError, match="another network"):
        load_weights(tmp_path / "w.safetensors", network)


def test_weights_are_no_checkpoint(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, Network())
    network = Network()

    with pytest.raises(DataError, match="not a checkpoint"):
        load_checkpoint(path, module=network, optimizer=sgd(network))


def test_a_checkpoint_of_another_set_of_learning_weights_is_said_to_be_one(tmp_path):
    module = Network()
    path = saved(tmp_path / "c.safetensors", module=module, optimizer=sgd(module))

    with pytest.raises(DataError, match="another optimizer"):
        load_checkpoint(path, module=module, optimizer=sgd(module.first))


@pytest.mark.parametrize("header", [{}, {"progress": "{}"}, {"progress": "{", "optimizer": "{}"}])
def test_a_header_without_what_a_checkpoint_has_is_damaged(tmp_path, header):
    path = tmp_path / "c.safetensors"
    checkpoints._write(path, {"model.x": torch.zeros(1)}, header)
    network = Network()

    with pytest.raises(DamagedError, match="not a checkpoint"):
        load_checkpoint(path, module=network, optimizer=sgd(network))


def test_a_file_of_another_program_has_no_checksum_and_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"scale": torch.ones(3)}, path)
    with pytest.raises(DamagedError, match="no checksum"):
        load_weights(path, Network())


@pytest.mark.parametrize("seed", range(40))
def test_no_flipped_bit_is_taken_for_what_was_saved(tmp_path, seed):
    module = Network()
    path = saved(tmp_path / "c.safetensors", module=module, progress={"epoch": 3})
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    # Half of them in the header, which is a small part of the file.
    end = len(content) if seed % 2 else 1500
    content[random.integers(end)] ^= 1 << random.integers(8)
    path.write_bytes(content)

    with pytest.raises(DamagedError, match=r"c\.safetensors"):
        check_file(path)
    before = state_of(module)
    with pytest.raises(DamagedError):
        load_checkpoint(path, module=module, optimizer=sgd(module))
    assert_same(state_of(module), before)


def test_a_file_in_the_place_of_another_is_said_to_be_that_one(tmp_path):
    for folder in ("ssd-I", "ce"):
        (tmp_path / folder).mkdir()
    save_weights(tmp_path / "ssd-I/weights.safetensors", Network())
    save_weights(tmp_path / "ssd-I/best.safetensors", Network())
    for source in ("ssd-I/weights.safetensors", "ssd-I/best.safetensors"):
        target = tmp_path / "ce/weights.safetensors"
        target.write_bytes((tmp_path / source).read_bytes())
        with pytest.raises(DamagedError, match=f"written as {source.partition('.')[0]}"):
            load_weights(target, Network())


# Writing that fails


@pytest.mark.parametrize("what", ["weight", "statistics", "momentum"])
def test_numbers_that_are_not_finite_are_named_and_the_old_file_stays(tmp_path, what):
    module = Network()
    optimizer = sgd(module)
    train(module, optimizer, range(1))
    files = tmp_path / "s/c.safetensors", tmp_path / "s/w.safetensors"
    files[0].parent.mkdir()

    def save():
        save_checkpoint(files[0], module=module, optimizer=optimizer, tensors={}, progress={})
        save_weights(files[1], module)

    save()
    old = [file.read_bytes() for file in files]
    broken = {
        "weight": module.point.bias.data,
        "statistics": module.norm.running_var,
        "momentum": optimizer.state[module.first.weight]["momentum_buffer"],
    }[what]
    broken[(0,) * broken.ndim] = float("nan") if what == "statistics" else float("-inf")

    name = {"weight": r"point\.bias", "statistics": r"norm\.running_var"}.get(what, "momentum_buf")
    with pytest.raises(DivergedError, match=rf"s: .*{name}.* is not finite"):
        save()
    assert [file.read_bytes() for file in files] == old


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path):
    path = saved(tmp_path / "c.safetensors", progress={"epoch": 1})
    old = path.read_bytes()

    with files_of_at_most(1000), pytest.raises(DataError, match=r"c\.safetensors.*make room"):
        saved(path, progress={"epoch": 2})

    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("dies_in", ["save", "fsync"])
def test_a_process_killed_while_writing_leaves_the_old_file_whole(tmp_path, monkeypatch, dies_in):
    path = saved(tmp_path / "c.safetensors", progress={"epoch": 1})

    def killed(*_, **__):
        raise KeyboardInterrupt

    where = checkpoints if dies_in == "save" else files.os
    monkeypatch.setattr(where, dies_in, killed)
    with pytest.raises(KeyboardInterrupt):
        saved(path, progress={"epoch": 2})

    module = Network()
    assert load_checkpoint(path, module=module, optimizer=sgd(module))[1] == {"epoch": 1}


def test_the_same_weights_make_the_same_file(tmp_path):
    contents = set()
    for _ in range(8):  # a header in the order of a hash table would differ in some of them
        save_weights(tmp_path / "w.safetensors", Network())
        contents.add((tmp_path / "w.safetensors").read_bytes())
    assert len(contents) == 1
