"""Which folder, shard or value of a column is which split: told by its name, or by the user."""

import re
from collections.abc import Iterable, Mapping, Sequence

from fastssd.data.sources.source import SPLITS, TEST, TRAIN, VAL
from fastssd.errors import ConfigError

USUAL = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What splits are usually called, in any case of the letters."""

_EITHER = frozenset({"eval", "evaluation", "holdout", "heldout"})  # validation or test: who knows
# Words that say nothing of a class: `train_images` is no class, `bullet_train` may be one.
_FILLERS = re.compile(
    "(?:image|img|photo|picture|sample|file|part|split|set|data|dataset|folder)s?|"
    "jpe?g|png|raw|new|final"
)
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NAME = re.compile("|".join(sorted(USUAL, key=len, reverse=True)))
_NAMES = re.compile(f"(?:{_NAME.pattern})+")
_SHOWN = 8


def parse_split_names(texts: Iterable[str]) -> dict[str, str]:
    """Read ``SPLIT=NAME`` pairs, several of them in one text with commas between.

    Returns:
        Names by split.

    Raises:
        ValueError: If one is no such pair, or a split or a name is there twice.
    """
    names: dict[str, str] = {}
    for text in texts:
        # A comma may be part of a folder's name; one before `train=` is not.
        for pair in re.split(f",(?=(?:{'|'.join(SPLITS)})=)", text):
            split, equals, name = pair.partition("=")
            if split not in SPLITS or not equals or not name:
                raise ValueError(
                    f"{pair!r} is not SPLIT=NAME with one of {', '.join(SPLITS)} as SPLIT"
                )
            if split in names or name in names.values():
                raise ValueError(f"{pair!r}: this split or this name is there twice")
            names[split] = name
    if TRAIN not in names:
        raise ValueError(f"say which part is {TRAIN} too: {TRAIN}=NAME")
    return names


def usual_split(name: str) -> str | None:
    """Return the split that is usually called so, if there is one."""
    return USUAL.get(name.strip().lower())


def splits_in(name: str) -> frozenset[str]:
    """Return the splits that a name speaks of: both of ``trainval``, one of ``latest-train``."""
    found: set[str] = set()
    for word in _words(name):
        if _NAMES.fullmatch(word):
            found.update(USUAL[part] for part in _NAME.findall(word))
        elif word in _EITHER:
            found.update((VAL, TEST))
    return frozenset(found)


def is_like_a_split(name: str) -> bool:
    """Return whether a name speaks of splits and of nothing that could be a class."""
    rest = [word for word in _words(name) if not splits_in(word)]
    return bool(splits_in(name)) and all(_FILLERS.fullmatch(word) for word in rest)


def choose_splits(
    names: Sequence[str], wanted: Mapping[str, str] | None, *, where: str, exact: bool
) -> tuple[dict[str, list[str]], list[str]]:
    """Decide which name is which split.

    Args:
        names: The names of what there is: folders, shards, values of a column.
        wanted: Names by split, if the user said.
        where: What has these names, for messages.
        exact: Whether a split must be called exactly by one of its usual names, and other names
            are of other things. Otherwise every name is of some split: the one that it speaks of,
            or the training split where no name speaks of any.

    Returns:
        Names by split, and the names that are left.

    Raises:
        ConfigError: If there are two readings, or a wanted name is not there.
    """
    if wanted is not None:
        for split, name in wanted.items():
            if name not in names:
                raise ConfigError(f"--split-names {split}={name}: {where} has {_listed(names)}")
        chosen = {split: [name] for split, name in wanted.items()}
        return chosen, [name for name in names if name not in wanted.values()]
    spoken = {name: splits_in(name) for name in names}
    if not exact and not any(spoken.values()):
        return {TRAIN: list(names)}, []
    splits: dict[str, list[str]] = {}
    left: list[str] = []
    for name in names:
        usual = usual_split(name)
        if not exact and len(spoken[name]) == 1:
            usual = next(iter(spoken[name]))
        if usual is None:
            left.append(name)
        else:
            splits.setdefault(usual, []).append(name)
    for usual, several in splits.items():
        if len(several) > 1:
            raise unclear(where, f"{_listed(several)} could each be the {usual} split", several[0])
    for name in left:
        if spoken[name] or not exact:
            raise unclear(where, f"it cannot be told which split {name!r} is, if any", name)
    return {split: splits[split] for split in SPLITS if split in splits}, left


def unclear(where: str, reason: str, example: str) -> ConfigError:
    """Return the question that a source of two readings asks."""
    return ConfigError(
        f"{where}: {reason}; say what is what with --split-names, such as --split-names "
        f"{TRAIN}={example}, and also {VAL}=NAME and {TEST}=NAME; what is not named is left out"
    )


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more if names else "none"
