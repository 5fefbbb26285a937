import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastssd.models.momentum import NO_LABEL, KeyQueue, MomentumEncoder


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def trained(module, seed):
    """Change all parameters and buffers, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator))


def test_weights_follow_the_exponential_moving_average_of_moco():
    backbone, head = network(), nn.Linear(5, 2)
    slow = MomentumEncoder(backbone, head, momentum=0.9)
    online = nn.ModuleList([backbone, head])
    expected = [parameter.detach().double().clone() for parameter in online.parameters()]

    for step in range(5):
        trained(online, step)
        slow.update(backbone, head)
        expected = [
            0.9 * average + 0.1 * parameter.detach().double()
            for average, parameter in zip(expected, online.parameters(), strict=True)
        ]

    for parameter, average in zip(slow.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.double(), average, rtol=1e-5, atol=1e-6)


def test_weights_that_are_loaded_between_updates_are_followed():
    online, other = network(), network()
    slow = MomentumEncoder(online, momentum=0.5)
    trained(online, 0)
    slow.update(online)
    before = [parameter.clone() for parameter in slow.parameters()]
    trained(other, 1)

    online.load_state_dict(other.state_dict())
    slow.update(online)

    for moved, old, new in zip(slow.parameters(), before, other.parameters(), strict=True):
        torch.testing.assert_close(moved, (old + new) / 2)


def test_all_weights_move_in_one_operation():
    class Operations(TorchDispatchMode):
        names = ()

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            self.names += (operation.overloadpacket.__name__,)
            return operation(*args, **(kwargs or {}))

    online = network()
    slow = MomentumEncoder(online, momentum=0.5)
    with Operations() as operations:
        slow.update(online)

    assert operations.names == ("_foreach_lerp_",)


def test_batchnorm_statistics_follow_its_own_forward_passes_not_the_online_ones():
    online = network()
    slow = MomentumEncoder(online, momentum=0.5)
    images = torch.rand(8, 3, 4, 4)
    trained(online, 0)

    slow.update(online)
    after_update = slow.state_dict()["encoder.0.1.running_mean"].clone()
    slow(images)

    assert torch.equal(after_update, torch.zeros(4))
    conv_output = slow.encoder[0][0](images)
    torch.testing.assert_close(
        slow.state_dict()["encoder.0.1.running_mean"], 0.1 * conv_output.mean((0, 2, 3))
    )


def test_the_copy_stands_apart_from_what_it_copied_and_gets_no_gradient():
    online = network()
    slow = MomentumEncoder(online, momentum=0.999)
    before = [parameter.clone() for parameter in slow.parameters()]

    trained(online, 0)

    assert all(torch.equal(a, b) for a, b in zip(before, slow.parameters(), strict=True))
    assert not slow(torch.rand(2, 3, 4, 4)).requires_grad
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


def test_an_update_from_other_modules_is_refused():
    backbone, head = network(), nn.Linear(5, 2)
    slow = MomentumEncoder(backbone, head, momentum=0.9)

    for wrong in [(backbone,), (head, backbone), (backbone, nn.Linear(5, 3))]:
        with pytest.raises(ValueError, match="the modules that it was made of"):
            slow.update(*wrong)


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_a_momentum_that_is_no_average_is_refused(momentum):
    with pytest.raises(ValueError, match=str(momentum)):
        MomentumEncoder(network(), momentum=momentum)


def test_a_queue_starts_with_unit_vectors_of_its_seed_that_have_no_label():
    queue = KeyQueue(500, 16, seed=1)

    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(500))
    # Directions of all kinds: the mean of 500 uniform unit vectors has length about 0.045.
    assert queue.keys.mean(0).norm() < 0.1
    assert queue.keys.dtype == torch.float32
    assert queue.labels.tolist() == [NO_LABEL] * 500
    assert torch.equal(queue.keys, KeyQueue(500, 16, seed=1).keys)
    assert not torch.equal(queue.keys, KeyQueue(500, 16, seed=2).keys)


@settings(max_examples=60, deadline=None)
@given(
    num_keys=st.integers(1, 12),
    batches=st.lists(st.integers(0, 30), max_size=8),
    resumed_after=st.integers(0, 8),
)
def test_a_queue_is_a_ring_for_any_batch_sizes_also_when_resumed(num_keys, batches, resumed_after):
    queue = KeyQueue(num_keys, 2, seed=0)
    ring = list(zip(queue.keys.tolist(), queue.labels.tolist(), strict=True))
    written = 0

    for i, size in enumerate(batches):
        if i == resumed_after:
            saved = queue.state_dict()
            queue = KeyQueue(num_keys, 2, seed=99)
            queue.load_state_dict(saved)
        numbers = range(written, written + size)
        queue.enqueue(
            torch.tensor([[float(n), 0.5] for n in numbers]).reshape(size, 2),
            torch.tensor(list(numbers), dtype=torch.int64),
        )
        for number in numbers:
            ring[number % num_keys] = ([float(number), 0.5], number)
        written += size

    assert list(zip(queue.keys.tolist(), queue.labels.tolist(), strict=True)) == ring
    assert queue.pointer.item() == written % num_keys


def test_half_precision_keys_with_gradient_enter_as_plain_float32():
    queue = KeyQueue(4, 2, seed=0)

    queue.enqueue(torch.ones(2, 2, dtype=torch.float16, requires_grad=True), torch.tensor([7, 8]))

    assert queue.keys[:2].tolist() == [[1, 1], [1, 1]]
    assert queue.keys.dtype == torch.float32
    assert not queue.keys.requires_grad
    assert queue.labels.tolist() == [7, 8, NO_LABEL, NO_LABEL]


@pytest.mark.parametrize(
    ("keys", "labels"), [((3, 1), (3,)), ((3, 2), (1,)), ((3, 2), (3, 1)), ((2,), (2,))]
)
def test_keys_that_do_not_fit_are_refused_and_change_nothing(keys, labels):
    queue = KeyQueue(4, 2, seed=0)
    before = {name: value.clone() for name, value in queue.state_dict().items()}

    with pytest.raises(ValueError, match="do not fit"):
        queue.enqueue(torch.zeros(keys), torch.zeros(labels, dtype=torch.int64))

    assert all(torch.equal(before[name], value) for name, value in queue.state_dict().items())


def test_a_queue_for_no_key_is_refused():
    with pytest.raises(ValueError, match="holds nothing"):
        KeyQueue(0, 2, seed=0)
