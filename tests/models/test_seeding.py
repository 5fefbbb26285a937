import pytest
import torch
from torch import nn

from fastssd.models.seeding import seeded


def draw(*parts):
    with seeded(*parts):
        return torch.rand(4)


def test_the_same_parts_draw_the_same_whatever_was_drawn_before():
    first = draw(3, "head")
    torch.rand(17)

    assert torch.equal(draw(3, "head"), first)


@pytest.mark.parametrize("other", [(4, "head"), (3, "soft head"), (3,), ("3", "head")])
def test_any_other_part_draws_something_else(other):
    assert not torch.equal(draw(3, "head"), draw(*other))


def test_the_callers_random_state_is_as_before_also_after_an_error():
    before = torch.get_rng_state()

    def fail():
        with seeded(0):
            nn.Linear(3, 3)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()

    assert torch.equal(torch.get_rng_state(), before)
