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

from fastssd.core import bounded_yaml
from fastssd.errors import ConfigError

_LONGEST = 200
"""Characters of a value in a message."""


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
    was there: its other keys were those of the former kind. Where only one of them names a kind,
    the keys of both stay.
    """
    for name, value in later.items():
        old, new = tree.get(name), value
        if isinstance(old, dict) or isinstance(new, dict):
            old = None if old is None else _as_block(name, old)
            new = _as_block(name, new)
        if not isinstance(new, dict):
            tree[name] = new
        elif not isinstance(old, dict) or _differ(_kind(old), _kind(new)):
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


def _differ(old: Any, new: Any) -> bool:  # noqa: ANN401 - whatever stands there
    return old is not None and new is not None and old != new


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
        ConfigError: If it can't be read, is not YAML, is no mapping, has a key twice, or goes
            beyond the bounds of `fastssd.core.bounded_yaml`.
    """
    try:
        node, repeated = bounded_yaml.composed(path)
    except OSError as error:
        raise ConfigError(f"{path}: can't read the config: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {shortened(_said(error))}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    if repeated:
        raise ConfigError(f"{path}: {shortened(', '.join(repeated))} stands there twice")
    return _tree(node, path)


def shortened(text: str) -> str:
    """Return a text that fits into a message."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _said(error: Exception) -> str:
    """Return what a parser found and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    context, problem = getattr(error, "context", None), getattr(error, "problem", None)
    what = ", ".join(part for part in (context, problem) if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}"


_NO_KEYS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:bool")
"""What a bare `no:` or `~:` is to YAML."""


def _tree(node: yaml.MappingNode, path: Path) -> Tree:
    tree: Tree = {}
    for key_node, value_node in node.value:
        origin = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag in _NO_KEYS:
            raise ConfigError(f"{origin}: a key that is not text is no key: put it in quotes")
        _value(key_node, path)
        value: Leaf | Tree
        if isinstance(value_node, yaml.MappingNode):
            value = _tree(value_node, path)
        else:
            value = Leaf(_value(value_node, path), origin)
        put(tree, str(key_node.value), value, origin)
    return tree


def _value(node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 - what YAML can hold
    if isinstance(node, yaml.SequenceNode):
        return [
            _tree(item, path) if isinstance(item, yaml.MappingNode) else _value(item, path)
            for item in node.value
        ]
    try:
        return bounded_yaml.constructed(node)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {shortened(_said(error))}") from error
