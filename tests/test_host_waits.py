"""What the search for waits finds, or the tests that use it would prove nothing."""

import numpy as np
import pytest
import torch
from host_waits import HostWaitError, NoHostWaits

VALUES = torch.arange(6.0, requires_grad=True)
MASK = VALUES.detach() > 2
NUMBERS = torch.tensor([0, 2, 2])


@pytest.mark.parametrize(
    "wait",
    [
        lambda: VALUES.sum().item(),
        lambda: float(NUMBERS.sum()),
        lambda: int(NUMBERS[0]),
        lambda: bool(MASK.any()),
        lambda: 1 if MASK.any() else 0,
        lambda: range(10)[NUMBERS[0]],
        lambda: VALUES.detach().numpy(),
        lambda: np.asarray(VALUES.detach()),
        lambda: VALUES.tolist(),
        lambda: VALUES.cpu(),
        lambda: VALUES[MASK],
        lambda: VALUES.detach().clone().__setitem__(MASK, torch.ones(3)),
        lambda: VALUES.masked_select(MASK),
        lambda: MASK.nonzero(),
        lambda: torch.where(MASK),
        lambda: NUMBERS.unique(),
        lambda: NUMBERS.bincount(),
        lambda: VALUES.repeat_interleave(NUMBERS.repeat(2)),
        lambda: torch.equal(VALUES, VALUES + 0),
        lambda: torch.tensor([1.0, 2.0]),
        lambda: torch.as_tensor([1.0]),
        lambda: torch.from_numpy(np.zeros(3)),
    ],
)
def test_a_wait_is_found(wait):
    wait()
    with pytest.raises(HostWaitError), NoHostWaits():
        wait()


@pytest.mark.parametrize(
    "work",
    [
        lambda: (VALUES * 2).sum().backward(),
        lambda: torch.where(MASK, VALUES, 0.0),
        lambda: VALUES.detach().masked_fill(MASK, 1.0),
        lambda: VALUES[NUMBERS],
        lambda: VALUES.detach().clone().__setitem__(NUMBERS, torch.zeros(3)),
        lambda: VALUES.argsort(),
        lambda: torch.zeros(4).index_add_(0, NUMBERS, torch.ones(3)),
        lambda: VALUES.to(torch.bfloat16),
        lambda: len(VALUES) + VALUES.shape[0] + VALUES.numel(),
    ],
)
def test_work_for_the_device_alone_is_no_wait(work):
    with NoHostWaits():
        work()


def test_after_the_block_everything_is_allowed_again():
    with pytest.raises(ZeroDivisionError), NoHostWaits():
        _ = 1 / 0

    assert VALUES.sum().item() == 15
