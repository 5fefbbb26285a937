"""The classes of one dataset in terms of another's: matched by name, or by a file of names."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastssd.core.reading import read_text
from fastssd.errors import ConfigError

_SHOWN = 5


@dataclass(frozen=True)
class ClassMatch:
    """What a dataset's labels are called where a network was trained.

    Attributes:
        labels: (C here,) int64, the network's label for each of the dataset's.
        note: What a person should know of it; empty where both have the same list.
    """

    labels: NDArray[np.int64]
    note: str


def match_classes(
    here: Sequence[str], trained: Sequence[str], mapping: Mapping[str, str] | None = None
) -> ClassMatch:
    """Match a dataset's classes with those that a network was trained on.

    Args:
        here: Names of the dataset's classes, in the order of its labels.
        trained: Names of the network's, in the order of its own.
        mapping: The network's name for some of the dataset's; others stand for themselves. Two of
            the dataset's may have the same.

    Raises:
        ConfigError: If a class has no name among the network's, or a name is not the only one of
            its kind; naming those.
    """
    mapping = mapping or {}
    if list(here) == list(trained) and not mapping:
        return ClassMatch(np.arange(len(trained), dtype=np.int64), "")
    for whose, names in (("the dataset", here), ("the run", trained)):
        if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
            raise ConfigError(
                f"{whose} has several classes of one name ({_listed(repeated)}), so that they "
                "can't be matched by name"
            )
    if unknown := sorted(mapping.keys() - set(here)):
        raise ConfigError(f"the class map has names that the dataset has not: {_listed(unknown)}")
    label_of = {name: label for label, name in enumerate(trained)}
    wanted = [mapping.get(name, name) for name in here]
    foreign = [name for name in wanted if name not in label_of]
    there = set(wanted)
    absent = [name for name in trained if name not in there]
    if foreign:
        only_trained = f"; only the run has {_listed(absent)}" if absent else ""
        raise ConfigError(
            f"{len(foreign)} of the dataset's {len(here)} classes are none of the {len(trained)} "
            f"that the run was trained on: only the dataset has {_listed(foreign)}{only_trained}. "
            "Where they are the same classes by other names, map them with --class-map FILE; else "
            "convert a dataset of the run's classes alone"
        )
    note = "the dataset's classes are matched with the run's by name"
    if absent:
        note += (
            f"; it has {len(trained) - len(absent)} of the run's {len(trained)} classes: they are "
            f"measured, with predictions among all {len(trained)} (not there: {_listed(absent)})"
        )
    return ClassMatch(np.array([label_of[name] for name in wanted], dtype=np.int64), note)


def read_class_map(path: Path) -> dict[str, str]:
    """Return a file's map from a dataset's class names to a run's.

    Args:
        path: JSON, an object of names; or CSV without a header, two columns.

    Raises:
        ConfigError: If it can't be read or is something else.
    """
    try:
        text = read_text(path, encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            pairs = list(json.loads(text, object_pairs_hook=list))
        else:
            pairs = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except (OSError, ValueError, TypeError, csv.Error, RecursionError) as error:
        raise ConfigError(f"--class-map {path}: can't be read: {error}") from error
    mapping: dict[str, str] = {}
    for number, pair in enumerate(pairs, start=1):
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not (is_pair and all(isinstance(name, str) for name in pair)):
            raise ConfigError(
                f"--class-map {path}: entry {number} is not two names, the dataset's and the run's"
            )
        if mapping.setdefault(pair[0], pair[1]) != pair[1]:
            raise ConfigError(f"--class-map {path}: {pair[0]!r} is mapped twice")
    if not mapping:
        raise ConfigError(f"--class-map {path}: it maps no name")
    return mapping


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
