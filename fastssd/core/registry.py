"""Things by the names that recipes use for them, and one message for a name that is not known."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import Any, Generic, TypeVar, cast

from fastssd.core.tree import nearest
from fastssd.errors import ConfigError

Thing = TypeVar("Thing")


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
    guess = nearest(name, valid).removeprefix("; did you mean ").removesuffix("?")
    hint = f" Did you mean {guess!r}?" if guess else ""
    remedy = remedy or f"Valid names: {', '.join(valid)}."
    return ConfigError(f"{kind} {name!r} is not known.{hint} {remedy}")


class Registry(Generic[Thing]):
    """Things by name, imported when they are asked for.

    Args:
        what: What a thing is, as a person would say it.
        entries: `module:class` by name. Where a class's `Options` stand in a module without
            PyTorch, `module:class module:options`: a recipe is then checked without importing it.
        group: Entry points of installed packages that bring further things.
    """

    def __init__(self, what: str, entries: Mapping[str, str], *, group: str | None = None) -> None:
        self._what = what
        self._entries = dict(entries)
        if group is not None:
            for entry in metadata.entry_points(group=group):
                self._entries.setdefault(entry.name, entry.value)

    def __getitem__(self, name: str) -> Thing:
        """Return a thing.

        Raises:
            ConfigError: If there is none of that name, with the nearest that there is.
        """
        return cast(Thing, _imported(self._entry(name)[0]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Return every name."""
        return list(self._entries)

    def options(self, name: str) -> type:
        """Return the dataclass of what a recipe may set of a thing."""
        entry = self._entry(name)
        if len(entry) > 1:
            return cast(type, _imported(entry[1]))
        return cast(type, _imported(entry[0]).Options)

    def _entry(self, name: str) -> list[str]:
        if name not in self._entries:
            raise unknown_choice(self._what, name, self._entries)
        return self._entries[name].split()


def _imported(path: str) -> Any:  # noqa: ANN401 - whatever stands there
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
