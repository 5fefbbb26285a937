"""The message for a name that is not among those there are."""

import difflib
from collections.abc import Iterable

from fastssd.errors import ConfigError


def unknown_choice(
    kind: str, name: str, valid: Iterable[str], *, remedy: str | None = None
) -> ConfigError:
    """Return the error that names the valid name nearest to an unknown one.

    Args:
        kind: What the name is of, as a person would say it (``backbone``).
        name: What was asked for.
        valid: Every name there is.
        remedy: What to do; the list of valid names unless given (too long for some kinds).

    Returns:
        The error, for the caller to raise.
    """
    valid = list(valid)
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    remedy = remedy or f"Valid names: {', '.join(valid)}."
    return ConfigError(f"{kind} {name!r} is not known.{guess} {remedy}")
