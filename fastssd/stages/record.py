"""What a stage was trained by: noted in its folder's `stage.json`, compared before it is used.

Checkpoint, weights and result of the folder carry the digest of that file's content, so that
nothing of another stage, run or dataset is taken for a part of this one.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fastssd.checkpoints import WEIGHTS
from fastssd.data.decode.decoders import FFCV
from fastssd.data.identity import DatasetIdentity, digest_of
from fastssd.errors import ConfigError
from fastssd.evaluation.results import RESULT, read_stage
from fastssd.files import CHECKSUM, check_seal, seal, write_atomically
from fastssd.reading import parse_json, read_bytes, reading, value_at
from fastssd.stages.context import Context
from fastssd.stages.jobs import Job, all_jobs
from fastssd.stages.tables import num_shared_views

STAGE_FILE = "stage.json"
VERSION = 1
"""Of what `stage.json` says."""

_NEVER_DECIDES = {
    "data": ("path", "decoder", "threads", "prefetch", "read_ahead", "timeout"),
    "evaluation": ("batch_size",),
}
"""Keys of the config that results do not depend on, or that the record has in another form."""

_STARTED_ANEW = ("metrics.jsonl", "trace.jsonl")
"""Files of a stage's folder that nothing is taken from where there is no checkpoint."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a stage is trained by.

    Attributes:
        recipe: Its settings as JSON has them; what a config leaves at its default is left out, so
            that a later version's new key changes no record.
        dataset: The images, labels and classes.
        weights: SHA-256 of the weights that it stands on, by the folder of the stage they are of.
    """

    recipe: Mapping[str, Any]
    dataset: DatasetIdentity
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of what is known of the stage before any is trained."""
        return digest_of({"recipe": self.recipe, "dataset": self.dataset.digest})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it; its checkpoints, weights and result carry it."""
        return digest_of({"identity": self.identity, "weights": self.weights})

    def differences(self, other: "StageRecord") -> list[str]:
        """Return what another record has otherwise, weights aside, a phrase each."""
        found = [
            *_setting_differences(self.recipe, other.recipe),
            *(f"of the dataset {each}" for each in self.dataset.differences(other.dataset)),
        ]
        was, now = self.recipe.get("sources", {}), other.recipe.get("sources", {})
        if not found and was != now:  # else they have the same reasons, which are told
            found = [f"the stage that it stands on, {source}, was another" for source in now]
        return found


def wanted_record(job: Job, context: Context) -> StageRecord:
    """Return what a stage of this run is trained by, the weights that it stands on left out."""
    sources = {}
    if job.source is not None:
        source = next(each for each in all_jobs(context.config) if each.folder == job.source)
        sources[job.source] = wanted_record(source, context).identity
    recipe: dict[str, Any] = {
        "stage": _changed(job, but=("stage", "rows", "source")),
        **_settings(job, context),
        "sources": sources,
    }
    # As it is read back: tuples are lists there.
    as_read_back = json.loads(json.dumps({key: value for key, value in recipe.items() if value}))
    return StageRecord(recipe=as_read_back, dataset=context.dataset.identity)


def standing_record(job: Job, context: Context) -> StageRecord:
    """Return what a stage is trained by, now that its source is finished.

    Raises:
        DataError: If the source's result is missing or damaged.
    """
    weights = {}
    if job.source is not None:
        result = read_stage(context.output / job.source / RESULT)
        weights[job.source] = result.files.get(WEIGHTS["last"], "")
    return dataclasses.replace(wanted_record(job, context), weights=weights)


def read_record(folder: Path) -> StageRecord | None:
    """Return what a stage's folder says that it was trained by; None if it says nothing.

    Raises:
        ConfigError: If a later version of fastssd wrote it.
        DataError: If it is damaged, or can't be read.
    """
    path = folder / STAGE_FILE
    with reading(path, f"delete {folder} to train the stage again"):
        if not path.exists():
            return None
        content: dict[str, Any] = parse_json(read_bytes(path), dict)
        check_seal(content)
        value_at(content, CHECKSUM, str)
        if content["version"] != VERSION:
            raise ConfigError(
                f"{path} is of version {content['version']}, but this fastssd reads version "
                f"{VERSION}: continue the run with the fastssd that began it, or choose another "
                "output"
            )
        return StageRecord(
            recipe=value_at(content, "recipe", dict),
            dataset=DatasetIdentity.from_json(value_at(content, "dataset", dict)),
            weights=value_at(content, "weights", dict),
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


def check_folders(context: Context) -> None:
    """Check that what the run directory holds of stages was trained by what this run would.

    Raises:
        ConfigError: Naming the stages that were trained otherwise, and what differs; or if a
            stage's folder doesn't say, as those of earlier versions.
        DataError: If a folder can't be read.
    """
    others: dict[str, list[str]] = {}
    for job in all_jobs(context.config):
        folder = context.output / job.folder
        with reading(folder):
            if not folder.exists():
                continue
            if not folder.is_dir():
                raise ConfigError(f"{folder} is a file where a stage's folder belongs: remove it")
            names = {entry.name for entry in folder.iterdir() if entry.name[0] != "."}
        found = read_record(folder)
        if found is not None:
            phrases = found.differences(wanted_record(job, context))
            if phrases:
                others.setdefault("; ".join(phrases), []).append(job.folder)
        elif names - {*_STARTED_ANEW}:
            raise ConfigError(
                f"{folder} has no {STAGE_FILE}, which says what the stage was trained by: an "
                "earlier version of fastssd wrote the folder, or the file was deleted. Continue "
                "the run with that version, choose another output, or delete the folder to train "
                "the stage again"
            )
    if others:
        told = "; and ".join(f"{', '.join(them)}: {phrases}" for phrases, them in others.items())
        raise ConfigError(
            f"{context.output} holds stages that were trained otherwise than this command would: "
            f"{told}. Choose another output, or delete {context.output} to train all of it again"
        )


def _settings(job: Job, context: Context) -> dict[str, Any]:
    """Return all keys of the config that decide a stage's result, by section."""
    config = context.config
    section = getattr(config, job.kind)
    of_kind: dict[str, Any] = {job.kind: _changed(section, but=("task",))}
    if job.kind != "features":
        of_kind["frozen"] = _changed(config.frozen)
        if job.kind == "distill" or job.shares_views:
            of_kind["frozen"]["views"] = num_shared_views(context)
    # Of `auto` the one that was found: others' pixels differ by some grey levels.
    decoder = FFCV if config.data.decoder == FFCV else context.decoder.name
    return {
        **of_kind,
        "model": _changed(config.model),
        "augment": _changed(config.augment, but=() if job.task == "instance" else ("key",)),
        "data": {**_changed(config.data, but=_NEVER_DECIDES["data"]), "decoder": decoder},
        "evaluation": _changed(config.evaluation, but=_NEVER_DECIDES["evaluation"]),
        "run": {
            "seed": config.seed,
            "precision": config.precision,
            "deterministic": config.deterministic,
        },
    }


def _changed(section: Any, but: tuple[str, ...] = ()) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Return the keys of a section of the config that are not at their defaults."""
    changed = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.name not in but and value != default:
            changed[field.name] = value
    return changed


def _setting_differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for section in {**was, **now}:
        old, new = was.get(section, {}), now.get(section, {})
        for key in {**old, **new} if section != "sources" else ():
            if old.get(key) != new.get(key):
                name = key if section == "run" else f"{section}.{key}"
                yield f"{name} was {_told(old, key)}, now {_told(new, key)}"


def _told(section: Mapping[str, Any], key: str) -> str:
    return str(section[key]) if key in section else "the default"
