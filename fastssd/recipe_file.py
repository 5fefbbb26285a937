"""Reading what a user writes: a recipe, the files of its methods, and `key=value` over both.

Precedence, from the weakest: a method's file, the recipe's `options`, an inline variant, the
command line. Nothing here imports PyTorch; what a method's own keys may be is known to its class
(`fastssd.runtime.graph` asks it).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import yaml

from fastssd.config import Budget, Config
from fastssd.core import schema
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
    read_value,
    read_yaml,
    tree_of,
)
from fastssd.errors import ConfigError

METHODS_GROUP = "fastssd.methods"
"""Entry points of packages that bring methods: a name, and a package with NAME.yaml in it."""


@dataclass(frozen=True, kw_only=True)
class MethodFile:
    """A method as it is to be trained: its file under options, variant and command line.

    Attributes:
        name: In `methods`, folders and references.
        base: The name of its file; another one for a variant.
        title: What it is, in a few words.
        stages: By name, in the file's order.
        tables: By name.
        origin: Where it was asked for.
        is_variant: Whether it stands inline in a recipe.
    """

    name: str
    base: str
    title: str
    stages: Mapping[str, Tree]
    tables: Mapping[str, Tree]
    origin: str
    is_variant: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with everything that its methods say.

    Attributes:
        config: What is not a method's.
        path: The recipe's file.
        methods: Those asked for, in order.
        layers: Options of all methods by name, from the weakest layer to the strongest.
    """

    config: Config
    path: Path
    methods: Sequence[MethodFile]
    layers: Sequence[Tree]

    def method(self, name: str, *, origin: str) -> MethodFile:
        """Return a method that was asked for, or whose stage another one stands on.

        Raises:
            ConfigError: If there is no such method.
        """
        for method in self.methods:
            if method.name == name:
                return method
        return _method(name, {}, self.path, self.layers, origin)


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
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    if budgets:
        values = {field: getattr(config, field) for field in config.__dataclass_fields__}
        config = Config(**{**values, "budgets": {**config.budgets, **budgets}})
    layers = [options if isinstance(options, dict) else {}, theirs]
    asked = tree.get("methods", Leaf(list(config.methods), str(path)))
    methods = list(_asked(asked, path, layers))
    _check_names(layers, methods, path)
    return Recipe(config=config, path=path, methods=methods, layers=layers)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the recipe's own part; see `load_recipe`."""
    return load_recipe(path, overrides).config


def to_yaml(config: Config) -> str:
    """Return the config, fully resolved, as YAML that is read back to an equal one."""
    text: str = yaml.safe_dump(schema.to_plain(config), sort_keys=False, allow_unicode=True)
    return text


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
    base = tree.pop("base", Leaf(None, where))
    name = base.value if isinstance(base, Leaf) else None
    if name not in config.budgets:
        raise ConfigError(
            f"{origin_of(base, where)}: {key}={name} is no budget of the recipe "
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
            defaults = Config.__dataclass_fields__["budgets"].default_factory()  # type: ignore[misc, operator]
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
        key, equals, value = text.partition("=")
        key, origin = key.strip(), f"argument '{text}'"
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
        value = read_value(text)
    except ValueError as error:
        raise ConfigError(f"{origin}: {text!r} is not a YAML value") from error
    if isinstance(value, dict):
        return tree_of(value, origin)
    if isinstance(value, list):
        return Leaf([tree_of(v, origin) if isinstance(v, dict) else v for v in value], origin)
    return Leaf(value, origin)


def _type_of(key: str) -> Any:  # noqa: ANN401 - a type, None where the recipe has no such key
    import typing

    kind: Any = Config
    for name in key.split("."):
        fields = getattr(kind, "__dataclass_fields__", {})
        kind = typing.get_type_hints(kind).get(name) if name in fields else None
    return kind


def _asked(asked: "Leaf | Tree", path: Path, layers: Sequence[Tree]) -> Iterator[MethodFile]:
    """Yield the methods that a recipe's `methods` names."""
    names = set()
    items = asked.value if isinstance(asked, Leaf) else [asked]
    origin = origin_of(asked, str(path))
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, dict):
            variant = copied(item)
            name = _text(variant.pop("name", None), "name", origin)
            base = _text(variant.pop("base", None), "base", origin)
            method = _variant(name, base, variant, path, layers, origin)
        elif isinstance(item, str):
            method = _method(item, {}, path, layers, origin)
        else:
            raise ConfigError(f"{origin}: methods: {item!r} is no method's name")
        if method.name in names:
            raise ConfigError(f"{origin}: methods names {method.name} twice")
        names.add(method.name)
        yield method


def _text(leaf: "Leaf | Tree | None", key: str, origin: str) -> str:
    if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str):
        raise ConfigError(
            f"{origin}: methods: a variant is {{name: NAME, base: METHOD, STAGE.KEY: value}}, and "
            f"this one has no {key}"
        )
    return leaf.value


def _variant(
    name: str, base: str, changes: Tree, path: Path, layers: Sequence[Tree], origin: str
) -> MethodFile:
    method = _method(base, {name: changes}, path, layers, origin, name=name)
    for stage, block in method.stages.items():
        said, rows = changes.get(stage), block.get("rows")
        if isinstance(rows, dict) and not (isinstance(said, dict) and "rows" in said):
            block["rows"] = {
                head: Leaf(f"{row.value} ({name})", row.origin)
                for head, row in rows.items()
                if isinstance(row, Leaf)
            }
    return method


def _method(
    asked: str,
    variant: Mapping[str, Tree],
    path: Path,
    layers: Sequence[Tree],
    origin: str,
    *,
    name: str | None = None,
) -> MethodFile:
    """Return a method's file under the layers that speak of it."""
    file = find_method(asked, path, origin)
    base = file.stem
    name = name or base
    if not name.replace("_", "").isalnum():
        raise ConfigError(f"{origin}: a method's name is letters, digits and _, not {name!r}")
    content = read_yaml(file)
    title = content.pop("title", Leaf("", str(file)))
    sections: dict[str, Tree] = {}
    for section in ("stages", "tables"):
        blocks = content.pop(section, {})
        if isinstance(blocks, Leaf) or any(isinstance(block, Leaf) for block in blocks.values()):
            raise ConfigError(f"{origin_of(blocks, str(file))}: {section} holds blocks by name")
        sections[section] = blocks
    if content:
        key = next(iter(content))
        raise ConfigError(
            f"{origin_of(content[key], str(file))}: {key} is no key of a method"
            f"{nearest(key, ('title', 'stages', 'tables'))}"
        )
    if not sections["stages"]:
        raise ConfigError(f"{file}: a method has stages, and this one has none")
    *weaker, command_line = layers
    spoken = [layer[base] for layer in weaker if base in layer]
    if name != base:
        spoken += [*variant.values(), *(layer[name] for layer in weaker if name in layer)]
    else:
        spoken += variant.values()
    if name in command_line:
        spoken.append(command_line[name])
    for layer in spoken:
        if isinstance(layer, Leaf):
            raise ConfigError(
                f"{layer.origin}: options.{name} is a block of stages: set {name}.STAGE.KEY"
            )
        for part, block in layer.items():
            _put_over(part, block, sections, name, origin_of(block, origin))
    return MethodFile(
        name=name,
        base=base,
        title=str(title.value) if isinstance(title, Leaf) else "",
        stages=sections["stages"],  # type: ignore[arg-type]
        tables=sections["tables"],  # type: ignore[arg-type]
        origin=origin,
        is_variant=name != base,
    )


def _put_over(
    part: str, block: "Leaf | Tree", sections: Mapping[str, Tree], method: str, origin: str
) -> None:
    for blocks in sections.values():
        if part in blocks:
            if isinstance(block, Leaf):
                raise ConfigError(f"{origin}: {method}.{part} is a block: set {method}.{part}.KEY")
            merge(blocks, {part: block})
            return
    known = [name for blocks in sections.values() for name in blocks]
    raise ConfigError(
        f"{origin}: {method}.{part} is no stage or table of {method} ({', '.join(known)})"
        f"{nearest(part, known)}"
    )


def find_method(name: str, recipe: Path, origin: str) -> Path:
    """Return a method's file: a path, `methods/` beside the recipe, ours, or a package's.

    Raises:
        ConfigError: If there is none of that name, with the nearest that there is.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name) if Path(name).is_absolute() else recipe.parent / name
        if not path.is_file() and Path(name).is_file():
            path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{origin}: methods: there is no file {name}")
        return path
    known = method_files(recipe)
    if name not in known:
        raise ConfigError(
            f"{origin}: methods: {name} is none of {', '.join(known)}{nearest(name, known)}"
        )
    return known[name]


def method_files(recipe: Path | None = None) -> dict[str, Path]:
    """Return the methods that are found by name, and their files."""
    folders = [Path(str(resources.files("fastssd"))) / "configs" / "methods"]
    for entry in metadata.entry_points(group=METHODS_GROUP):
        folders.append(Path(str(resources.files(entry.value))))
    if recipe is not None:
        folders.append(recipe.parent / "methods")
    return {
        path.stem: path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.glob("*.yaml"))
    }


def _check_names(layers: Sequence[Tree], methods: Sequence[MethodFile], path: Path) -> None:
    """Refuse options of what is neither a key of the recipe nor a method.

    Raises:
        ConfigError: Naming the nearest.
    """
    known = {**method_files(path), **{method.name: None for method in methods}}
    known |= {method.base: None for method in methods}
    keys = [*schema.keys_of(Config), *known]
    for layer in layers:
        for name, block in layer.items():
            if name not in known:
                key = next((f"{name}.{key}" for key, _ in leaves({"": block})), name).replace(
                    "..", "."
                )
                key = name if isinstance(block, Leaf) else f"{name}.{next(leaves(block), ('',))[0]}"
                raise ConfigError(
                    f"{origin_of(block, str(path))}: {key} is neither a key of a recipe nor of a "
                    f"method{nearest(name, keys)}"
                )


def methods_as_plain(methods: Sequence[MethodFile]) -> dict[str, Any]:
    """Return methods as plain values, for `--print-config`."""
    return {
        method.name: {
            "base": method.base,
            "stages": {name: plain(block) for name, block in method.stages.items()},
            **(
                {"tables": {name: plain(block) for name, block in method.tables.items()}}
                if method.tables
                else {}
            ),
        }
        for method in methods
    }


__all__ = [
    "MethodFile",
    "Recipe",
    "budget_of",
    "find_method",
    "load_config",
    "load_recipe",
    "merged",
    "method_files",
    "methods_as_plain",
    "rescaled",
    "to_yaml",
]
