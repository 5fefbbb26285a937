"""What instance discrimination keeps beside the trained network: slow encoder and queue of keys.

Nothing here receives gradient, everything here is in the state dict: a resumed run goes on with
the same keys.

Shape letters: B images in the batch, D width of an embedding, K keys in the queue.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fastssd.core.counter_rng import generator

NO_LABEL = -1
"""Label of a key that stands for no image: a slot of the queue that was never filled."""


class MomentumEncoder(nn.Module):
    """A copy of modules whose weights follow theirs slowly: theta_k <- m theta_k + (1-m) theta_q.

    BatchNorm's running statistics are not averaged but follow the copy's own forward passes, in
    train mode. The copy is made at once: build it before the modules are trained or wrapped.

    Args:
        *modules: Applied one after the other, such as backbone and projection head.
        momentum: m, in [0, 1].

    Raises:
        ValueError: If the momentum is not in [0, 1], or there is no module.

    Source:
        He et al., "Momentum contrast" (CVPR 2020), equation 2.
    """

    def __init__(self, *modules: nn.Module, momentum: float) -> None:
        super().__init__()
        if not modules:
            raise ValueError("a momentum encoder needs at least one module to follow")
        self._average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
        self.encoder = nn.Sequential(*copy.deepcopy(modules)).requires_grad_(False)
        self._pairs: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        self._followed: tuple[nn.Module, ...] = ()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the keys of images, without gradient."""
        keys: Tensor = self.encoder(images)
        return keys

    @torch.no_grad()
    def update(self, *modules: nn.Module) -> None:
        """Move the weights towards those of the trained modules. Call after the optimizer step.

        It is one call for all weights. They are looked up at the first update, as walking through
        a deep network takes longer than launching the rest: afterwards the modules may be loaded
        with other values, but not given other parameters.

        Args:
            *modules: Those that were copied, unwrapped and in the same order.

        Raises:
            ValueError: If their parameters are not those that were copied, by number and shape.
        """
        if modules != self._followed:
            self._pairs, self._followed = self._matched(modules), modules
        self._average(*self._pairs, None)

    def _matched(
        self, modules: tuple[nn.Module, ...]
    ) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the copy's parameters and those that they follow."""
        slow = list(self.encoder.parameters())
        fast = list(nn.ModuleList(modules).parameters())
        if [each.shape for each in slow] != [each.shape for each in fast]:
            raise ValueError(
                f"the momentum encoder follows {len(slow)} parameters and was given {len(fast)}, "
                "or their shapes differ: give it the modules that it was made of, in their order"
            )
        return slow, fast


class KeyQueue(nn.Module):
    """The most recent K keys and their labels, on the device, oldest overwritten first.

    Args:
        num_keys: K.
        dim: D.
        seed: Of the random unit vectors that fill the queue before there are keys. Their label
            is `NO_LABEL`.

    Attributes:
        keys: (K, D) float32 unit vectors.
        labels: (K,) int64.
        pointer: int64 scalar, the slot written next.
    """

    keys: Tensor
    labels: Tensor
    pointer: Tensor

    def __init__(self, num_keys: int, dim: int, seed: int) -> None:
        super().__init__()
        if num_keys < 1 or dim < 1:
            raise ValueError(f"a queue of {num_keys} keys of width {dim} holds nothing")
        noise = generator(seed, "key queue").standard_normal((num_keys, dim), dtype="float32")
        self.register_buffer("keys", F.normalize(torch.from_numpy(noise), dim=1))
        self.register_buffer("labels", torch.full((num_keys,), NO_LABEL))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys_BD: Tensor, labels_B: Tensor) -> None:
        """Write keys over the oldest ones; of more than K keys the last K stay.

        Call it after the backward pass, which still needs the keys that the loss was computed
        with, and with the keys of all processes, so that their queues stay alike. It does not
        wait for the device.

        Args:
            keys_BD: Unit vectors, any floating-point type.
            labels_B: Integer labels.

        Raises:
            ValueError: If the shapes do not fit each other or the queue.
        """
        num_keys, dim = self.keys.shape
        num_new = len(keys_BD)
        if keys_BD.shape != (num_new, dim) or labels_B.shape != (num_new,):
            raise ValueError(
                f"keys of shape {tuple(keys_BD.shape)} and labels of shape "
                f"{tuple(labels_B.shape)} do not fit a queue of keys of width {dim}"
            )
        # No slot twice: which of two writes stays is undefined on an accelerator.
        first = max(num_new - num_keys, 0)
        slots = (self.pointer + torch.arange(first, num_new, device=self.keys.device)) % num_keys
        self.keys[slots] = keys_BD[first:].to(self.keys)
        self.labels[slots] = labels_B[first:].to(self.labels)
        self.pointer.add_(num_new).remainder_(num_keys)
