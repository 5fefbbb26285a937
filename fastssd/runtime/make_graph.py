"""From a recipe to its graph: references followed, what is shared found, what can't be refused.

Without PyTorch: options are known without the classes that they configure.
"""

import dataclasses
from dataclasses import dataclass, field

from fastssd.config import Config
from fastssd.core import schema
from fastssd.core.tree import nearest
from fastssd.data.plans import check_sampler
from fastssd.errors import ConfigError
from fastssd.method_file import MethodFile
from fastssd.methods.options import MethodOptions
from fastssd.recipe_file import Recipe
from fastssd.runtime.blocks import StageKeys, TableKeys
from fastssd.runtime.graph import ONLY_STAGE, Facts, Graph, PlanOfTable, Stage, Table
from fastssd.runtime.identity import stage_identity, table_identity
from fastssd.runtime.read_blocks import (
    DEFAULT_TEMPERATURE,
    Block,
    block_of,
    budget_for,
    declared_options,
    holds_for,
    model_for,
    read_keys,
    store_for,
    temperature_for,
    text_of,
)
from fastssd.runtime.table_fits import misfit


def make_graph(recipe: Recipe, facts: Facts | None = None) -> Graph:
    """Return the graph of a recipe.

    Args:
        recipe: With its methods.
        facts: Of dataset and machine; without them nodes have no lasting identity.

    Raises:
        ConfigError: Naming what does not fit, with file and line.
    """
    stages: list[Stage] = []
    asked: dict[tuple[str, str, int], Stage] = {}
    seeds = recipe.config.all_seeds
    for seed in seeds:
        maker = _Maker(
            recipe=recipe,
            facts=facts or Facts(),
            seed=seed,
            prefix=f"seed-{seed}/" if len(seeds) > 1 else "",
        )
        for method in recipe.methods:
            for name in method.stages:
                maker.stage(method, name)
            for name in method.tables:
                maker.check(method, name)
        stages += maker.stages.values()
        asked |= {(method, name, seed): stage for (method, name), stage in maker.asked.items()}
    return Graph(stages=stages, asked=asked)


@dataclass(kw_only=True)
class _Maker:
    """Makes the nodes of one seed.

    Attributes:
        stages: By digest, each after those that it stands on.
        asked: By (method, stage).
    """

    recipe: Recipe
    facts: Facts
    seed: int
    prefix: str
    stages: dict[str, Stage] = field(default_factory=dict)
    asked: dict[tuple[str, str], Stage] = field(default_factory=dict)
    _tables: dict[tuple[str, str], Table] = field(default_factory=dict)
    _tables_by_digest: dict[str, Table] = field(default_factory=dict)
    _folders: dict[str, str] = field(default_factory=dict)
    _making: list[tuple[str, str]] = field(default_factory=list)

    @property
    def _config(self) -> Config:
        return self.recipe.config

    def stage(self, method: MethodFile, name: str) -> Stage:
        """Return a method's stage, made with those that it stands on if it is not there yet."""
        if (method.name, name) not in self.asked:
            self._enter(method, name)
            made = self._stage(block_of(method, method.stages, name))
            # Another method may have asked for the very same before.
            stage = self.stages.setdefault(made.digest, made)
            if self._folders.setdefault(stage.folder, stage.digest) != stage.digest:
                raise ConfigError(
                    f"{method.origin}: two different stages would have the folder {stage.folder}: "
                    "give the variant another name"
                )
            self.asked[method.name, name] = stage
            self._making.pop()
        return self.asked[method.name, name]

    def table(self, method: MethodFile, name: str) -> Table:
        """Return a method's table, made with the stage that is asked if it is not there yet."""
        if (method.name, name) not in self._tables:
            self._enter(method, name)
            made = self._table(block_of(method, method.tables, name))
            self._tables[method.name, name] = self._shared(made)
            self._making.pop()
        return self._tables[method.name, name]

    def check(self, method: MethodFile, name: str) -> None:
        """Refuse wrong keys of a table, which no stage need read."""
        block = block_of(method, method.tables, name)
        keys = schema.read(block.tree, TableKeys, key=block.key, where=block.origin)
        holds_for(block, keys, self._config.tables)
        self._owner(block, "source", keys.source, "stage")
        self._num_views(method, name)

    def _enter(self, method: MethodFile, name: str) -> None:
        node = (method.name, name)
        if node in self._making:
            circle = " -> ".join(".".join(each) for each in [*self._making, node])
            raise ConfigError(f"{method.origin}: stages stand on each other in a circle: {circle}")
        self._making.append(node)

    def _owner(self, block: Block, key: str, reference: str, kind: str) -> tuple[MethodFile, str]:
        """Return the method and the stage or table that a key of a block refers to."""
        other, colon, name = reference.rpartition(":")
        origin = block.origin_of(key)
        owner = self.recipe.method(other, origin=origin) if colon else block.method
        parts = owner.stages if kind == "stage" else owner.tables
        if name not in parts:
            raise block.error(
                f": {reference} is no {kind} of {owner.name} ({', '.join(parts) or 'it has none'})"
                f"{nearest(name, parts)}",
                key,
            )
        return owner, name

    def _stage(self, block: Block) -> Stage:
        kind, declared = declared_options(block)
        keys, options = read_keys(block, kind, declared)
        config = self._config
        budget = budget_for(block, keys, declared, options, config)
        stream, _, order = (keys.draws or "").partition("/")
        sampler = keys.sampler or declared.SAMPLER
        if budget is not None:
            try:
                check_sampler(sampler, key="sampler", num_epochs=budget.epochs)
            except ConfigError as error:
                raise block.error(str(error).removeprefix("sampler"), "sampler") from error
        sources = self._sources(block, keys, declared, kind)
        if options.source_head and options.source_head not in sources["source"].options.heads:
            source = sources["source"]
            raise block.error(
                f"={options.source_head}: {source.label} has {', '.join(source.options.heads)}",
                "head",
            )
        for head in keys.rows:
            if head not in options.heads:
                raise block.error(f": its heads are {', '.join(options.heads)}", f"rows.{head}")
        batchnorm = keys.batchnorm or config.batchnorm
        reads = self._reads(block, keys, declared, options, kind)
        num_views = None
        if isinstance(reads, Table):
            assert isinstance(reads.draws, int)
            if keys.bind not in (None, keys.reads):
                raise block.error(f": it reads {keys.reads}, whose views it keeps to", "bind")
            num_views = reads.draws
        elif keys.bind is not None:
            num_views = self._num_views(*self._owner(block, "bind", keys.bind, "table"))
        stage = Stage(
            method=block.method.name,
            name=block.name,
            folder=self.prefix + _folder_name(block),
            kind=kind,
            options=options,
            budget=budget,
            sampler=sampler,
            stream=stream,
            order=order or stream,
            sources=sources,
            weights=keys.weights,
            table=reads if isinstance(reads, Table) else None,
            num_views=num_views,
            batchnorm=batchnorm,
            model=model_for(block, keys, config),
            rows=keys.rows,
            seed=self.seed,
            identity={},
        )
        if isinstance(reads, Table) and (problem := misfit(stage, reads)):
            raise self._misfit(block, keys.reads or "", *problem)
        if reads == "plan":
            draws = PlanOfTable(
                sampler=sampler,
                order=stage.order,
                epochs=budget.epochs if budget else 0,
                batch_size=budget.batch_size if budget else 0,
                num_views=num_views,
            )
            table = self._own_table(block, stage, "train", draws)
            stage = dataclasses.replace(stage, table=table)
        elif declared.READS_TRAIN:
            stage = dataclasses.replace(stage, table=self._own_table(block, stage, "test", 1))
        return dataclasses.replace(
            stage, identity=stage_identity(stage, declared, config, self.facts)
        )

    def _sources(
        self, block: Block, keys: StageKeys, declared: type[MethodOptions], kind: str
    ) -> dict[str, Stage]:
        sources: dict[str, Stage] = {}
        for role in ("source", "teacher"):
            reference = getattr(keys, role)
            if role not in declared.ROLES:
                if reference is not None:
                    raise block.error(f": method {kind} stands on no {role}", role)
                continue
            if reference is None:
                raise block.error(" is missing: name a trained stage, such as ce:model", role)
            sources[role] = self.stage(*self._owner(block, role, reference, "stage"))
        return sources

    def _reads(
        self,
        block: Block,
        keys: StageKeys,
        declared: type[MethodOptions],
        options: MethodOptions,
        kind: str,
    ) -> "Table | str":
        """Return where a stage's batches come from."""
        if not declared.TRAINS:
            return ""
        wanted = keys.reads or declared.READS[0]
        if wanted in ("plan", "images"):
            if wanted not in declared.READS:
                raise block.error(f"={wanted}: method {kind} does not read {wanted}", "reads")
            return wanted
        if "table" not in declared.READS:
            raise block.error(f"={wanted}: method {kind} reads no table", "reads")
        table = self.table(*self._owner(block, "reads", wanted, "table"))
        if table.holds.store not in options.stores:
            remedy = f": set {block.key}.reads=plan" if "plan" in declared.READS else ""
            raise block.error(
                f"={wanted}: that table holds {table.holds.store}, and this stage learns from "
                f"{' or '.join(options.stores)}{remedy}",
                "reads",
            )
        return table

    def _misfit(self, block: Block, reads: str, key: str, text: str) -> ConfigError:
        """Return the error of a stage whose key does not fit the table that it reads."""
        owner, name = self._owner(block, "reads", reads, "table")
        table = block_of(owner, owner.tables, name)
        # Two blocks disagree: the command line is the one that has just been changed.
        if table.origin_of(key).startswith("argument"):
            block = table
        return block.error(f"={block.value(key, str)}: {text}", key)

    def _own_table(
        self, block: Block, stage: Stage, transform: str, draws: int | PlanOfTable
    ) -> Table:
        """Return the table of a stage that names none: of its plan, or of every image once."""
        source = stage.sources["source"]
        self._check_table(block, stage.batchnorm)
        _check_crops(block, source, stage.stream, transform)
        table = Table(
            folder=f"{stage.folder}-table",
            source=source,
            head=stage.options.head,
            weights=stage.weights,
            stream=stage.stream if transform == "train" else "test",
            transform=transform,
            batchnorm=stage.batchnorm,
            draws=draws,
            holds=store_for(stage.options, self._config.tables),
            temperature=DEFAULT_TEMPERATURE,
            identity={},
        )
        return self._shared(
            dataclasses.replace(table, identity=table_identity(table, self._config, self.facts))
        )

    def _shared(self, table: Table) -> Table:
        """Return the same table, if another stage has asked for it before."""
        return self._tables_by_digest.setdefault(table.digest, table)

    def _check_table(self, block: Block, batchnorm: str) -> None:
        if batchnorm == "batch":
            raise block.error(
                ": batchnorm=batch makes an image's logits depend on its batch, so no table can "
                f"hold them: set {block.method.name}.STAGE.reads=images for the stages that read "
                "a table, or batchnorm to frozen or recalibrated"
            )

    def _table(self, block: Block) -> Table:
        keys = schema.read(block.tree, TableKeys, key=block.key, where=block.origin)
        source = self.stage(*self._owner(block, "source", keys.source, "stage"))
        head = keys.head or source.options.heads[0]
        if head not in source.options.heads:
            raise block.error(
                f"={head}: {source.label} has {', '.join(source.options.heads)}", "head"
            )
        batchnorm = keys.batchnorm or self._config.batchnorm
        self._check_table(block, batchnorm)
        table = Table(
            folder=f"{self.prefix}{block.method.name}-{block.name}",
            source=source,
            head=head,
            weights=keys.weights,
            stream=keys.draws.partition("/")[0],
            transform=keys.transform,
            batchnorm=batchnorm,
            draws=self._num_views(block.method, block.name),
            holds=holds_for(block, keys, self._config.tables),
            temperature=temperature_for(block),
            identity={},
        )
        _check_crops(block, source, table.stream, table.transform)
        return dataclasses.replace(table, identity=table_identity(table, self._config, self.facts))

    def _num_views(self, method: MethodFile, name: str) -> int:
        """Return a table's views: as many as it says, or one an epoch of its longest reader."""
        block = block_of(method, method.tables, name)
        views = block.value("views", int) or self._config.tables.views
        if views < 0:
            raise block.error(f"={views} must be at least 0", "views")
        if views:
            return views
        readers = [
            block_of(method, method.stages, stage)
            for stage, tree in method.stages.items()
            if name in (text_of(tree.get("reads")), text_of(tree.get("bind")))
        ]
        epochs = [reader.budget(self._config).epochs for reader in readers]
        return max(epochs, default=1)


def _folder_name(block: Block) -> str:
    if list(block.method.stages) == [ONLY_STAGE]:
        return block.method.name
    return f"{block.method.name}-{block.name}"


def _check_crops(block: Block, source: Stage, stream: str, transform: str) -> None:
    """Refuse to tabulate a network on the very crops that its weights were trained on."""
    trained = source
    while "source" in trained.sources:  # The network of a re-balanced classifier is its source's.
        trained = trained.sources["source"]
    if transform == "train" and trained.stream == stream:
        raise block.error(
            f"={stream}: on these crops {trained.label} was trained, and is too sure of them: "
            "name another stream",
            "draws",
        )
