"""Check that every file of a dataset directory is the one that its conversion wrote.

    python tools/check_dataset.py DATASET

Training compares all sizes and the content of small files; this compares everything, as after
copying a dataset to another disk.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __spec__ is None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastssd.core import streams
from fastssd.core.untrusted import error_for_terminal, for_terminal
from fastssd.data.checksums import FILES, damaged_files
from fastssd.data.dataset import open_dataset
from fastssd.errors import DataError, FastssdError


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line names, and return the exit code of the contract."""
    streams.prepare()
    parser = argparse.ArgumentParser(
        prog="check_dataset", description="Compare a dataset's files with their checksums."
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    options = parser.parse_args(arguments)
    try:
        meta = open_dataset(options.dataset).meta
    except FastssdError as error:
        streams.tell(f"check_dataset: {error_for_terminal(error)}")
        return error.exit_code
    problems = list(damaged_files(options.dataset, meta, whole=True))
    for problem in problems:
        streams.tell(f"check_dataset: {for_terminal(problem)}")
    if problems:
        return DataError.exit_code
    files, name = meta.get(FILES), for_terminal(options.dataset)
    if not files:
        streams.show(f"{name}: an older conversion, which noted no checksums: convert it again")
        return 0
    size = sum(file["bytes"] for file in files.values())
    streams.show(f"{name}: {len(files)} files, {size:,} bytes, all as they were written")
    return 0


if __name__ == "__main__":
    sys.exit(streams.finish(main()))
