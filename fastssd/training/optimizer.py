"""From losses to new weights: backward pass, loss scale and SGD, with little work for the host."""

import functools
import operator
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastssd.config import Budget

_FUSED_DEVICES = frozenset({"cpu", "cuda"})


class Optimizer:
    """SGD on a stage's weights.

    One kernel updates many weights at once (PyTorch's fused SGD), and nothing here waits for the
    device, also where fp16's scale makes a step be left out. Accelerate's `backward`, `step` and
    `zero_grad` do the same after looking for optional packages and signatures, at every step.

    Args:
        stage: Already on its device, as its weights must not be replaced afterwards.
        budget: Momentum, weight decay.
        device: The stage's.
        scaler: Scales losses so that fp16 gradients keep their small values; None otherwise.

    Attributes:
        inner: PyTorch's, for its state.
    """

    def __init__(
        self,
        stage: nn.Module,
        budget: Budget,
        *,
        device: torch.device,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self._parameters = [weight for weight in stage.parameters() if weight.requires_grad]
        self._scaler = scaler
        self.inner = torch.optim.SGD(
            self._parameters,
            lr=budget.lr,
            momentum=budget.momentum,
            nesterov=budget.nesterov,
            weight_decay=budget.weight_decay,
            fused=device.type in _FUSED_DEVICES,
        )
        if budget.momentum:
            # Fused SGD makes them of memory that holds anything, which its first step fills: unless
            # fp16's scale leaves that step out.
            for weight in self._parameters:
                self.inner.state[weight]["momentum_buffer"] = torch.zeros_like(weight)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        rate: float = self.inner.param_groups[0]["lr"]
        return rate

    def backward(self, losses: Mapping[str, Tensor], *, share: int = 1) -> None:
        """Add the gradients of a micro-batch.

        Args:
            losses: Scalars, whose sum is minimised; at least one.
            share: Of how many micro-batches this is one.
        """
        total = functools.reduce(operator.add, losses.values())
        if share > 1:
            total = total / share
        if self._scaler is not None:
            total = self._scaler.scale(total)
        total.backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float) -> None:
        """Move the weights by the gradients, at a learning rate, and drop the gradients."""
        for group in self.inner.param_groups:
            group["lr"] = rate
        if self._scaler is None:
            self.inner.step()
        else:
            self._scaler.step(self.inner)
            self._scaler.update()
        for weight in self._parameters:
            weight.grad = None
