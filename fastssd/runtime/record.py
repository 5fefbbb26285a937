"""What a stage was trained by: noted in its folder's `stage.json`, compared before it is used.

Checkpoint, weights and result of the folder carry the digest of that file's content, so that
nothing of another stage, run or dataset is taken for a part of this one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fastssd.core.files import CHECKSUM, check_seal, seal, write_atomically
from fastssd.core.reading import parse_json, read_bytes, reading, value_at
from fastssd.data.identity import DatasetIdentity, digest_of
from fastssd.errors import ConfigError
from fastssd.evaluation.results import GRAPH_FILE, RESULT, read_stage
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph, Stage, differences
from fastssd.training.checkpoints import WEIGHTS

STAGE_FILE = "stage.json"
VERSION = 2
"""Of what `stage.json` says. 1 was that of fixed stages, before methods were files."""

_STARTED_ANEW = ("metrics.jsonl", "trace.jsonl")
"""Files of a stage's folder that nothing is taken from where there is no checkpoint."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage is trained by.

    Attributes:
        recipe: Its identity in the graph, as JSON has it (`fastssd.runtime.identity`).
        dataset: The images, labels and classes.
        weights: SHA-256 of the weights that it stands on, by the folder of the stage they are of.
    """

    recipe: Mapping[str, Any]
    dataset: DatasetIdentity
    weights: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it; its checkpoints, weights and result carry it."""
        return digest_of(
            {"recipe": self.recipe, "dataset": self.dataset.digest, "weights": self.weights}
        )

    def differences(self, other: "StageRecord") -> list[str]:
        """Return what another record has otherwise, weights aside, a phrase each."""
        found = [
            *differences(_settings(self.recipe), _settings(other.recipe)),
            *(f"of the dataset {each}" for each in self.dataset.differences(other.dataset)),
        ]
        if not found and self.recipe != other.recipe:  # else they have the same reasons
            names = {**self.recipe.get("sources", {}), **other.recipe.get("sources", {})}
            found = [f"the {role} that it stands on was another" for role in names]
        return found or (["its table was another"] if self.recipe != other.recipe else [])


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's own settings, without the digests of what it stands on."""
    return {
        key: value for key, value in recipe.items() if key not in ("sources", "table", "dataset")
    }


def wanted_record(stage: Stage, context: Context) -> StageRecord:
    """Return what a stage of this run is trained by, the weights that it stands on left out."""
    as_read_back = json.loads(json.dumps(stage.identity))
    return StageRecord(recipe=as_read_back, dataset=context.dataset.identity)


def standing_record(stage: Stage, context: Context) -> StageRecord:
    """Return what a stage is trained by, now that its sources are finished.

    Raises:
        DataError: If a source's result is missing or damaged.
    """
    weights = {}
    for source in stage.sources.values():
        result = read_stage(context.output / source.folder / RESULT)
        weights[source.folder] = result.files.get(WEIGHTS[stage.weights], "")
    return replace(wanted_record(stage, context), weights=weights)


def read_record(folder: Path) -> StageRecord | None:
    """Return what a stage's folder says that it was trained by; None if it says nothing.

    Raises:
        ConfigError: If another version of fastssd wrote it.
        DataError: If it is damaged, or can't be read.
    """
    path = folder / STAGE_FILE
    with reading(path, f"delete {folder} to train the stage again"):
        if not path.exists():
            return None
        content = parse_json(read_bytes(path), dict)
        check_seal(content)
        if CHECKSUM not in content:
            raise ValueError("it has no checksum")
        version = content["version"]
        if version == VERSION:
            return StageRecord(
                recipe=dict(content["recipe"]),
                dataset=DatasetIdentity.from_json(content["dataset"]),
                weights=dict(content["weights"]),
            )
    raise ConfigError(
        f"{path} is of version {version}, but this fastssd reads version {VERSION}: continue the "
        "run with the fastssd that began it, or choose another output"
    )


def write_record(folder: Path, record: StageRecord) -> None:
    """Write `stage.json`, before anything else that later starts would use.

    Raises:
        DataError: If it can't be written.
    """
    content = {
        "version": VERSION,
        "recipe": record.recipe,
        "weights": record.weights,
        "dataset": record.dataset.to_json(),
    }
    write_atomically(folder / STAGE_FILE, seal(content))


def write_graph(output: Path, graph: Graph) -> None:
    """Write `graph.json`: the stages of this run, then those that earlier commands left here.

    Raises:
        DataError: If the file that is there is damaged, or it can't be written.
    """
    path, entries = output / GRAPH_FILE, graph.as_json()["stages"]
    known = [(entry["method"], entry["stage"], entry["seed"]) for entry in entries]
    if path.exists():
        with reading(path, "delete it: the next start of the run writes it again"):
            for entry in value_at(parse_json(read_bytes(path), dict), "stages", list):
                if (entry["method"], entry["stage"], entry["seed"]) not in known:
                    entries.append(entry)
    write_atomically(path, json.dumps({"stages": entries}, indent=1) + "\n")


def check_folders(graph: Graph, context: Context) -> None:
    """Check that what the run directory holds of stages was trained by what this run would.

    Raises:
        ConfigError: Naming the stages that were trained otherwise, and what differs; or if a
            stage's folder doesn't say, as those of earlier versions.
        DataError: If a folder can't be read.
    """
    others: dict[str, list[str]] = {}
    for stage in graph.stages:
        folder = context.output / stage.folder
        with reading(folder):
            if not folder.exists():
                continue
            is_folder = folder.is_dir()
            names = {e.name for e in folder.iterdir() if e.name[0] != "."} if is_folder else set()
        if not is_folder:
            raise ConfigError(f"{folder} is a file where a stage's folder belongs: remove it")
        found = read_record(folder)
        if found is not None:
            phrases = found.differences(wanted_record(stage, context))
            if phrases:
                others.setdefault("; ".join(phrases), []).append(stage.folder)
        elif names - {*_STARTED_ANEW}:
            raise ConfigError(
                f"{folder} has no {STAGE_FILE}, which says what the stage was trained by: an "
                "earlier version of fastssd wrote the folder, or the file was deleted. Continue "
                "the run with that version, choose another output, or delete the folder to train "
                "the stage again"
            )
    if others:
        told = [f"{', '.join(folders)}: {phrases}" for phrases, folders in others.items()]
        raise ConfigError(
            f"{context.output} holds stages of these names that were trained otherwise than this "
            "command would:",
            *told,
            "Choose another output, give a variant another name, or delete the folders to train "
            "these stages again",
        )
