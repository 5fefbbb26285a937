"""A recipe as it comes to be, for `--print-config`: its keys, then every stage's with defaults."""

from typing import Any

import yaml

from fastssd.core import schema
from fastssd.recipe_file import Recipe, to_yaml
from fastssd.runtime.graph import Graph, Stage, Table
from fastssd.runtime.make_graph import make_graph


def described(recipe: Recipe) -> str:
    """Return YAML: the resolved recipe, which can be trained from, and as comments its stages.

    Raises:
        ConfigError: If it does not fit together, as training would say.
    """
    stages = yaml.safe_dump(_stages(make_graph(recipe)), sort_keys=False, allow_unicode=True)
    lines = [f"# {line}".rstrip() for line in stages.splitlines()]
    return "\n".join([to_yaml(recipe), "# The stages that it comes to:", *lines, ""])


def _stages(graph: Graph) -> dict[str, Any]:
    """Return every stage of the first seed by its folder; the others are alike."""
    first = graph.stages[0].seed
    return {stage.label: _stage(stage, graph) for stage in graph.stages if stage.seed == first}


def _stage(stage: Stage, graph: Graph) -> dict[str, Any]:
    names = [f"{method}.{name}" for (method, name, _), node in graph.asked.items() if node is stage]
    content: dict[str, Any] = {"method": stage.kind}
    if len(names) > 1:
        content["is also"] = [name for name in names if name != stage.label]
    content |= {role: source.label for role, source in stage.sources.items()}
    content |= schema.to_plain(stage.options)
    if stage.budget is not None:
        content |= {
            "budget": schema.to_plain(stage.budget),
            "sampler": stage.sampler,
            "draws": f"{stage.stream}/{stage.order}",
        }
    if stage.table is not None:
        content["table"] = _table(stage.table)
    if stage.rows:
        content["rows"] = dict(stage.rows)
    return content


def _table(table: Table) -> dict[str, Any]:
    holds = schema.to_plain(table.holds, without_defaults=True)
    views = table.draws if isinstance(table.draws, int) else "those of the stage's draws"
    return {"folder": table.folder, "of": table.source.label, "views": views, **holds}
