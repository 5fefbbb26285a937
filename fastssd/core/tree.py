"""Settings as people wrote them: nested mappings whose every value knows the line it stands in.

A tree comes from a YAML file, from `key=value` arguments or from code. Trees are merged, the later
over the earlier, before `fastssd.core.schema` reads them into dataclasses: so a message names the
file and line of the value that counts.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastssd.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 40
"""Bounds of a settings file: beyond them it is refused before anything is made of it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is no mapping, and where it stands.

    Attributes:
        value: Text, number, bool, None, or a list of such values and of trees.
        origin: As messages name it, such as ``recipe.yaml:12`` or ``argument 'seed=x'``.
    """

    value: Any
    origin: str


Tree = dict[str, "Leaf | Tree"]

_SHORT = {"budget": "base"}
"""The key that a text stands for where a block is meant, by the block's name; `kind` elsewhere."""


def short_key(name: str) -> str:
    """Return the key of a block that a text in its place sets: `head: cosine` is its `kind`."""
    return _SHORT.get(name, "kind")


def tree_of(values: Mapping[str, Any], origin: str) -> Tree:
    """Return plain values, mappings and dotted keys as a tree whose leaves have one origin."""
    tree: Tree = {}
    for key, value in values.items():
        put(tree, str(key), _grown(value, origin), origin)
    return tree


def _grown(value: Any, origin: str) -> "Leaf | Tree":  # noqa: ANN401 - whatever YAML holds
    if isinstance(value, Mapping):
        return tree_of(value, origin)
    if isinstance(value, list):
        return Leaf(
            [_grown(item, origin) if isinstance(item, Mapping) else item for item in value], origin
        )
    return Leaf(value, origin)


def put(tree: Tree, key: str, value: "Leaf | Tree", origin: str) -> None:
    """Set a dotted key; a block is merged into the block that is there.

    Raises:
        ConfigError: If part of the key is a value already.
    """
    *parents, name = key.split(".")
    target = tree
    for number, parent in enumerate(parents):
        below = target.get(parent, {})
        if isinstance(below, Leaf):
            if below.value is not None and not isinstance(below.value, str):
                known = ".".join(parents[: number + 1])
                raise ConfigError(f"{origin}: {known} is a value, and has no key {key}")
            below = {} if below.value is None else {short_key(parent): below}
        target[parent] = below
        target = below
    merge(target, {name: value})


def merge(tree: Tree, later: Tree) -> None:
    """Put every value of a later tree over those of another, in place.

    A text in a block's place is the block's `kind`. A block of another kind replaces the one that
    was there: its other keys were those of the former kind.
    """
    for name, value in later.items():
        old, new = tree.get(name), value
        if isinstance(old, dict) or isinstance(new, dict):
            old = None if old is None else _as_block(name, old)
            new = _as_block(name, new)
        if not isinstance(new, dict):
            tree[name] = new
        elif not isinstance(old, dict) or _kind(new) not in (None, _kind(old)):
            tree[name] = copied(new)
        else:
            block = copied(old)
            merge(block, new)
            tree[name] = block


def _as_block(name: str, value: "Leaf | Tree") -> "Leaf | Tree":
    """Return a text as the block that it is short for."""
    if isinstance(value, Leaf) and isinstance(value.value, str):
        return {short_key(name): value}
    return value


def _kind(tree: Tree) -> Any:  # noqa: ANN401 - whatever stands there
    leaf = tree.get("kind")
    return leaf.value if isinstance(leaf, Leaf) else None


def merged(trees: Iterable[Tree]) -> Tree:
    """Return trees put over each other, the last on top."""
    result: Tree = {}
    for tree in trees:
        merge(result, tree)
    return result


def copied(tree: Tree) -> Tree:
    """Return a tree that can be changed without changing this one."""
    return {
        name: copied(value) if isinstance(value, dict) else value for name, value in tree.items()
    }


def plain(tree: "Leaf | Tree") -> Any:  # noqa: ANN401 - what YAML can hold
    """Return a tree as plain mappings, lists and values."""
    if isinstance(tree, Leaf):
        if isinstance(tree.value, list):
            return [plain(item) if isinstance(item, dict) else item for item in tree.value]
        return tree.value
    return {name: plain(value) for name, value in tree.items()}


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield every value with its dotted key."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def origin_of(tree: "Leaf | Tree", default: str) -> str:
    """Return where a value, or the first value of a block, stands."""
    if isinstance(tree, Leaf):
        return tree.origin
    return next((leaf.origin for _, leaf in leaves(tree)), default)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return " did you mean X?" with the valid name that is nearest, or nothing."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def read_yaml(path: Path) -> Tree:
    """Return a YAML file as a tree.

    Raises:
        ConfigError: If it can't be read, is not YAML, is no mapping, has a key twice, or is larger
            or deeper than any file of settings.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: can't read the config: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes: that is no config")
    try:
        node = _composed(content.decode("utf-8"), path)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    repeated = list(_repeated(node, ""))
    if repeated:
        raise ConfigError(f"{path}: {', '.join(repeated)} stands there twice")
    return _tree(node, path)


def read_value(text: str) -> Any:  # noqa: ANN401 - what YAML can hold
    """Return a YAML value of the command line, as plain values.

    Raises:
        ValueError: If it is none.
    """
    try:
        node = _composed(text, None)
        return None if node is None else _value(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML's safe subset without aliases, which no settings need and few bytes can blow up."""

    nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ValueError(f"line {mark.line + 1}: aliases (*name) are not read: write the value")
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_NODES:,} values, or nested beyond {MAX_DEPTH} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _composed(text: str, path: Path | None) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


def _repeated(node: yaml.Node, prefix: str) -> Iterator[str]:
    """Yield the keys that stand twice in one mapping, of which YAML would keep the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name in seen:
            yield name
        seen.add(name)
        yield from _repeated(value, f"{name}.")


def _tree(node: yaml.MappingNode, path: Path) -> Tree:
    tree: Tree = {}
    for key_node, value_node in node.value:
        origin = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode) or _value(key_node) in (None, True, False):
            raise ConfigError(f"{origin}: a key that is not text is no key: put it in quotes")
        value: Leaf | Tree
        if isinstance(value_node, yaml.MappingNode):
            value = _tree(value_node, path)
        elif isinstance(value_node, yaml.SequenceNode):
            items = [
                _tree(item, path) if isinstance(item, yaml.MappingNode) else _value(item)
                for item in value_node.value
            ]
            value = Leaf(items, origin)
        else:
            try:
                value = Leaf(_value(value_node), origin)
            except (yaml.YAMLError, ValueError) as error:
                raise ConfigError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error
        put(tree, str(key_node.value), value, origin)
    return tree


def _value(node: yaml.Node) -> Any:  # noqa: ANN401 - what YAML can hold
    return yaml.constructor.SafeConstructor().construct_document(node)
