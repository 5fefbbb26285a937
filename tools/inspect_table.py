"""Look into the tables of a run: sizes, soft labels, every block's checksum, and an audit.

python tools/inspect_table.py RUN_OR_TABLE_DIR [--audit N] [--json FILE] [--figures FOLDER]
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

if __spec__ is None:
    # Run as a script, Python puts tools/ first on the path. Put the project there instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from fastssd.core.files import write_atomically
from fastssd.core.processes import Processes
from fastssd.core.reading import parse_json, read_bytes, reading, value_at
from fastssd.core.untrusted import error_for_terminal, for_terminal
from fastssd.data.dataset import open_dataset
from fastssd.data.decode.decoders import build_decoder
from fastssd.data.workers import Workers
from fastssd.errors import ConfigError, DataError, FastssdError
from fastssd.evaluation.results import GRAPH_FILE
from fastssd.evaluation.soft_labels import class_distribution
from fastssd.recipe_file import load_recipe
from fastssd.runtime.build import wanted_table
from fastssd.runtime.context import Context
from fastssd.runtime.graph import Graph
from fastssd.runtime.make_graph import make_graph
from fastssd.tables.audit import audit
from fastssd.tables.class_mass import Balancing, SoftLabels, soft_labels
from fastssd.tables.journal import read_journals
from fastssd.tables.manifest import Manifest, check_manifest, found_manifest
from fastssd.tables.table import Table, table_files
from fastssd.tables.tabulate import wanted_manifest
from fastssd.training.checkpoints import WEIGHTS

_MASSES = (0.5, 0.9, 0.99)
_PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says, and return the exit code of the contract."""
    options = _parser().parse_args(arguments)
    try:
        found = [_inspect(directory, options) for directory in _tables(options.path)]
    except FastssdError as error:
        print(f"fastssd: {error_for_terminal(error)}", file=sys.stderr)
        return error.exit_code
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=1) + "\n")
    damaged = [damage for each in found for damage in each["damaged"]]
    for damage in damaged:
        text = f"{damage} is damaged: train again, and it is made anew"
        print(f"fastssd: {for_terminal(text)}", file=sys.stderr)
    contradicted = [each["contradiction"] for each in found if each.get("contradiction")]
    for contradiction in contradicted:
        print(f"fastssd: {for_terminal(contradiction)}", file=sys.stderr)
    return DataError.exit_code if damaged or contradicted else 0


def _tables(path: Path) -> list[Path]:
    """Return the table directories that are meant."""
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such directory")
    directories = [path, *sorted(path.glob("*/")), *sorted(path.glob("seed-*/*/"))]
    tables = [each for each in directories if found_manifest(each)[0] is not None]
    if not tables:
        raise DataError(f"{path}: neither a table nor a run with tables")
    return tables


def _inspect(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    manifest, is_finished = found_manifest(directory)
    assert manifest is not None
    files = table_files(directory, manifest)
    result = {
        "table": str(directory),
        "store": manifest["store"],
        "columns": manifest["columns"],
        "rows": manifest["rows"],
        "num_rows": files.num_rows,
        "bytes": files.num_bytes,
        "finished": is_finished,
        "damaged": [],
    }
    what = f"{directory}: {manifest['store']}, {files.num_rows:,} rows, {files.num_bytes:,} bytes"
    print(for_terminal(what))
    for column in files.columns:
        print(f"  {column.name}: {column.dtype} x {column.width}, {column.row_bytes:,} B a row")
    if not is_finished:
        done = len(read_journals(directory, files.num_blocks))
        print(f"  unfinished: {done} of {files.num_blocks} blocks; training goes on with it")
        return result
    result["damaged"] = _damaged(files, manifest)
    print(f"  {files.num_blocks} blocks, {len(result['damaged'])} damaged")
    if not result["damaged"]:
        result["soft_labels"] = _describe_soft_labels(directory, files, manifest, options)
        if options.audit:
            result |= _audited(directory, manifest, options)
    return result


def _damaged(files: Any, manifest: Manifest) -> list[str]:  # noqa: ANN401 TableFiles
    """Return which blocks are not what their checksums say, and where."""
    if problem := files.problem():
        return [problem]
    sums = manifest["checksums"]

    def check(block: int) -> str:
        return files.damaged(block, {name: sums[name][block] for name in sums})

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [damage for damage in pool.map(check, range(files.num_blocks)) if damage]


def _describe_soft_labels(
    directory: Path,
    files: Any,  # noqa: ANN401 TableFiles
    manifest: Manifest,
    options: argparse.Namespace,
) -> dict[str, Any]:
    found = soft_labels(
        files,
        manifest,
        _balancing(directory),
        temperature=options.temperature,
        num_rows=options.rows,
        seed=int(manifest["seed"]),
    )
    if not found:
        print("  soft labels: unknown until a stage that re-balances its classifier has finished")
    for name, labels in found.items():
        print(f"  soft labels {name} balancing, T={labels.temperature:g}: {_in_words(labels)}")
    counts = manifest["train_counts"]
    if options.figures and found:
        options.figures.mkdir(parents=True, exist_ok=True)
        shares = {name: labels.class_share for name, labels in found.items()}
        path = options.figures / f"{_name_of(directory)}-soft-labels.png"
        class_distribution(shares, counts).savefig(path, dpi=150)
        print(f"  figure: {for_terminal(path)}")
    return {name: _as_json(labels) for name, labels in found.items()}


def _run_of(directory: Path) -> Path | None:
    """Return the run directory of a table: with several seeds the table is in a seed's folder."""
    parents = directory.resolve().parents
    return next((each for each in parents[:2] if (each / GRAPH_FILE).is_file()), None)


def _name_of(directory: Path) -> str:
    """Return a table's name, with its seed's: `seed-0-ssd-T`."""
    run = _run_of(directory)
    return "-".join(directory.resolve().relative_to(run).parts) if run else directory.name


def _balancing(directory: Path) -> Balancing:
    """Return what the first finished stage that re-balances a table's rows does to them."""
    known = Balancing(directory / "none")
    if run := _run_of(directory):
        name = str(directory.resolve().relative_to(run))
        with reading(run / GRAPH_FILE, "delete it: the next start of the run writes it again"):
            stages = value_at(parse_json(read_bytes(run / GRAPH_FILE), dict), "stages", list)
        for stage in stages:
            if stage.get("table") != name:
                continue
            found = Balancing(run / stage["folder"] / WEIGHTS["last"])
            if found.scale is not None:
                return found
            known = found if found.classifier() is not None else known
    return known


def _in_words(labels: SoftLabels) -> str:
    if labels.kept_mass[-1] == 0:  # of a table of the top logits, beyond its own
        kept = labels.kept_mass[labels.kept_mass > 0]
        mass = f"{kept[-1]:.2%} of the mass in {len(kept)} classes"
    else:
        mass = ", ".join(f"{mass:.0%} of the mass in {labels.k_for(mass)}" for mass in _MASSES)
    return f"entropy {labels.entropy:.3f} nats; {mass} (mean of {labels.num_rows:,} rows)"


def _as_json(labels: SoftLabels) -> dict[str, Any]:
    return {
        "temperature": labels.temperature,
        "num_rows": labels.num_rows,
        "entropy": labels.entropy,
        "class_share": labels.class_share.tolist(),
        "kept_mass": labels.kept_mass[labels.kept_mass > 0].tolist(),
    }


def _audited(directory: Path, manifest: Manifest, options: argparse.Namespace) -> dict[str, Any]:
    """Ask the network again about some rows, if the table is the run's."""
    run = _run_of(directory)
    if run is None:
        raise ConfigError(f"{directory} is in no run directory, whose network could be asked")
    context, graph = _opened(run, manifest, options)
    name = str(directory.resolve().relative_to(run))
    node = next((table for table in graph.tables() if table.folder == name), None)
    if node is None:
        raise ConfigError(f"{directory}: no stage of {run / 'config.yaml'} reads this table")
    wanted = wanted_table(node, context)
    check_manifest(directory, manifest, wanted_manifest(wanted.store, wanted.rows, wanted.about))
    table = Table(directory, wanted.rows)
    seed = int(manifest["seed"])
    difference = audit(table, wanted.store, options.audit, reader=wanted.reader, seed=seed)
    print(f"  audit of {min(options.audit, len(table.rows))} rows: {difference}")
    result: dict[str, Any] = {"largest_difference": difference.largest, "scale": difference.scale}
    try:
        difference.check(directory)
    except DataError as error:
        result["contradiction"] = str(error)
    return result


def _opened(run: Path, manifest: Manifest, options: argparse.Namespace) -> tuple[Context, Graph]:
    """Return a run's context, for this process alone, and its graph."""
    overrides = [f"output={run}", f"data.decoder={manifest['decoder']}"]
    if options.dataset:
        overrides.append(f"data.path={options.dataset}")
    recipe = load_recipe(run / "config.yaml", overrides)
    config = recipe.config
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processes = Processes()
    if config.precision != "no":
        dtype = _PRECISIONS[config.precision]
        processes = Processes(autocast=partial(torch.autocast, device.type, dtype=dtype))
    context = Context(
        config=config,
        dataset=open_dataset(config.data.path),
        decoder=build_decoder(config.data.decoder, device=device),
        workers=Workers(
            rank=0,
            num_processes=1,
            threads=os.cpu_count() or 1,
            prefetch=config.data.prefetch,
            device=device,
        ),
        output=run,
        processes=processes,
    )
    context, _ = context.with_images_on_device()
    return context, make_graph(recipe, context.facts())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Look into the tables of a run.",
        epilog="exit codes: 0 all is well; 2 the arguments; 3 a table is damaged, or not what its "
        "network says",
    )
    parser.add_argument("path", type=Path, metavar="RUN_OR_TABLE_DIR")
    parser.add_argument(
        "--audit", type=_count, default=0, metavar="N", help="ask the network again about N rows"
    )
    parser.add_argument("--dataset", type=Path, help="where the dataset is now (for --audit)")
    parser.add_argument(
        "--temperature", type=float, default=2.0, help="of dense tables' soft labels (default: 2)"
    )
    parser.add_argument(
        "--rows", type=_count, default=20_000, help="random rows for soft labels (default: 20000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all of it here")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draw the soft labels")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
