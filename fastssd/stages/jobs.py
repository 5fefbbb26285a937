"""Which stages a config asks for, in order: data that says who stands on whom."""

from dataclasses import dataclass, replace
from typing import Literal

from fastssd.config import Config


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stage of a run.

    Attributes:
        folder: Its folder in the run directory.
        kind: What is done; the key of its builder.
        stage: The paper's number, None for a baseline.
        rows: The report's name of each head.
        source: Folder of the job whose network it freezes; None starts from random weights.
        task: Self-supervised task of a `features` job.
        head: Head of the source that a `balance` job rescales.
        shares_views: Whether a `balance` job learns from the views that stage III will see.
    """

    folder: str
    kind: Literal["features", "balance", "distill"]
    stage: str | None
    rows: dict[str, str]
    source: str | None = None
    task: Literal["none", "rotation", "instance"] = "none"
    head: Literal["classifier", "hard"] = "classifier"
    shares_views: bool = False


def jobs_of(config: Config) -> list[Job]:
    """Return the stages of a run, each after those that it stands on."""
    ssd = {
        "I": Job(
            folder="1-features",
            kind="features",
            stage="I",
            rows={"classifier": "SSD I"},
            task=config.features.task,
        ),
        "II": Job(
            folder="2-balance",
            kind="balance",
            stage="II",
            rows={"classifier": "SSD II"},
            source="1-features",
            shares_views=True,
        ),
        "III": Job(
            folder="3-distill",
            kind="distill",
            stage="III",
            rows={"hard": "SSD III-hard", "soft": "SSD III-soft"},
            source="2-balance",
        ),
        "IV": Job(
            folder="4-balance",
            kind="balance",
            stage="IV",
            rows={"hard": "SSD IV"},
            source="3-distill",
            head="hard",
        ),
    }
    baselines = {
        "CE": Job(folder="baseline-ce", kind="features", stage=None, rows={"classifier": "CE"}),
        "LWS": Job(
            folder="baseline-lws",
            kind="balance",
            stage=None,
            rows={"classifier": "LWS"},
            source="baseline-ce",
        ),
    }
    return [*(ssd[name] for name in config.stages), *(baselines[name] for name in config.baselines)]


def all_jobs(config: Config) -> list[Job]:
    """Return every stage that a run with these settings could have, asked for or not."""
    return jobs_of(replace(config, stages=["I", "II", "III", "IV"], baselines=["CE", "LWS"]))
