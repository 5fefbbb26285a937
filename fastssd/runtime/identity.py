"""What the weights of a stage and the rows of a table follow from, as readable values.

A finished stage is used again by whoever asks for one of the same identity. What stands at its
default is left out, so that a new key with a default changes no identity.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from fastssd.config import Config
from fastssd.core import schema
from fastssd.methods.options import MethodOptions
from fastssd.runtime.graph import Facts, Stage, Table

_NOTHING = object()


def stage_identity(
    stage: Stage, declared: type[MethodOptions], config: Config, facts: Facts
) -> dict[str, Any]:
    """Return all that a stage's weights follow from.

    Args:
        stage: Its own identity is not looked at, those of what it stands on are.
        declared: The options of its kind.
        config: The recipe.
        facts: Data and decoder.
    """
    content: dict[str, Any] = {
        "method": stage.kind,
        "options": schema.to_plain(stage.options, without_defaults=True),
        "sources": {role: source.digest for role, source in stage.sources.items()},
    }
    if stage.sources:
        content |= {"weights": stage.weights, "batchnorm": stage.batchnorm}
    if "source" not in stage.sources:
        content["model"] = schema.to_plain(stage.model, without_defaults=True)
    if stage.budget is not None:
        content |= {
            "budget": schema.to_plain(stage.budget, without_defaults=True),
            "draws": f"{stage.stream}/{stage.order}",
            "sampler": stage.sampler if stage.sampler != declared.SAMPLER else None,
            "views": stage.num_views,
        }
    content["table"] = stage.table.digest if stage.table else None
    slots = ("train", *stage.options.slots) if declared.TRAINS else ("test",)
    chooses = not declared.TRAINS or stage.weights == "best"
    content |= _data(config, facts, slots, validation=chooses)
    content["seed"] = stage.seed
    return _short(content, weights="last", batchnorm="frozen")


def table_identity(table: Table, config: Config, facts: Facts) -> dict[str, Any]:
    """Return all that a table's rows follow from; see `stage_identity`.

    Args:
        table: Its own identity is not looked at.
        config: The recipe.
        facts: Data and decoder.
    """
    content = {
        "source": {"stage": table.source.digest, "head": table.head, "weights": table.weights},
        "draws": table.stream if table.transform == "train" else None,
        "views": table.draws if isinstance(table.draws, int) else None,
        "plan": None if isinstance(table.draws, int) else dataclasses.asdict(table.draws),
        "transform": table.transform,
        "batchnorm": table.batchnorm,
        "holds": schema.to_plain(table.holds, without_defaults=True),
        "temperature": table.temperature if table.holds.store == "topk" else None,
        **_data(config, facts, [table.transform], validation=table.weights == "best"),
        "seed": table.source.seed,
    }
    return _short(content, transform="train", batchnorm="frozen")


def _data(
    config: Config, facts: Facts, slots: Iterable[str], *, validation: bool
) -> dict[str, Any]:
    """Return which images are seen, and how."""
    augment = config.augment
    content = {
        "dataset": dict(facts.dataset),
        "split": config.data.train,
        "validation": config.data.validation if validation else None,
        "on_error": config.data.on_error,
        "augment": {
            "size": augment.size,
            "mean": list(augment.mean),
            "std": list(augment.std),
            **{slot: getattr(augment, slot) for slot in slots},
        },
        "decoder": facts.decoder,
        "filter": facts.filter,
        "precision": config.precision,
    }
    return _short(content, split="train", on_error="raise", precision="no")


def _short(content: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what is not at its default, empty or None."""
    return {
        key: value
        for key, value in content.items()
        if value not in (None, {}, "") and defaults.get(key, _NOTHING) != value
    }
