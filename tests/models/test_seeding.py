import pytest
import torch
from torch import nn

from fastssd.models.seeding import seed_step, seeded

CPU = torch.device("cpu")


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


def test_a_step_draws_by_its_number_alone_and_as_if_pytorch_had_been_seeded():
    def drawn(*parts):
        seed_step(*parts, device=CPU)
        return torch.rand(5)

    assert torch.equal(drawn(0, "1-features", 3, 0), drawn(0, "1-features", 3, 0))
    for other in [(1, "1-features", 3, 0), (0, "3-distill", 3, 0), (0, "1-features", 4, 0)]:
        assert not torch.equal(drawn(0, "1-features", 3, 0), drawn(*other))
    first = drawn(0, "1-features", 3, 0)
    torch.manual_seed(torch.initial_seed())
    assert torch.equal(torch.rand(5), first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_steps_number_decides_what_a_gpu_draws(name):
    device = torch.device(name)
    seed_step(0, "1-features", 3, 0, device=device)
    first = torch.rand(5, device=device)
    torch.rand(9, device=device)
    seed_step(0, "1-features", 3, 0, device=device)

    assert torch.equal(torch.rand(5, device=device), first)
