"""A run as a graph of stages and tables: pure data, made by `fastssd.runtime.make_graph`."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastssd.config import Budget, ModelConfig, TableConfig
from fastssd.core import schema

ONLY_STAGE = "model"
"""A method's one stage, whose folder has the method's name alone."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of data and machine before a graph is made.

    Attributes:
        dataset: Identity of the dataset.
        decoder: Name of the decoder.
        filter: What brings images to their size.
    """

    dataset: Mapping[str, Any] = field(default_factory=dict)
    decoder: str = ""
    filter: str = ""


@dataclass(frozen=True, kw_only=True)
class PlanOfTable:
    """The draws of a table that holds those of one stage's training, and no others.

    Attributes:
        sampler: With its options.
        order: Of the draws.
        epochs: That are drawn.
        batch_size: Of the stage: what is left over at an epoch's end is not drawn.
        num_views: Views of each image that they keep to; None: fresh ones.
    """

    sampler: str
    order: str
    epochs: int
    batch_size: int
    num_views: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """What a frozen network says of draws: a node.

    Attributes:
        folder: In the run directory.
        source: The stage that is asked.
        head: Of it.
        weights: Of it, `last` or `best`.
        stream: Of the crops.
        transform: `train` or `test`.
        batchnorm: Of the network.
        draws: K views of every image, or the draws of a stage's plan.
        holds: What is kept, and how.
        temperature: Of the stage that reads a `topk` table, which holds for that alone.
        identity: All that its rows follow from.
    """

    folder: str
    source: "Stage"
    head: str
    weights: str
    stream: str
    transform: str
    batchnorm: str
    draws: int | PlanOfTable
    holds: TableConfig
    temperature: float
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of the identity."""
        return digest_of(self.identity)

    @property
    def seed(self) -> int:
        """The seed."""
        return self.source.seed


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One network's training, or one classifier made from a trained one: a node.

    Attributes:
        method: The method that asked first, by its name in the recipe.
        name: As its method's file calls it.
        folder: In the run directory.
        kind: A name of `METHODS`.
        options: Of that kind.
        budget: None where nothing is trained over epochs.
        sampler: Of the images.
        stream: Of the crops.
        order: Of the draws, and of initial weights and dropout.
        sources: Trained stages by role.
        weights: Of the sources, `last` or `best`.
        table: Of a frozen network's answers; None where it is asked about images, or there is none.
        num_views: Views of each image that its draws keep to; None: fresh ones.
        batchnorm: Of frozen networks.
        model: The network.
        rows: The report's name of each head.
        seed: The seed.
        identity: All that its weights follow from.
    """

    method: str
    name: str
    folder: str
    kind: str
    options: Any
    budget: Budget | None
    sampler: str
    stream: str
    order: str
    sources: dict[str, "Stage"]
    weights: str
    table: Table | None
    num_views: int | None
    batchnorm: str
    model: ModelConfig
    rows: dict[str, str]
    seed: int
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of the identity."""
        return digest_of(self.identity)

    @property
    def label(self) -> str:
        """As messages name it: `ssd.III`."""
        return f"{self.method}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Stages, each after those that it stands on.

    Attributes:
        stages: Of all seeds.
        asked: The node of every (method, stage, seed), shared ones as often as they are asked for.
    """

    stages: Sequence[Stage]
    asked: Mapping[tuple[str, str, int], Stage]

    def tables(self) -> list[Table]:
        """Return the tables that stages read, each once."""
        found = {id(stage.table): stage.table for stage in self.stages if stage.table}
        return list(found.values())

    def as_json(self) -> dict[str, Any]:
        """Return what `graph.json` holds."""
        return {
            "stages": [
                {
                    "method": method,
                    "stage": name,
                    "seed": seed,
                    "folder": stage.folder,
                    "digest": stage.digest,
                    "sources": {role: source.folder for role, source in stage.sources.items()},
                    **({"table": stage.table.folder} if stage.table else {}),
                }
                for (method, name, seed), stage in self.asked.items()
            ],
        }


def digest_of(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any) -> Iterator[str]:  # noqa: ANN401 - identities
    """Yield "key is OLD, not NEW" for what differs between two identities."""
    before, after = dict(schema.flat(old)), dict(schema.flat(new))
    for key in [*before, *(key for key in after if key not in before)]:
        if before.get(key) != after.get(key):
            yield f"{key} is {_said(before, key)}, not {_said(after, key)}"


def _said(values: Mapping[str, Any], key: str) -> str:
    return f"{values[key]!s:.60}" if key in values else "at its default"
