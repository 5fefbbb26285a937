"""The range of every number in a config, stated where the number is declared.

Beyond it no run makes sense, and machines fail in ways that name no key: threads that cannot be
started, waits that overflow, allocations of exabytes. What a machine has memory for is another
question, asked when the dataset and the processes are known.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fastssd.errors import ConfigError

ANY_INTEGER = 2**63 - 1
YEAR = 365 * 24 * 3600
"""In seconds."""

_KEY = "bounds"


@dataclass(frozen=True)
class Bounds:
    """A range of numbers.

    Attributes:
        low: The least; None for whatever is above 0.
        high: The most.
    """

    low: float | None
    high: float

    def problem(self, number: float) -> str | None:
        """Return what a number out of the range must be, None for one within it."""
        if self.low is None:
            if not number > 0:
                return "must be positive"
        elif not number >= self.low:
            return f"must be at least {self.low}"
        if not number <= self.high:
            return f"must be at most {self.high}"
        return None


def between(low: float, high: float) -> dict[str, Bounds]:
    """Return a dataclass field's metadata: the least and the most that the number may be.

    Of a field that is a list, each of its numbers.
    """
    return {_KEY: Bounds(low, high)}


def positive(high: float) -> dict[str, Bounds]:
    """Return a dataclass field's metadata: the number is above 0, and at most this."""
    return {_KEY: Bounds(None, high)}


def bounds_of(kind: type, name: str) -> Bounds | None:
    """Return the range of a dataclass's field, also where a subclass gave it another default."""
    for each in kind.__mro__:
        for field in getattr(each, "__dataclass_fields__", {}).values():
            if field.name == name and _KEY in field.metadata:
                bounds: Bounds = field.metadata[_KEY]
                return bounds
    return None


def check_numbers(section: str, values: Any) -> None:  # noqa: ANN401 - any dataclass
    """Check every number of a section.

    Args:
        section: Its name, empty for the config itself.
        values: A dataclass.

    Raises:
        ConfigError: Naming the first key that is out of its range, its value, and the limit.
    """
    for field in dataclasses.fields(values):
        if bounds := bounds_of(type(values), field.name):
            value = getattr(values, field.name)
            for number in value if isinstance(value, list) else [value]:
                if problem := bounds.problem(number):
                    key = f"{section}.{field.name}" if section else field.name
                    raise ConfigError(f"{key}={value} {problem}")
