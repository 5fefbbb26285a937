"""Compiled networks against the same ones in eager mode."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastssd.models.backbone import Backbone
from fastssd.models.compiling import compile_backbones
from fastssd.models.momentum import MomentumEncoder
from fastssd.models.seeding import seeded

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)


class Small(Backbone):
    """Convolution, BatchNorm and a strided convolution."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, images):
        return self.second(F.relu(self.norm(self.first(images)))).mean(dim=(2, 3))


class Net(nn.Module):
    """A backbone under a head, and a slow copy of the backbone, as stages have them."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(0, "net"):
            self.backbone = Small()
            self.head = nn.Linear(6, 5)
        self.slow = MomentumEncoder(self.backbone, momentum=0.9)

    def forward(self, images, labels):
        keys = self.slow(images.flip(3))
        feature = self.backbone(images)
        return F.cross_entropy(self.head(feature).float(), labels) + (feature * keys).mean()


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.compiler.reset()


def batch(step, size=16):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    return images, torch.randint(0, 5, (size,), generator=generator)


def test_weights_keep_their_names_and_copies_are_not_compiled():
    plain, compiled = Net(), Net()

    assert compile_backbones(compiled) == 2  # the slow copy has one too

    assert [*compiled.state_dict()] == [*plain.state_dict()]
    assert [*dict(compiled.named_modules())] == [*dict(plain.named_modules())]
    assert compiled.backbone._compiled_call_impl is not None
    assert copy.deepcopy(compiled.backbone)._compiled_call_impl is None


@needs_compiler
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("dtype", "tolerance", "evaluated"),
    [(torch.float32, 1e-5, (7, 5)), (torch.bfloat16, 2e-2, ())],  # sizes of a split's last batch
)
def test_steps_and_evaluations_of_any_batch_size_are_those_of_eager_mode(
    dtype, tolerance, evaluated
):
    nets = [Net().to(memory_format=torch.channels_last) for _ in range(2)]
    compile_backbones(nets[1])
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9) for net in nets]

    for step in range(3):
        losses = []
        for net, optimizer in zip(nets, optimizers, strict=True):
            net.train()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = net(*batch(step))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            net.slow.update(net.backbone)
            losses.append(loss.detach())
        torch.testing.assert_close(*losses, rtol=tolerance, atol=tolerance)
        for size in evaluated:
            features = []
            for net in nets:
                net.eval()
                with torch.no_grad():
                    features.append(net.backbone(batch(9, size)[0]))
            torch.testing.assert_close(*features, rtol=tolerance, atol=tolerance)
    for (name, one), other in zip(
        nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=name)
