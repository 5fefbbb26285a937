"""Times within a stage, given as a share of its epochs so that they move when `epochs` changes."""

import math

from fastssd.errors import ConfigError


def check_share(name: str, share: float) -> None:
    """Refuse a share that no number of epochs could give an epoch to.

    Args:
        name: The key, for the message.
        share: Of the stage's epochs.

    Raises:
        ConfigError: If it is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(
            f"{name}={share} must be at least 0 and below 1: it is the share of the stage's epochs "
            "that pass before, 0.8 of 200 epochs is epoch 160 (0-based)"
        )


def epoch_of_share(name: str, share: float, epochs: int) -> int:
    """Return the 0-based epoch that begins when a share of the epochs has passed.

    Args:
        name: The key that gives the share, for the message.
        share: In [0, 1), rounded to the nearest epoch (halves up).
        epochs: Of the stage, at least 1.

    Raises:
        ConfigError: If that is no epoch of the stage, or a share above 0 rounds to its first:
            either would silently be another method.
    """
    check_share(name, share)
    epoch = _nearest(share, epochs)
    if epoch >= epochs:
        fewest = _fewest(share, math.floor(0.5 / (1 - share)))
        earlier = f"less than {1 - 0.5 / epochs:g}" if epochs > 1 else "0"
        raise ConfigError(
            f"{name}={share} of {epochs} epochs is after the last epoch, so it would never be "
            f"reached: train for at least {fewest} epochs or set {name} to {earlier}"
        )
    if share > 0 and epoch == 0:
        fewest = _fewest(share, math.floor(0.5 / share))
        raise ConfigError(
            f"{name}={share} of {epochs} epochs is the first epoch: train for at least {fewest} "
            f"epochs, or set {name} to 0 if it shall hold from the start"
        )
    return epoch


def _nearest(share: float, epochs: int) -> int:
    return math.floor(share * epochs + 0.5)


def _fewest(share: float, estimate: int) -> int:
    """Return the fewest epochs of which a share is a later one, near an estimate that may round."""
    tried = range(max(estimate, 2), estimate + 3)
    return next((n for n in tried if 0 < _nearest(share, n) < n), estimate + 3)
