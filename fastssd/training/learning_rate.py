"""The learning rate, a pure function of the step."""

import bisect
import math

from fastssd.config import Budget

_WARMUP_START = 1 / 3


def learning_rate(config: Budget, step: int, *, steps_per_epoch: int) -> float:
    """Return the rate of an optimizer step.

    Warm-up is linear over whole epochs, from a third towards the peak, which the last warm-up
    epoch reaches. The cosine runs from the peak over all epochs; with `update: epoch` epoch e of
    E has lr/2 (1 + cos(pi e / E)). Milestones are 1-based epochs.

    Args:
        config: The stage's schedule.
        step: 0-based, over all epochs.
        steps_per_epoch: Optimizer steps in an epoch.

    Source:
        BBN:lib/utils/lr_scheduler.py (warm-up, milestones); SSD_LT/ssd_stage_i.py (cosine).
    """
    epoch = step // steps_per_epoch
    rate = config.lr
    if config.schedule == "cosine":
        done = epoch if config.update == "epoch" else step / steps_per_epoch
        rate *= 0.5 * (1 + math.cos(math.pi * done / config.epochs))
    elif config.schedule == "multistep":
        rate *= config.decay ** bisect.bisect_right(sorted(config.milestones), epoch + 1)
    if epoch < config.warmup_epochs:
        share = (epoch + 1) / config.warmup_epochs
        rate *= _WARMUP_START * (1 - share) + share
    return rate
