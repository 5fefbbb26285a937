"""Blocks of methods' files read: a stage's and a table's keys, options, budget and network."""

from dataclasses import dataclass
from typing import Any

from fastssd.config import Budget, Config, ModelConfig, TableConfig
from fastssd.core import schema
from fastssd.core.tree import Leaf, Tree, copied, merged, nearest, origin_of, tree_of
from fastssd.errors import ConfigError
from fastssd.method_file import MethodFile
from fastssd.methods.options import MethodOptions
from fastssd.methods.registry import METHODS
from fastssd.recipe_file import budget_of
from fastssd.runtime.blocks import StageKeys, TableKeys

_STAGE_KEYS = frozenset(schema.keys_of(StageKeys))
DEFAULT_TEMPERATURE = 2.0


@dataclass(frozen=True)
class Block:
    """A stage's or table's block, with what messages need to know of it."""

    method: MethodFile
    name: str
    tree: Tree
    origin: str

    @property
    def key(self) -> str:
        """Its dotted key."""
        return f"{self.method.name}.{self.name}"

    def error(self, text: str, name: str | None = None) -> ConfigError:
        """Return an error about a key of the block, or about the block."""
        key = f"{self.key}.{name}" if name else self.key
        return ConfigError(f"{self.origin_of(name)}: {key}{text}")

    def origin_of(self, name: str | None) -> str:
        """Return where a key of the block stands, or the block."""
        found = self.tree.get(name.partition(".")[0]) if name else None
        if found is None or name is None:
            return self.origin
        return schema.origin_within(found, name.partition(".")[0], name, self.origin)

    def budget(self, config: Config) -> Budget:
        """Return the budget that a stage's block names."""
        where = self.origin_of("budget")
        return budget_of(self.tree.get("budget"), config, key=f"{self.key}.budget", where=where)

    def value(self, name: str, kind: type) -> Any:  # noqa: ANN401 - of that type
        """Return a key's value, None where the block has it not."""
        found = self.tree.get(name)
        if found is None:
            return None
        try:
            return schema.convert(found, kind, f"{self.key}.{name}")
        except ConfigError as error:
            raise ConfigError(f"{self.origin_of(name)}: {error}") from error


def block_of(method: MethodFile, parts: Any, name: str) -> Block:  # noqa: ANN401 - trees by name
    """Return the block of a stage or table, to be changed freely."""
    tree = copied(parts[name])
    return Block(method, name, tree, origin_of(tree, method.origin))


def declared_options(block: Block) -> tuple[str, type[MethodOptions]]:
    """Return the method that a stage names, and what its options may be."""
    name = block.value("method", str)
    if name is None:
        raise block.error(f" is missing: one of {', '.join(METHODS)}", "method")
    if name not in METHODS:
        raise block.error(
            f"={name} is none of {', '.join(METHODS)}{nearest(name, METHODS)}", "method"
        )
    return name, METHODS.options(name)


def read_keys(block: Block, kind: str, declared: type[MethodOptions]) -> tuple[StageKeys, Any]:
    """Return a block's keys that all stages have, and its method's own.

    Raises:
        ConfigError: A line for every key that is neither, or is wrong.
    """
    theirs = schema.keys_of(declared)
    own = {name: value for name, value in block.tree.items() if name in theirs}
    common = {name: value for name, value in block.tree.items() if name in _STAGE_KEYS - own.keys()}
    valid = [*theirs, *_STAGE_KEYS]
    problems = [
        str(
            block.error(
                f" is no key of method {kind}"
                + nearest(name, valid).replace("mean ", f"mean {block.key}."),
                name,
            )
        )
        for name in block.tree
        if name not in own and name not in common
    ]
    found: list[Any] = []
    for values, wanted in ((common, StageKeys), (own, declared)):
        try:
            found.append(schema.read(values, wanted, key=block.key, where=block.origin))
        except ConfigError as error:
            problems += error.args
    schema.refuse(problems)
    keys, options = found
    return keys, options


def budget_for(
    block: Block,
    keys: StageKeys,
    declared: type[MethodOptions],
    options: MethodOptions,
    config: Config,
) -> Budget | None:
    """Return the budget of a stage; None where nothing is trained over epochs."""
    if not declared.TRAINS:
        for name in ("budget", "draws", "sampler", "reads", "bind"):
            if getattr(keys, name) is not None:
                raise block.error(": this method trains nothing over epochs", name)
        return None
    if keys.draws is None:
        raise block.error(" is missing: name a stream of crops, such as features", "draws")
    budget = block.budget(config)
    try:
        options.check(budget)
    except ConfigError as error:
        raise block.error(f": {error}") from error
    return budget


def model_for(block: Block, keys: StageKeys, config: Config) -> ModelConfig:
    """Return a stage's network: the recipe's, with what the block changes."""
    changes = block.tree.get("model")
    if not keys.model or not isinstance(changes, dict):
        return config.model
    values = merged([tree_of(schema.to_plain(config.model), block.origin), changes])
    return schema.read(values, ModelConfig, key=f"{block.key}.model", where=block.origin)


def store_for(options: MethodOptions, tables: TableConfig) -> TableConfig:
    """Return what a table of a stage's own draws holds: the recipe's choice where it serves."""
    allowed = options.stores or ("logits",)
    store: Any = tables.store if tables.store in allowed else allowed[0]
    return TableConfig(store=store, dtype=tables.dtype)


def holds_for(block: Block, keys: TableKeys, tables: TableConfig) -> TableConfig:
    """Return what a table holds: the recipe's choice, with what the block changes."""
    names = [name for name in TableConfig.__dataclass_fields__ if name != "views"]
    values = {name: getattr(tables, name) for name in names}
    said = {name: value for name in names if (value := getattr(keys, name)) is not None}
    try:
        return TableConfig(**{**values, **said})
    except ConfigError as error:
        key = next((name for name in said if str(error).startswith(f"{name}=")), None)
        text = str(error).removeprefix(f"{key}") if key else f": {error}"
        raise block.error(text, key) from error


def temperature_for(block: Block) -> float:
    """Return the temperature of the stage that reads a `topk` table: it holds for that alone."""
    for name, tree in block.method.stages.items():
        if text_of(tree.get("reads")) == block.name:
            reader = block_of(block.method, block.method.stages, name)
            found = reader.value("temperature", float)
            return DEFAULT_TEMPERATURE if found is None else float(found)
    return DEFAULT_TEMPERATURE


def text_of(value: "Leaf | Tree | None") -> str | None:
    """Return the text that stands there, if it is text."""
    return value.value if isinstance(value, Leaf) and isinstance(value.value, str) else None
