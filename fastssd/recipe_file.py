"""Reading what a user writes: a recipe, the files of its methods, and `key=value` over both.

Precedence, from the weakest: a method's file, the recipe's `options`, an inline variant, the
command line. Nothing here imports PyTorch; what a method's own keys may be is known to its class
(`fastssd.runtime.graph` asks it).
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from fastssd.config import Budget, Config
from fastssd.core import bounded_yaml, schema
from fastssd.core.tree import (
    Leaf,
    Tree,
    copied,
    leaves,
    merge,
    merged,
    nearest,
    origin_of,
    plain,
    put,
    read_yaml,
    shortened,
    tree_of,
)
from fastssd.errors import ConfigError
from fastssd.method_file import MethodFile, method_files, read_method


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with everything that its methods say.

    Attributes:
        config: What is not a method's.
        path: The recipe's file.
        methods: Those asked for, in order.
        options: What file, variants and command line say of methods, by name; a variant's own
            stands under its name.
    """

    config: Config
    path: Path
    methods: Sequence[MethodFile]
    options: Tree

    def method(self, name: str, *, origin: str) -> MethodFile:
        """Return a method that was asked for, or whose stage another one stands on.

        Raises:
            ConfigError: If there is no such method.
        """
        for method in self.methods:
            if method.name == name:
                return method
        return read_method(name, name, self.path, self.options, origin)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe and its methods under overrides.

    Args:
        path: The YAML file.
        overrides: `key=value`: a key of the recipe, or `METHOD.STAGE.KEY`.

    Raises:
        ConfigError: A line for everything that is wrong, with file and line.
    """
    path = Path(path)
    tree = read_yaml(path)
    problems: list[str] = []
    ours, theirs = _split_overrides(overrides, tree, path, problems)
    budgets = _budgets(tree.pop("budgets", {}), ours.pop("budgets", {}), path, problems)
    merge(tree, ours)
    options = tree.get("options", {})
    try:
        config = schema.read(tree, Config, key="", where=str(path))
    except ConfigError as error:
        problems += error.args
    schema.refuse(problems)
    if budgets:
        values = {field: getattr(config, field) for field in config.__dataclass_fields__}
        config = Config(**{**values, "budgets": {**config.budgets, **budgets}})
    asked = list(_asked(tree.get("methods", Leaf(list(config.methods), str(path))), path))
    options = merged([options if isinstance(options, dict) else {}, _variants(asked), theirs])
    _check_names(options, asked, path)
    methods = [read_method(each.name, each.base, path, options, each.origin) for each in asked]
    return Recipe(config=config, path=path, methods=methods, options=options)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the recipe's own part; see `load_recipe`."""
    return load_recipe(path, overrides).config


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML that is read back to an equal one, the command line's part in it."""
    values = schema.to_plain(recipe.config)
    values["methods"] = [
        {"name": method.name, "base": method.base} if method.name != method.base else method.base
        for method in recipe.methods
    ]
    values["options"] = plain(recipe.options)
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text


def with_earlier(recipe: Recipe, earlier: Recipe) -> Recipe:
    """Return a recipe that also has the methods that a run directory was made with before.

    What both have, the later one says.
    """
    names = {method.name for method in recipe.methods}
    kept = [method for method in earlier.methods if method.name not in names]
    options = copied(earlier.options)
    merge(options, recipe.options)
    return dataclasses.replace(recipe, methods=[*recipe.methods, *kept], options=options)


def budget_of(block: "Leaf | Tree | None", config: Config, *, key: str, where: str) -> Budget:
    """Return the budget of a stage: one of the recipe's, by name, or one with some keys changed.

    Args:
        block: `NAME`, or `{base: NAME, KEY: value}`.
        config: The recipe.
        key: Of the stage's budget, for messages.
        where: Origin of messages.

    Raises:
        ConfigError: If there is no such budget, or a key is wrong.
    """
    tree: Tree = {"base": block} if isinstance(block, Leaf) else dict(block or {})
    origin = schema.origin_within(tree.get("base", tree), key, "", where)
    name = plain(tree.pop("base", Leaf(None, where)))
    if not isinstance(name, str) or name not in config.budgets:
        raise ConfigError(
            f"{origin}: {key}={name} is no budget of the recipe "
            f"({', '.join(config.budgets)}){nearest(str(name), config.budgets)}"
        )
    return rescaled(config.budgets[name], tree, key=key, where=where)


def rescaled(budget: Budget, changes: Tree, *, key: str, where: str) -> Budget:
    """Return a budget with some keys changed; times move with the epochs.

    Where `epochs` is changed, milestones and warm-up that are not are scaled with it: a budget of
    200 epochs with a milestone at 160 becomes one of 20 with a milestone at 16.
    """
    values = tree_of(schema.to_plain(budget), where)
    epochs = changes.get("epochs")
    if isinstance(epochs, Leaf) and isinstance(epochs.value, int) and epochs.value > 0:
        factor = epochs.value / budget.epochs
        scaled = {
            "milestones": sorted(
                {max(1, round(milestone * factor)) for milestone in budget.milestones}
            ),
            "warmup_epochs": max(
                min(budget.warmup_epochs, 1), round(budget.warmup_epochs * factor)
            ),
        }
        merge(values, tree_of(scaled, epochs.origin))
    merge(values, changes)
    return schema.read(values, Budget, key=key, where=where)


def _budgets(
    ours: "Leaf | Tree", overrides: "Leaf | Tree", path: Path, problems: list[str]
) -> dict[str, Budget]:
    """Return the recipe's budgets, those of the command line over those of the file."""
    budgets: dict[str, Budget] = {}
    for blocks, where in ((ours, str(path)), (overrides, "the command line")):
        if isinstance(blocks, Leaf):
            if blocks.value is not None:
                problems.append(f"{blocks.origin}: budgets is a section: set budgets.NAME.epochs")
            continue
        for name, block in blocks.items():
            key = f"budgets.{name}"
            defaults = Config.__dataclass_fields__["budgets"].default_factory()  # type: ignore[operator]
            known = budgets.get(name) or defaults.get(name)
            try:
                if isinstance(block, Leaf):
                    raise ConfigError(f"{block.origin}: {key} is a section: set {key}.epochs")
                budgets[name] = (
                    schema.read(block, Budget, key=key, where=origin_of(block, where))
                    if known is None
                    else rescaled(known, block, key=key, where=origin_of(block, where))
                )
            except ConfigError as error:
                problems.append(str(error))
    return budgets


def _split_overrides(
    overrides: Sequence[str], tree: Tree, path: Path, problems: list[str]
) -> tuple[Tree, Tree]:
    """Return the command line's values for the recipe, and those for methods."""
    ours: Tree = {}
    theirs: Tree = {}
    sections = schema.keys_of(Config)
    for text in overrides:
        if len(problems) > 30:
            break
        key, equals, value = text.partition("=")
        key, origin = key.strip(), f"argument '{shortened(text)}'"
        if not equals or not key:
            problems.append(f"{origin}: an override is key=value, such as seed=1")
            continue
        try:
            target = ours if key.partition(".")[0] in sections else theirs
            put(target, key, _value_of(key, value, origin), origin)
        except ConfigError as error:
            problems.append(str(error))
    return ours, theirs


def _value_of(key: str, text: str, origin: str) -> "Leaf | Tree":
    """Return an argument's value: text as it stands where the recipe wants text, else YAML."""
    kind = _type_of(key)
    if kind is str:
        return Leaf(text, origin)
    if kind == str | None:
        return Leaf(None if text in ("", "~", "null") else text, origin)
    try:
        value = bounded_yaml.value_of(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{origin}: {shortened(repr(text))} is not a YAML value") from error
    if isinstance(value, dict):
        return tree_of(value, origin)
    if isinstance(value, list):
        return Leaf([tree_of(v, origin) if isinstance(v, dict) else v for v in value], origin)
    return Leaf(value, origin)


def _type_of(key: str) -> Any:  # noqa: ANN401 - a type, None where the recipe has no such key
    kind: Any = Config
    for name in key.split("."):
        fields = getattr(kind, "__dataclass_fields__", {})
        kind = get_type_hints(kind).get(name) if name in fields else None
    return kind


@dataclass(frozen=True)
class _Asked:
    """One entry of `methods`.

    Attributes:
        name: In folders and references.
        base: Of its file: the name, a path, or another method's for a variant.
        changes: A variant's, to its base.
        origin: Where it stands.
    """

    name: str
    base: str
    changes: Tree
    origin: str


def _asked(methods: "Leaf | Tree", path: Path) -> Iterator[_Asked]:
    """Yield what a recipe's `methods` asks for."""
    names = set()
    items = methods.value if isinstance(methods, Leaf) else [methods]
    origin = origin_of(methods, str(path))
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, dict):
            changes = copied(item)
            name = _text(changes.pop("name", None), "name", origin)
            base = _text(changes.pop("base", None), "base", origin)
            asked = _Asked(name, base, changes, origin)
        elif isinstance(item, str):
            name = Path(item).stem if item.endswith(_YAML) else item
            asked = _Asked(name, item, {}, origin)
        else:
            raise ConfigError(f"{origin}: methods: {item!r} is no method's name")
        if not asked.name.replace("_", "").isalnum():
            raise ConfigError(
                f"{origin}: methods: a name is letters, digits and _, not {asked.name!r}"
            )
        if asked.name in names:
            raise ConfigError(f"{origin}: methods names {asked.name} twice")
        names.add(asked.name)
        yield asked


_YAML = (".yaml", ".yml")


def _text(leaf: "Leaf | Tree | None", key: str, origin: str) -> str:
    if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str):
        raise ConfigError(
            f"{origin}: methods: a variant is {{name: NAME, base: METHOD, STAGE.KEY: value}}, and "
            f"this one has no {key}"
        )
    return leaf.value


def _variants(asked: Iterable[_Asked]) -> Tree:
    return {each.name: each.changes for each in asked if each.changes}


def _check_names(options: Tree, asked: Iterable[_Asked], path: Path) -> None:
    """Refuse options of what is neither a key of the recipe nor a method.

    Raises:
        ConfigError: A line for each, naming the nearest.
    """
    known = {*method_files(path), *(each.name for each in asked)}
    problems = []
    for name, block in options.items():
        if name not in known:
            key = name if isinstance(block, Leaf) else f"{name}.{next(leaves(block), ('',))[0]}"
            problems.append(
                f"{origin_of(block, str(path))}: {key} is neither a key of a recipe nor of a "
                f"method{nearest(name, [*schema.keys_of(Config), *sorted(known)])}"
            )
    schema.refuse(problems)
