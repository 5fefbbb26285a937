"""Which files are the parts of one dataset: what the user named, and its siblings by name."""

from pathlib import Path

from fastssd.data.sources.source import TEST, TRAIN, VAL, SourceOptions
from fastssd.errors import ConfigError


def find_parts(train: Path, options: SourceOptions) -> tuple[dict[str, Path], list[str]]:
    """Return the files of a dataset's parts.

    Those that the options name; or, where they name none, the files beside the training file that
    are called like it with ``val`` or ``test`` in place of ``train``.

    Args:
        train: The training part.
        options: What the user said.

    Returns:
        Paths by split, and notes that name the siblings that were found.

    Raises:
        ConfigError: If a named file does not exist.
    """
    parts = {TRAIN: train}
    named = {VAL: options.val, TEST: options.test}
    for split, text in named.items():
        if text is not None:
            if not Path(text).exists():
                raise ConfigError(f"--{split} {text}: there is no such file")
            parts[split] = Path(text)
    notes = []
    if not any(named.values()) and train.name.count(TRAIN) == 1:
        for split in (VAL, TEST):
            sibling = train.with_name(train.name.replace(TRAIN, split))
            if sibling.exists():
                parts[split] = sibling
                notes.append(f"{sibling} is taken as the {split} split")
    return parts, notes


def training_file(origin: str, pattern: str, what: str) -> Path:
    """Return the training part that `origin` names: a file, or the only one of a folder.

    Args:
        origin: What the user named.
        pattern: How training files are called within a folder.
        what: What is looked for, for messages.

    Raises:
        ConfigError: If there is none, or the folder holds several.
    """
    path = Path(origin)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"SOURCE {origin}: there is no such {what}")
    found = sorted(path.glob(pattern))
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:5]) or "none"
        raise ConfigError(
            f"SOURCE {origin}: expected is one {what} called {pattern}, found: {listed}; name it"
        )
    return found[0]


def has_one(path: Path, pattern: str) -> bool:
    """Return whether a folder holds exactly one training part called like the pattern."""
    return path.is_dir() and len(list(path.glob(pattern))) == 1
