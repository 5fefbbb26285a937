import torch
from hypothesis import given
from hypothesis import strategies as st

from fastssd.core import collectives


@given(length=st.integers(1, 300), state=st.integers(0, 2**40))
def test_a_shared_permutation_is_one(length, state):
    order = collectives.shared_permutation(length, torch.tensor(state))
    assert sorted(order.tolist()) == list(range(length))
    assert torch.equal(order, collectives.shared_permutation(length, torch.tensor(state)))


def test_permutations_of_different_states_are_unlike_and_deal_half_to_other_processes():
    orders = torch.stack(
        [collectives.shared_permutation(256, torch.tensor(256 * state)) for state in range(200)]
    )
    positions = torch.arange(256)
    moved = ((orders < 128) != (positions < 128)).float().mean()
    assert 0.48 < moved < 0.52
    fixed = (orders == positions).float().sum(dim=1).mean()
    assert 0.7 < fixed < 1.3  # a random permutation has one on average
    assert (orders.float().mean(dim=0) - 127.5).abs().max() < 5 * 73.9 / 200**0.5


def test_one_process_exchanges_nothing():
    values = torch.randn(4, 3, requires_grad=True)
    assert collectives.num_processes() == 1
    assert torch.equal(collectives.gathered(values), values)
    assert not collectives.gathered(values).requires_grad
    assert collectives.own_share(values) is values
    layer = torch.nn.BatchNorm2d(2)
    layer.running_mean += 1
    collectives.average_batchnorm(layer)
    assert layer.running_mean.tolist() == [1, 1]


TWO_PROCESSES = """
import torch, torch.distributed as dist
from torch import nn
from fastssd.augment.augmentation import AugmentedViews
from fastssd.data.draws import Draws
from fastssd.models.backbones import build_backbone
from fastssd.core import collectives
from fastssd.methods.batch import Batch
from fastssd.methods.options import InstanceOptions
from fastssd.methods.tasks.instance import Instance

dist.init_process_group("gloo")
assert collectives.num_processes() == 2

# Values come rank after rank, whatever their layout in memory.
whole = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
mine = whole[2 * rank : 2 * rank + 2].to(memory_format=torch.channels_last)
assert torch.equal(collectives.gathered(mine), whole)
assert collectives.gathered(mine).is_contiguous()  # NCCL fills parts by their strides
assert torch.equal(collectives.own_share(whole), whole[2 * rank : 2 * rank + 2])

# BatchNorm's statistics become the mean of both, those of nested layers too.
layers = nn.Sequential(nn.BatchNorm2d(2), nn.Linear(1, 1), nn.Sequential(nn.BatchNorm1d(3)))
layers[0].running_mean.fill_(rank * 4.0); layers[2][0].running_var.fill_(1.0 + rank)
collectives.average_batchnorm(layers)
assert layers[0].running_mean.tolist() == [2, 2] and layers[2][0].running_var.tolist() == [1.5] * 3
assert layers[0].running_var.tolist() == [1, 1]

# Shuffled or not, each query gets its own key, and both queues hold the same.
backbone = build_backbone("plaincnn", seed=0)
def task(shuffle):
    options = InstanceOptions(queue=16, embedding=8, shuffle_keys=shuffle)
    return Instance(options, backbone, seed=0)

images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
keys = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
share = slice(4 * rank, 4 * rank + 4)
tasks = {shuffle: task(shuffle) for shuffle in (True, False)}
dealt = []
for one in tasks.values():
    one.encoder.register_forward_pre_hook(lambda module, inputs: dealt.append(inputs[0]))
    for step in range(3):
        view = keys.roll(step, 0)[share].to(memory_format=torch.channels_last)
        labels = torch.arange(8)[share] % 3
        views = AugmentedViews(query=images[share], key=view)
        one(backbone, Batch(draws=None, labels=labels, views=views))
        one.after_step(backbone)
torch.testing.assert_close(tasks[True].queue.keys, tasks[False].queue.keys, atol=1e-6, rtol=0)
assert tasks[True].queue.pointer == 24 % 16
assert torch.equal(collectives.gathered(tasks[True].queue.keys[None]),
                   tasks[True].queue.keys.expand(2, -1, -1))
# The last batch, at the slots it must be in: rank 0's images first.
expected = tasks[True].encoder(keys.roll(2, 0)).detach()
torch.testing.assert_close(tasks[True].queue.keys[:8], expected, atol=1e-5, rtol=0)
foreign = [not any(torch.equal(image, own) for own in keys[share]) for image in dealt[0]]
assert any(foreign), "no key was dealt to the other process"
assert all(torch.equal(a, b) for a, b in zip(dealt[3], keys[share]))
dist.destroy_process_group()
"""


def test_two_processes_exchange_values_statistics_and_keys(elsewhere):
    codes, printed = elsewhere(script=TWO_PROCESSES, ranks=2)
    assert codes == [0, 0], printed
