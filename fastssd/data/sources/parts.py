"""Which files are the parts of one dataset: what the user named, and its siblings by name."""

import re
from pathlib import Path

from fastssd.data.sources.image_files import names_in
from fastssd.data.sources.source import TEST, TRAIN, VAL, SourceOptions
from fastssd.data.sources.split_names import splits_in, usual_split
from fastssd.errors import ConfigError

_TRAIN_WORD = re.compile("training|train", re.IGNORECASE)
_SHOWN = 5


def find_parts(train: Path, options: SourceOptions) -> tuple[dict[str, Path], list[str]]:
    """Return the files of a dataset's parts.

    Those that the options name; or, where they name none, the files beside the training file that
    are called like it, with a usual name of the validation or test split in place of ``train``.

    Args:
        train: The training part.
        options: What the user said.

    Returns:
        Paths by split, and notes that name the siblings that were found, and those that speak of a
        split too and were not taken.

    Raises:
        ConfigError: If a named file does not exist, or two siblings could be one split.
    """
    parts = {TRAIN: train}
    named = {VAL: options.val, TEST: options.test}
    for split, text in named.items():
        if text is not None:
            if not Path(text).exists():
                raise ConfigError(f"--{split} {text}: there is no such file")
            parts[split] = Path(text)
    if any(named.values()):
        return parts, []
    siblings = names_in(train.parent)
    found: dict[str, list[Path]] = {}
    for sibling in siblings:
        beside = _split_beside(train.name, sibling)
        if beside in named and train.with_name(sibling).is_file():
            found.setdefault(beside, []).append(train.with_name(sibling))
    notes = []
    for split in (VAL, TEST):
        paths = found.get(split, [])
        if len(paths) > 1:
            listed = " or ".join(str(path) for path in paths)
            raise ConfigError(f"{train}: the {split} split could be {listed}: say which, --{split}")
        for path in paths:
            parts[split] = path
            notes.append(f"{path} is taken as the {split} split")
    aside = [
        sibling
        for sibling in siblings
        if Path(sibling).suffix.lower() == train.suffix.lower()
        and splits_in(Path(sibling).stem)
        and train.with_name(sibling) not in parts.values()
    ]
    if aside:
        listed = ", ".join(aside[:_SHOWN]) + (", ..." if len(aside) > _SHOWN else "")
        notes.append(f"not used, beside {train}: {listed}; --{VAL} and --{TEST} name other parts")
    return parts, notes


def _split_beside(train: str, sibling: str) -> str:
    """Return the split of a file called like the training file but for ``train``; or nothing."""
    for word in _TRAIN_WORD.finditer(train):
        before, after = train[: word.start()], train[word.end() :]
        if sibling.startswith(before) and sibling.endswith(after):
            return usual_split(sibling[len(before) : len(sibling) - len(after)]) or ""
    return ""


def training_file(origin: str, suffix: str, what: str) -> Path:
    """Return the training part that `origin` names: a file, or the only one of a folder.

    Args:
        origin: What the user named.
        suffix: Of such files, in any case of the letters.
        what: What is looked for, for messages.

    Raises:
        ConfigError: If there is none, or the folder holds several.
    """
    path = Path(origin)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"SOURCE {origin}: there is no such {what}")
    found = _training_files(path, suffix)
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:_SHOWN]) or "none"
        raise ConfigError(
            f"SOURCE {origin}: expected is one {what} for training, such as {TRAIN}{suffix}, "
            f"found: {listed}; name it"
        )
    return found[0]


def is_part(path: Path, suffix: str) -> bool:
    """Return whether a path is such a file, or a folder with exactly one of them for training."""
    if path.is_dir():
        return len(_training_files(path, suffix)) == 1
    return path.is_file() and path.suffix.lower() == suffix


def _training_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder that speak of the training split."""
    files = [folder / name for name in names_in(folder) if name.lower().endswith(suffix)]
    return [file for file in files if TRAIN in splits_in(file.stem)]
