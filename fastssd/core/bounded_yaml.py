"""YAML from anyone: read in a time and into a size that follow from the bytes that were given.

YAML's aliases let a thousand bytes stand for more values than there are atoms, and its nesting
overruns Python's stack. Both are counted while the text is parsed, before anything is made of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from fastssd.core.reading import open_regular

MAX_BYTES = 2**18
"""Of a file. A recipe has some thousand."""
MAX_VALUES = 10_000
"""Keys, values, lists and mappings, those that an alias stands for counted each time."""
MAX_DEPTH = 20
MAX_CHARACTERS = 4_096
"""Of one key or value: a path is no longer."""
MAX_DIGITS = 100
"""Of one number. Python refuses to print whole numbers of thousands."""


def composed(path: Path) -> tuple[yaml.Node | None, list[str]]:
    """Return a file's nodes, which know their lines, and the keys that stand twice in one mapping.

    Of those, named with dots, YAML itself would keep the last. Merge keys (`<<`) are written out.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is not UTF-8, or too long.
        yaml.YAMLError: If it is not YAML, or goes beyond the bounds of this module.
    """
    with open_regular(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    loader = _Loader(content.decode("utf-8"))
    try:
        node = loader.get_single_node()
        repeated = [] if node is None else _repeated_keys(node, "")
        with _told():
            _write_out(loader, node)
        return node, repeated
    finally:
        loader.dispose()


def constructed(node: yaml.Node) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Return the value of a node.

    Raises:
        ValueError, yaml.YAMLError: If it is not what its tag says.
    """
    loader = _Loader("")
    try:
        with _told():
            return loader.construct_document(node)
    finally:
        loader.dispose()


def value_of(text: str) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Return the value that a text is.

    Raises:
        ValueError, yaml.YAMLError: As `composed` does.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        with _told():
            return loader.construct_document(node)
    finally:
        loader.dispose()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # What PyYAML lets through of values that are not of the type that a tag claims.
        raise yaml.YAMLError("a value that is not what its tag says") from error


def _write_out(loader: "_Loader", node: yaml.Node | None) -> None:
    """Put the keys of merged mappings into the mappings that merge them."""
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        for _, value in node.value:
            _write_out(loader, value)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # of a library without types
    """Counts what it parses."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = self._deepest = 0
        self._extents: dict[str, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        event = self.peek_event()
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._extents:
                raise _beyond("an alias of what it stands in", event)
            num_values, height = self._extents.get(anchor, (1, 0))
            self._count(num_values, self._depth + height, event)
            return super().compose_node(parent, index)
        if len(getattr(event, "value", None) or "") > MAX_CHARACTERS:
            raise _beyond(f"a key or value of more than {MAX_CHARACTERS:,} characters", event)
        before, deepest = self._values, self._deepest
        self._deepest = self._depth
        self._count(1, self._depth, event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None:
            self._extents[anchor] = (self._values - before, self._deepest - self._depth)
        self._deepest = max(self._deepest, deepest)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:  # noqa: ANN401
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            what = f"a number of more than {MAX_DIGITS} digits"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)
        return super().construct_scalar(node)

    def _count(self, num_values: int, depth: int, event: yaml.Event) -> None:
        self._values += num_values
        self._deepest = max(self._deepest, depth)
        if self._values > MAX_VALUES:
            raise _beyond(f"more than {MAX_VALUES:,} keys and values, aliases written out", event)
        if depth > MAX_DEPTH:
            raise _beyond(f"lists or mappings more than {MAX_DEPTH} deep", event)


def _beyond(what: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=event.start_mark)


def _repeated_keys(node: yaml.Node, prefix: str) -> list[str]:
    if not isinstance(node, yaml.MappingNode):
        return []
    found = []
    seen = set()
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name in seen:
            found.append(name)
        seen.add(name)
        found += _repeated_keys(value, f"{name}.")
    return found
