"""Making a table: one pass of a frozen network over draws, written by all processes at once.

The rows are cut into blocks. A block counts once it is on the disk and in its process's journal,
so a killed pass goes on at the first block that is missing, with any number of processes.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastssd.core.files import writing
from fastssd.data.draws import Draws
from fastssd.data.sharding import contiguous_share
from fastssd.errors import ConfigError, DataError, FastssdError
from fastssd.tables.audit import audit, library_versions
from fastssd.tables.files import TableFiles
from fastssd.tables.journal import (
    Finished,
    Journal,
    read_journals,
    remove_journals,
    replace_journals,
)
from fastssd.tables.manifest import (
    MANIFEST,
    UNFINISHED,
    Manifest,
    check_manifest,
    found_manifest,
    version_changes,
    write_manifest,
)
from fastssd.tables.reader import Reader
from fastssd.tables.rows import Rows
from fastssd.tables.stores import Store
from fastssd.tables.table import Table, table_files

_BLOCK_BYTES = 1 << 23
_BLOCK_BATCHES = 16
"""A block is of about so many bytes, but of no more batches: what a kill costs at most."""
_AUDITED_ROWS = 64


def tabulated(
    directory: Path, store: Store, rows: Rows, *, reader: Reader, about: Manifest
) -> Table:
    """Return the table of a frozen network's answers; what is missing or damaged of it is made.

    All processes call it. Blocks that are on the disk are kept if their checksums are right.

    Args:
        directory: The table's.
        store: The network and what is kept of its answers.
        rows: The draws to tabulate.
        reader: Of their images.
        about: What else the rows depend on, with the run's `seed`.

    Raises:
        DataError: If there is a table of something else, finished or not, or one that other
            library versions made and that these contradict.
        ConfigError: If an answer does not fit the table's type.
        FastssdError: If an answer is not finite in any type.
    """
    wanted = wanted_manifest(store, rows, about)
    found, is_finished = found_manifest(directory)
    if found is not None:
        check_manifest(directory, found, wanted)
    manifest = {"block_rows": _block_rows(store, reader), **wanted}
    if found is not None:
        manifest = {**manifest, "block_rows": found["block_rows"], "versions": found["versions"]}
    files = table_files(directory, manifest)
    good = _good_blocks(files, found, is_finished, reader)
    if not (is_finished and len(good) == files.num_blocks):
        if reader.processes.is_main:
            _begin(files, manifest, good)
        reader.processes.barrier()
        missing = [block for block in range(files.num_blocks) if block not in good]
        _fill(files, store, rows, missing, reader)
        reader.processes.stop_if_asked()
        reader.processes.barrier()
        if reader.processes.is_main:
            _finish(files, manifest)
        reader.processes.barrier()
    table = Table(directory, rows)
    if changes := version_changes(manifest, wanted):
        difference = audit(table, store, _AUDITED_ROWS, reader=reader, seed=int(about["seed"]))
        if reader.processes.is_main:
            warnings.warn(
                f"{directory} was made with {', '.join(changes)}: the network was asked again "
                f"about {_AUDITED_ROWS} rows; {difference}",
                stacklevel=2,
            )
        difference.check(directory)
    return table


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state, names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def in_order(rows: Rows, blocks: Sequence[range], batch_size: int) -> Iterator[Draws]:
    """Yield the draws of blocks of rows in batches, none of which reaches into the next block.

    So what a block holds depends neither on where a pass began nor on who made the others.
    """
    for block in blocks:
        for start in range(block.start, block.stop, batch_size):
            yield rows.draws(np.arange(start, min(start + batch_size, block.stop), dtype=np.int64))


def _good_blocks(
    files: TableFiles, found: Manifest | None, is_finished: bool, reader: Reader
) -> Finished:
    """Return the blocks that are on the disk as they should be; each process checks its share."""
    noted: Finished = {}
    if found is not None and not (problem := files.problem()):
        if is_finished:
            names = [column.name for column in files.columns]
            sums = zip(*(found["checksums"][name] for name in names), strict=True)
            noted = {b: dict(zip(names, of, strict=True)) for b, of in enumerate(sums)}
        else:
            noted = read_journals(files.directory, files.num_blocks)
    elif found is not None and reader.processes.is_main:
        warnings.warn(f"{problem}: the table is made again", stacklevel=3)
    workers = reader.workers
    share = contiguous_share(len(noted), rank=workers.rank, num_processes=workers.num_processes)
    mine = sorted(noted)[share]
    is_good, is_noted = torch.zeros(2, files.num_blocks, dtype=torch.int64).unbind()
    is_noted[list(noted)] = 1
    with ThreadPoolExecutor(workers.threads, thread_name_prefix="fastssd-table") as pool:
        for block, damage in zip(
            mine, pool.map(lambda block: files.damaged(block, noted[block]), mine), strict=True
        ):
            is_good[block] = not damage
            if damage:
                warnings.warn(f"{damage} is damaged: it is made again", stacklevel=3)
    # Also the point up to which nobody writes. On shared storage a process may not see yet what
    # another noted last: what not all know of is made again.
    seen = torch.stack([is_good, is_noted]).to(workers.device)
    good, known = reader.processes.reduce(seen)
    blocks = ((good > 0) & (known == workers.num_processes)).nonzero()[:, 0].tolist()
    return {block: noted[block] for block in blocks}


def _begin(files: TableFiles, manifest: Manifest, good: Finished) -> None:
    """Leave the directory as of an unfinished table of the blocks that are good."""
    if not good:
        for name in (UNFINISHED, MANIFEST):  # first: a kill from here on finds nothing to keep
            _remove(files.directory / name)
        files.create()
    replace_journals(files.directory, good)
    write_manifest(files.directory / UNFINISHED, manifest)
    _remove(files.directory / MANIFEST)


def _fill(
    files: TableFiles,
    store: Store,
    rows: Rows,
    missing: list[int],
    reader: Reader,
) -> None:
    """Make and write this process's share of the missing blocks."""
    workers = reader.workers
    share = contiguous_share(len(missing), rank=workers.rank, num_processes=workers.num_processes)
    mine = iter(missing[share])
    batches = in_order(rows, [files.rows(block) for block in missing[share]], reader.batch_share)
    parts: list[dict[str, np.ndarray]] = []
    num_rows = 0
    with Journal(files.directory, workers.rank) as journal:
        for draws, answer in reader.answers(store.network, store.rows, batches):
            if not num_rows:
                block = next(mine)
            # The one wait of this pass; the next batches are decoded meanwhile.
            parts.append({name: values.cpu().numpy() for name, values in answer.items()})
            num_rows += len(draws)
            if num_rows == len(files.rows(block)):
                arrays = {name: np.concatenate([part[name] for part in parts]) for name in answer}
                _check_finite(files, block, arrays)
                journal.note(block, files.write(block, arrays))
                parts, num_rows = [], 0
            # Finished blocks are kept; the one that was begun is not needed.
            if reader.processes.interrupted():
                break


def _check_finite(files: TableFiles, block: int, arrays: dict[str, np.ndarray]) -> None:
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = files.rows(block).start + int(np.isfinite(values).all(axis=1).argmin())
            what = f"{files.directory}: row {row} of {name} is not finite in {values.dtype}"
            if values.dtype == np.float16:
                raise ConfigError(f"{what}: set tables.dtype=float32")
            raise FastssdError(
                f"{what}: the frozen network has diverged: train its stage again with a lower "
                "learning rate"
            )


def _finish(files: TableFiles, manifest: Manifest) -> None:
    """Write the manifest, which makes the table a finished one."""
    finished = read_journals(files.directory, files.num_blocks)
    for block in range(files.num_blocks):
        if block not in finished:
            rows = files.rows(block)
            raise DataError(
                f"{files.directory}: no process has written rows {rows.start} to {rows.stop - 1} "
                "here: all hosts of a run must share its output directory"
            )
    checksums = {
        column.name: [finished[block][column.name] for block in range(files.num_blocks)]
        for column in files.columns
    }
    write_manifest(files.directory / MANIFEST, {**manifest, "checksums": checksums})
    _remove(files.directory / UNFINISHED)
    remove_journals(files.directory)


def _remove(path: Path) -> None:
    with writing(path):
        path.unlink(missing_ok=True)


def _block_rows(store: Store, reader: Reader) -> int:
    """Return the rows of a block of a new table: whole batches of all processes."""
    batch_size = reader.batch_size
    row_bytes = sum(column.row_bytes for column in store.columns)
    num_batches = _BLOCK_BYTES // (row_bytes * batch_size)
    return batch_size * min(max(num_batches, 1), _BLOCK_BATCHES)


def wanted_manifest(store: Store, rows: Rows, about: Manifest) -> Manifest:
    """Return everything that the rows depend on."""
    wanted = {
        **store.describe(),
        "num_rows": len(rows),
        "rows": rows.describe(),
        **about,
        "weights": fingerprint(store.identity),
        "versions": library_versions(about["decoder"]),
    }
    as_read_back: Manifest = json.loads(json.dumps(wanted))
    return as_read_back
