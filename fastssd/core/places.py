"""Where runs and datasets may be written: not into each other, nor into what they are made from."""

from pathlib import Path

from fastssd.errors import ConfigError

_SHOWN = 60


def usable(path: Path, key: str) -> Path:
    """Return a path as the file system has it, whether something is there or not.

    Args:
        path: What a person named.
        key: Where they did, for the message, such as ``output=``.

    Raises:
        ConfigError: If no file or folder can have it for its name.
    """
    try:
        with_name = path.absolute()
        with_name.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a NUL
        shown = str(path) if len(str(path)) <= _SHOWN else f"{str(path)[:_SHOWN]}..."
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{key}{shown!r} can't be used: {reason}") from error
    return with_name.resolve()


def dataset_around(path: Path) -> Path | None:
    """Return the dataset directory that a path is or lies in, if there is one."""
    for folder in (path, *path.parents):
        if (folder / "meta.json").is_file() and any(folder.glob("*.labels.npy")):
            return folder
    return None


def run_around(path: Path) -> Path | None:
    """Return the run directory that a path is or lies in, if there is one."""
    return next((folder for folder in (path, *path.parents) if _is_run(folder)), None)


def check_output(output: Path, data: Path) -> None:
    """Check that a run directory is no part of a dataset, of another run, or the other way round.

    Args:
        output: The run directory, maybe not there yet.
        data: The run's dataset directory.

    Raises:
        ConfigError: If it is; naming both.
    """
    place, source = usable(output, "output="), usable(data, "data.path=")
    rule = (
        "runs and datasets need directories of their own, since to convert a dataset again deletes "
        "all that is in its directory: choose another output"
    )
    if relation := _relation(place, source):
        raise ConfigError(f"output={output} {relation} the dataset directory {data}: {rule}")
    if dataset := dataset_around(place):
        raise ConfigError(f"output={output} lies in the dataset directory {dataset}: {rule}")
    if run := run_around(place.parent):
        raise ConfigError(
            f"output={output} lies in the directory of another run, {run}: choose another output"
        )
    if place.is_dir() and not _is_run(place):
        for entry in place.iterdir():
            if entry.is_dir() and _is_run(entry):
                raise ConfigError(
                    f"output={output} holds other runs' directories, such as {entry.name}: name "
                    f"one for this run, such as {output / 'NAME'}"
                )


def check_out(out: Path, source: str | Path | None = None) -> None:
    """Check that a dataset directory to be made is no part of a run, a dataset or its own source.

    Args:
        out: The directory.
        source: What the conversion reads; a folder, or anything else.

    Raises:
        ConfigError: If it is; naming both.
    """
    place = usable(out, "OUT ")
    if out.name in ("", ".."):
        raise ConfigError(f"OUT {out}: name the directory itself, such as {place}")
    if run := run_around(place):
        raise ConfigError(f"OUT {out} {_is_or_in(place, run)} the run directory {run}: {_OTHER}")
    if dataset := dataset_around(place.parent):
        raise ConfigError(f"OUT {out} lies in the dataset directory {dataset}: {_OTHER}")
    try:
        folder = Path(source).resolve() if source and Path(source).is_dir() else None
    except (OSError, ValueError):  # not a path
        return
    if folder and (relation := _relation(place, folder)):
        raise ConfigError(
            f"OUT {out} {relation} SOURCE {source}: the next conversion would take one for a part "
            f"of the other, or delete it; {_OTHER}"
        )


_OTHER = "choose another OUT"


def _is_run(folder: Path) -> bool:
    marks = (folder / name for name in (".lock", "status.json"))
    return (folder / "config.yaml").is_file() and any(mark.is_file() for mark in marks)


def _relation(one: Path, other: Path) -> str:
    """Return how one folder stands to another, in words; empty if neither is in the other."""
    if one in other.parents:
        return "holds"
    return _is_or_in(one, other) if one == other or other in one.parents else ""


def _is_or_in(one: Path, other: Path) -> str:
    return "is" if one == other else "lies in"
