"""Reading a recipe: a YAML file and `key=value` overrides become a checked Config."""

import dataclasses
import difflib
import functools
import reprlib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fastssd import bounded_yaml
from fastssd.config import Config
from fastssd.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a YAML file under overrides.

    Args:
        path: The file.
        overrides: `section.key=value`; text for text fields is taken as it stands.

    Raises:
        ConfigError: Naming every key that is unknown, missing or of the wrong type, with the
            nearest valid name; or, where there is none of these, every section that contradicts
            itself.
    """
    leaves = list(_leaves_of_file(Path(path)))
    errors: list[str] = []
    for text in overrides:
        if len(errors) > _MAX_ERRORS:
            break
        try:
            leaves.append(_parse_override(text))
        except ConfigError as error:
            errors.append(str(error))
    whole = _writable(Config)
    sections = {name: _writable(kind) for name, kind in _sections()}
    for origin, key, value in leaves:
        if len(errors) > _MAX_ERRORS:
            break
        try:
            _assign(key, value, whole, sections)
        except (OmegaConfBaseException, ConfigError) as error:
            errors.append(f"{origin}: {_reason(error, key)}")
    given = {key for _, key, _ in leaves}
    missing = [key for key in _required_keys(Config, "") if key not in given]
    errors += [f"{path}: {key} is missing; it has no default" for key in missing]
    if len(errors) > _MAX_ERRORS:
        # Looking up what is nearest to thousands of unknown keys helps nobody.
        errors = [*errors[:_MAX_ERRORS], "and more; the rest was not looked at"]
    if errors:
        raise ConfigError(*errors)
    values = {str(name): _plain(whole[name]) for name in whole if name not in sections}
    for name, section in sections.items():
        try:
            values[name] = OmegaConf.to_object(section)
        except ConfigError as error:
            errors.append(f"{path}: {error}")
    if errors:
        raise ConfigError(*errors)
    try:
        return Config(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def to_yaml(config: Config) -> str:
    """Return the config, fully resolved, as YAML that `load_config` reads back to an equal one."""
    return cast(str, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


def differences(old: Config, new: Config) -> Iterator[tuple[str, str]]:
    """Yield (key, "key is OLD, not NEW") for every value that differs."""
    old_values, new_values = (
        dict(_flatten(dataclasses.asdict(config), "")) for config in (old, new)
    )
    for key, value in new_values.items():
        if old_values[key] != value:
            yield key, f"{key} is {old_values[key]}, not {value}"


_MAX_ERRORS = 30


def _leaves_of_file(path: Path) -> Iterator[tuple[str, str, Any]]:
    try:
        tree, repeated = bounded_yaml.read(path)
    except OSError as error:
        raise ConfigError(f"{path}: can't read the config: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or no such date
        raise ConfigError(f"{path}: not YAML: {_shortened(_said(error))}") from error
    if repeated:
        raise ConfigError(f"{path}: {_shortened(', '.join(repeated))} stands there twice")
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    for key, value in _flatten(tree, ""):
        yield str(path), key, value


def _said(error: Exception) -> str:
    """Return what a parser found and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    context, problem = getattr(error, "context", None), getattr(error, "problem", None)
    what = ", ".join(part for part in (context, problem) if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}"


def _flatten(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parse_override(text: str) -> tuple[str, str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"argument '{_shortened(text)}': an override is key=value, such as distill.epochs=10"
        )
    key, origin = key.strip(), f"argument '{_shortened(text)}'"
    kind = _type_of(key)
    if kind is str:
        return origin, key, value
    if kind == str | None:
        return origin, key, None if value in _NOTHING else value
    try:
        return origin, key, bounded_yaml.value_of(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: {_shown(value)} is not a YAML value") from error


_NOTHING = ("", "~", "null")


def _sections() -> Iterator[tuple[str, type]]:
    """Yield the name and the class of each section."""
    for name, kind in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            yield name, cast(type, kind)


def _writable(kind: type) -> DictConfig:
    """Return a class's fields, typed; of a frozen dataclass OmegaConf makes them read-only."""
    fields: DictConfig = OmegaConf.structured(kind)
    OmegaConf.set_readonly(fields, False)
    return fields


def _assign(key: str, value: Any, whole: DictConfig, sections: dict[str, DictConfig]) -> None:  # noqa: ANN401
    """Set a dotted key, in its section or in the whole; nothing for a section left empty.

    Raises:
        ConfigError: If there is no such key, or it can't have such a value.
        OmegaConfBaseException: The same, where OmegaConf finds out.
    """
    kind = _type_of(key)
    if kind is None:
        nearest = difflib.get_close_matches(key, _schema_keys(), n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{_shortened(key)} is no key of a config{hint}")
    if dataclasses.is_dataclass(kind):
        if value is None or value == {}:
            return  # a section whose lines are all commented out
        example = next(iter(typing.get_type_hints(kind)))
        raise ConfigError(f"{key} is a section, not a value: set its keys, such as {key}.{example}")
    section, _, name = key.rpartition(".")
    target = sections[section] if section else whole
    OmegaConf.update(target, name, _as_meant(key, kind, value), merge=False)
    _check_size(key, target[name])  # again, as `1e999` was text


_TOO_LARGE = 2**63


def _as_meant(key: str, kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type; whatever YAML holds
    """Return a YAML value with what YAML 1.1 misreads set right.

    Raises:
        ConfigError: If OmegaConf would take the value for another than what was written.
    """
    _check_size(key, value)
    for item in _items(value):
        if not isinstance(item, str | bool | int | float | None):
            raise ConfigError(f"{key}: {_shown(item)} is neither text nor a number")
        if isinstance(item, str) and ("${" in item or item == "???"):
            raise ConfigError(
                f"{key}: a recipe says its values itself; '{_shortened(item)}' is not resolved"
            )
    if kind in (str, str | None) and isinstance(value, bool | int | float):
        raise ConfigError(f"{key}: YAML reads {value!r} there, not text: put it in quotes")
    if value is False and "no" in typing.get_args(kind):
        return "no"  # a bare `no` is a boolean
    if kind is float and isinstance(value, bool):
        raise ConfigError(f"{key}: {value} is not a number")
    if kind is float and isinstance(value, str):
        return _float_of(key, value)  # `1e-3`, without a dot, is text
    return value


def _check_size(key: str, value: Any) -> None:  # noqa: ANN401 - whatever YAML holds
    for number in _items(value):
        if isinstance(number, int | float) and not abs(number) < _TOO_LARGE:
            # Python refuses to print a whole number of thousands of digits.
            raise ConfigError(f"{key}: a number that is not finite, or not below 2**63")


def _shown(value: Any) -> str:  # noqa: ANN401 - whatever YAML holds
    return _shortened(reprlib.repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


_MAX_SHOWN = 200
"""Characters of one message that are the user's."""


def _plain(value: Any) -> Any:  # noqa: ANN401 - a value of the schema
    return list(value) if isinstance(value, ListConfig) else value


def _items(value: Any) -> list[Any]:  # noqa: ANN401 - whatever YAML holds
    """Return a list's items, or a value as the only one."""
    return list(value) if isinstance(value, list | ListConfig) else [value]


def _float_of(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{key}: '{_shortened(text)}' is not a number") from error


@functools.cache
def _schema_keys() -> tuple[str, ...]:
    """Return the dotted names of all sections and their keys."""
    names: list[str] = []

    def collect(section: type, prefix: str) -> None:
        for name, kind in typing.get_type_hints(section).items():
            names.append(f"{prefix}{name}")
            if dataclasses.is_dataclass(kind):
                collect(cast(type, kind), f"{prefix}{name}.")

    collect(Config, "")
    return tuple(names)


def _required_keys(section: type, prefix: str) -> Iterator[str]:
    kinds = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        if field.default is field.default_factory is dataclasses.MISSING:
            if dataclasses.is_dataclass(kinds[field.name]):
                yield from _required_keys(kinds[field.name], f"{prefix}{field.name}.")
            else:
                yield f"{prefix}{field.name}"


def _type_of(key: str) -> Any:  # noqa: ANN401 - a type or a typing construct
    """Return the declared type of a dotted key, None where there is no such key."""
    kind: Any = Config
    for name in key.split("."):
        kind = typing.get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else None
    return kind


def _reason(error: Exception, key: str) -> str:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    key = _shortened(key)
    first_line = first_line[:_MAX_LINE]
    return first_line if key in first_line else f"{key}: {first_line}"


_MAX_LINE = 500
"""Characters of what OmegaConf says, which repeats a value that it refuses."""
