"""Reading a recipe: a YAML file and `key=value` overrides become a checked Config."""

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fastssd.config import Config
from fastssd.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a YAML file under overrides.

    Args:
        path: The file.
        overrides: `section.key=value`; text for text fields is taken as it stands.

    Raises:
        ConfigError: Naming every key that is unknown, missing or of the wrong type, with the
            nearest valid name.
    """
    leaves = [*_leaves_of_file(Path(path)), *map(_parse_override, overrides)]
    tree: DictConfig = OmegaConf.structured(Config)
    errors = []
    for origin, key, value in leaves:
        try:
            tree = _assigned(tree, key, value)
        except (OmegaConfBaseException, ConfigError) as error:
            errors.append(f"{origin}: {_reason(error, key)}")
    missing = sorted(OmegaConf.missing_keys(tree))
    errors += [f"{path}: {key} is missing; it has no default" for key in missing]
    if errors:
        raise ConfigError("\n".join(errors))
    try:
        return cast(Config, OmegaConf.to_object(tree))
    except OmegaConfBaseException as error:  # a section's own check, wrapped
        raise ConfigError(f"{path}: {_reason(error, '')}") from error


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


def _leaves_of_file(path: Path) -> Iterator[tuple[str, str, Any]]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't read the config: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values")
    for key, value in _flatten(tree, ""):
        yield str(path), key, value


def _flatten(tree: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parse_override(text: str) -> tuple[str, str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"argument '{text}': an override is key=value, such as distill.epochs=10")
    key = key.strip()
    if _type_of(key) is str:
        return f"argument '{text}'", key, value
    try:
        return f"argument '{text}'", key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"argument '{text}': {value!r} is not a YAML value") from error


def _assigned(tree: DictConfig, key: str, value: Any) -> DictConfig:  # noqa: ANN401 - whatever YAML holds
    kind = _type_of(key)
    if kind is None:
        nearest = difflib.get_close_matches(key, list(_schema_keys(Config, "")), n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{key} is no key of a config{hint}")
    if isinstance(value, str) and "${" in value:
        raise ConfigError(f"{key}: a recipe says its values itself; '${{...}}' is not resolved")
    if value is False and "no" in typing.get_args(kind):
        value = "no"  # YAML 1.1 reads a bare `no` as a boolean
    if kind is float and isinstance(value, str):
        value = _float_of(key, value)  # YAML 1.1 reads `1e-3`, without a dot, as text
    for name in reversed(key.split(".")):
        value = {name: value}
    return cast(DictConfig, OmegaConf.merge(tree, OmegaConf.create(value)))


def _float_of(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{key}: '{text}' is not a number") from error


def _schema_keys(section: type, prefix: str) -> Iterator[str]:
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            yield f"{prefix}{name}"
            yield from _schema_keys(cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _type_of(key: str) -> Any:  # noqa: ANN401 - a type or a typing construct
    """Return the declared type of a dotted key: None where there is no such leaf."""
    kind: Any = Config
    for name in key.split("."):
        kind = typing.get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else None
    return None if dataclasses.is_dataclass(kind) else kind


def _reason(error: Exception, key: str) -> str:
    if isinstance(error.__cause__, ConfigError):
        return str(error.__cause__)
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return first_line if key in first_line else f"{key}: {first_line}"
