"""From a tree of settings to frozen dataclasses, with a message for a person where they differ.

A field's type says what may stand there: text, a number, a bool, `Literal[...]`, `X | None`, a
list of these, a mapping of names to these, another dataclass (a block), or a `Chosen` block, whose
key `kind` names one of several dataclasses. A trailing underscore of a field's name is not part of
its key (`from_` is `from`), and a field's metadata may name another `key`.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, cast

from fastssd.core.tree import Leaf, Tree, leaves, nearest, origin_of, plain, shortened
from fastssd.errors import ConfigError

Settings = TypeVar("Settings")
_LARGEST = 2**63
_MAX_PROBLEMS = 30


class Kinds(Protocol):
    """What a block's `kind` may be."""

    def names(self) -> list[str]:
        """Return every kind."""

    def options(self, kind: str) -> type:
        """Return the dataclass of a kind's other keys."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """One of several kinds, with its options.

    Attributes:
        kind: Which.
        options: An instance of the kind's dataclass.
    """

    kind: str
    options: Any


def chosen(kinds: Callable[[], Kinds], default: str | None) -> Any:  # noqa: ANN401 - as `field`
    """Return the field of a block whose `kind` selects its other keys.

    Args:
        kinds: Returns what there is to choose from; asked when a block is read.
        default: The kind where a block names none, its options at their defaults; None: the field
            is None where there is no block.
    """
    return dataclasses.field(
        default_factory=lambda: (
            None if default is None else Chosen(default, kinds().options(default)())
        ),
        metadata={"kinds": kinds, "default": default},
    )


def read(tree: Tree, settings: type[Settings], *, key: str, where: str) -> Settings:
    """Return an instance of a dataclass from a tree.

    Args:
        tree: The values.
        settings: The dataclass.
        key: Dotted key of the block, as messages name it; empty for the whole file.
        where: Origin of messages about what is missing.

    Raises:
        ConfigError: A line for every value that is unknown, missing or wrong.
    """
    problems: list[str] = []
    result = _block(tree, settings, key, where, problems)
    refuse(problems)
    return cast(Settings, result)


def refuse(problems: Sequence[str]) -> None:
    """Raise one ConfigError of all problems, if there are any.

    Of thousands a few are told: looking up what is nearest to each would help nobody.
    """
    if len(problems) > _MAX_PROBLEMS:
        raise ConfigError(*problems[:_MAX_PROBLEMS], "and more; the rest was not looked at")
    if problems:
        raise ConfigError(*problems)


def keys_of(settings: type) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass by their keys."""
    return {
        field.metadata.get("key", field.name.rstrip("_")): field
        for field in dataclasses.fields(settings)
    }


def to_plain(value: Any, *, without_defaults: bool = False) -> Any:  # noqa: ANN401
    """Return an instance as what YAML and JSON can hold; `read` makes an equal one of it.

    Args:
        value: An instance of a dataclass, or a field's value.
        without_defaults: Leave out what stands at its default, so that a new key changes nothing.
    """
    if isinstance(value, Chosen):
        return {"kind": value.kind, **to_plain(value.options, without_defaults=without_defaults)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = {}
        for key, field in keys_of(type(value)).items():
            item = getattr(value, field.name)
            if without_defaults and item == _default(field):
                continue
            result[key] = to_plain(item, without_defaults=without_defaults)
        return result
    if isinstance(value, Mapping):
        return {
            str(name): to_plain(item, without_defaults=without_defaults)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [to_plain(item, without_defaults=without_defaults) for item in value]
    return value


def _default(field: "dataclasses.Field[Any]") -> Any:  # noqa: ANN401 - a field's value
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _block(tree: Tree, settings: type, key: str, where: str, problems: list[str]) -> Any:  # noqa: ANN401
    before = len(problems)
    fields, hints = keys_of(settings), typing.get_type_hints(settings)
    for name in tree:
        if name in fields:
            continue
        if len(problems) > _MAX_PROBLEMS:
            return None
        origin = origin_of(tree[name], where)
        problems.append(f"{origin}: {_unknown(_dotted(key, name), name, key, fields)}")
    values = {}
    for name, field in fields.items():
        full = _dotted(key, name)
        if name not in tree:
            if _default(field) is dataclasses.MISSING:
                if dataclasses.is_dataclass(hints[field.name]):
                    values[field.name] = _block(
                        {}, cast(type, hints[field.name]), full, where, problems
                    )
                else:
                    problems.append(f"{where}: {full} is missing; it has no default")
            continue
        values[field.name] = _field(tree[name], field, hints[field.name], full, where, problems)
    if len(problems) > before:
        return None
    try:
        return settings(**values)
    except ConfigError as error:
        origin = origin_of(tree, where)
        problems += [
            f"{_origin_of_message(line, tree, fields) or origin}: {_named(line, key)}"
            for line in str(error).splitlines()
        ]
        return None


def _unknown(full: str, name: str, key: str, fields: Mapping[str, Any]) -> str:
    prefix = f"{key}." if key else ""
    hint = nearest(name, fields).replace("did you mean ", f"did you mean {prefix}")
    return f"{full} is no key of {key or 'a config'}{hint or f'; its keys: {_listed(fields)}'}"


def _listed(names: Any) -> str:  # noqa: ANN401 - an iterable of text
    return ", ".join(names)


def _origin_of_message(line: str, tree: Tree, fields: Mapping[str, Any]) -> str | None:
    """Return where the first key that a message names stands, if it stands somewhere."""
    dotted = line.partition("=")[0].partition(" ")[0].rstrip(":")
    word = dotted.split(".")[0]
    found = tree.get(word) if word in fields else None
    return None if found is None else origin_within(found, word, dotted, "")


def origin_within(value: "Leaf | Tree", key: str, dotted: str, default: str) -> str:
    """Return where the value of a block that a message names stands, else the block's last.

    Args:
        value: The block.
        key: Its own dotted key.
        dotted: The key that the message names.
        default: If the block is empty.
    """
    if isinstance(value, Leaf):
        return value.origin
    inner = dict(leaves(value, f"{key}."))
    named = inner.get(dotted) or next(reversed(inner.values()), None)
    return default if named is None else named.origin


def _named(line: str, key: str) -> str:
    return f"{key}.{line}" if key else line


def _field(
    value: "Leaf | Tree",
    field: "dataclasses.Field[Any]",
    kind: Any,  # noqa: ANN401 - a type
    key: str,
    where: str,
    problems: list[str],
) -> Any:  # noqa: ANN401
    if "kinds" in field.metadata:
        return _chosen(value, field.metadata, key, where, problems)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, Leaf):
            if value.value is None or value.value == {}:
                value = {}  # a section whose lines are all commented out
            else:
                example = next(iter(keys_of(cast(type, kind))))
                problems.append(
                    f"{value.origin}: {key} is a section, not a value: set its keys, such as "
                    f"{key}.{example}"
                )
                return None
        return _block(value, cast(type, kind), key, where, problems)
    try:
        return convert(value, kind, key)
    except ConfigError as error:
        dotted = str(error).partition("=")[0].partition(" ")[0].rstrip(":")
        problems.append(f"{origin_within(value, key, dotted, where)}: {error}")
        return None


def _chosen(
    value: "Leaf | Tree", metadata: Mapping[str, Any], key: str, where: str, problems: list[str]
) -> Any:  # noqa: ANN401
    kinds: Kinds = metadata["kinds"]()
    block: Tree = {"kind": value} if isinstance(value, Leaf) else dict(value)
    origin = origin_within(block.get("kind", block), f"{key}.kind", "", where)
    kind = plain(block.pop("kind", Leaf(metadata["default"], where)))
    if kind is None and metadata["default"] is None and not block:
        return None
    if kind not in kinds.names():
        problems.append(
            f"{origin}: {key}.kind={kind} is none of {_listed(kinds.names())}"
            f"{nearest(str(kind), kinds.names())}"
        )
        return None
    options = _block(block, kinds.options(kind), key, origin, problems)
    return None if options is None else Chosen(kind, options)


def convert(value: "Leaf | Tree", kind: Any, key: str) -> Any:  # noqa: ANN401 - a type; its value
    """Return a value as a field's type has it.

    Raises:
        ConfigError: If it can't be one, naming the key.
    """
    if kind is Any:
        return plain(value)
    origin = typing.get_origin(kind)
    if origin is dict:
        _, inner = typing.get_args(kind)
        if isinstance(value, Leaf):
            if value.value in (None, {}):
                return {}
            raise ConfigError(f"{key}={plain(value)} is not a mapping of names to values")
        if inner is Any:
            return {name: plain(item) for name, item in value.items()}
        return {name: convert(item, inner, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, dict):
        raise ConfigError(f"{key} is a value, not a block of keys such as {_last(value, key)}")
    return _scalar(plain(value), kind, key)


def _last(tree: Tree, key: str) -> str:
    """Return the key that was set last: what was a text before became the block's first."""
    return next(reversed([f"{key}.{name}" for name, _ in leaves(tree)]), key)


def _scalar(value: Any, kind: Any, key: str) -> Any:  # noqa: ANN401 - a value; a type
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        if not isinstance(value, list):
            raise ConfigError(f"{key}={value} is not a list such as [{_example(arguments[0])}]")
        return [_item(item, arguments[0], key) for item in value]
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        others = [argument for argument in arguments if argument is not type(None)]
        if isinstance(value, list) and not any(typing.get_origin(each) is list for each in others):
            raise ConfigError(f"{key}={value} is not {_expected(others[0])}")
        for number, other in enumerate(others):
            try:
                return _scalar(value, other, key)
            except ConfigError:
                if number == len(others) - 1:
                    raise
    if origin is Literal:
        if value is False and "no" in arguments:
            return "no"  # a bare `no` is a boolean to YAML
        if value in arguments and isinstance(value, type(arguments[0])):
            return value
        names = [str(argument) for argument in arguments]
        raise ConfigError(
            f"{key}={value} is none of {', '.join(names)}{nearest(str(value), names)}"
        )
    return _checked(value, kind, key)


def _item(item: Any, kind: Any, key: str) -> Any:  # noqa: ANN401 - a list's item; a type
    if kind is Any or typing.get_origin(kind) is dict:
        return item
    if isinstance(item, dict):
        raise ConfigError(f"{key}: {item} is not {_expected(kind)}")
    return _scalar(item, kind, key)


def _checked(value: Any, kind: type, key: str) -> Any:  # noqa: ANN401 - a value
    if kind is str:
        if isinstance(value, str):
            if "${" in value:
                raise ConfigError(f"{key}: '{shortened(value)}' is not resolved: write the value")
            return value
        if isinstance(value, bool | int | float):
            raise ConfigError(f"{key}: YAML reads {value!r} there, not text: put it in quotes")
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif isinstance(value, bool):
        pass
    elif kind is int and isinstance(value, int):
        return _finite(value, key)
    elif kind is float:
        if isinstance(value, str):
            try:
                return _finite(float(value), key)  # `1e-3`, without a dot, is text to YAML 1.1
            except ValueError:
                raise ConfigError(f"{key}: '{value}' is not a number") from None
        if isinstance(value, int | float):
            return float(_finite(value, key))
    raise ConfigError(f"{key}={value!s:.80} is not {_expected(kind)}")


def _finite(number: float, key: str) -> Any:  # noqa: ANN401 - an int stays one
    if (isinstance(number, float) and not math.isfinite(number)) or abs(number) >= _LARGEST:
        raise ConfigError(f"{key}={number!s:.40} is not finite, or beyond 2**63")
    return number


def _expected(kind: Any) -> str:  # noqa: ANN401 - a type
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, "such a value")


def _example(kind: Any) -> str:  # noqa: ANN401 - a type
    return {int: "1, 2", float: "0.5, 1"}.get(kind, "a, b")


def flat(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - of `to_plain`
    """Yield (dotted key, value) for every value of plain mappings."""

    def walk(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
        if isinstance(part, Mapping) and part:
            for name, item in part.items():
                yield from walk(item, f"{prefix}.{name}" if prefix else str(name))
        else:
            yield prefix, part

    return walk(value, "")
