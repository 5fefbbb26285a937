"""Disks that are full or cannot sync, for everything that a run or a conversion writes."""

import ast
import errno
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from fastssd.core.files import append, write_atomically
from fastssd.data.damage import Damage
from fastssd.data.directory import new_directory
from fastssd.errors import DataError
from fastssd.tables.files import Column, TableFiles
from fastssd.tables.journal import Journal, remove_journals, replace_journals
from fastssd.training.checkpoints import save_weights

PACKAGE = Path(__file__).parents[2] / "fastssd"
SUMS = {"logits": "0123abcd"}


@contextmanager
def full_disk():
    """Let every write fail, of whatever length."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def table(folder):
    return TableFiles(folder, [Column("logits", "float32", 3)], num_rows=4, block_rows=2)


def note_block(folder):
    with Journal(folder, 1) as journal:
        journal.note(0, SUMS)


def note_damage(folder):
    damage = Damage(folder / "damaged-images-0.jsonl", warn=lambda line: None)
    damage.note(split="train", sample=1, file="a.jpg", reason="torn", replaced_by=2)


WRITERS = {
    "a.json": lambda folder: write_atomically(folder / "a.json", "content"),
    "a.jsonl": lambda folder: append(folder / "a.jsonl", "line\n"),
    "weights.safetensors": lambda f: save_weights(f / "weights.safetensors", nn.Linear(2, 2)),
    "logits.npy": lambda folder: table(folder).create(),
    "blocks-00001.jsonl": note_block,
    "blocks-earlier.jsonl": lambda folder: replace_journals(folder, {0: SUMS}),
    "damaged-images-0.jsonl": note_damage,
}


@pytest.mark.parametrize("file", WRITERS)
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path, file):
    with full_disk(), pytest.raises(DataError, match=f"{file} cannot be written.*make room"):
        WRITERS[file](tmp_path)
    WRITERS[file](tmp_path)  # and nothing is in the way once there is room


def test_a_table_whose_disk_is_full_now_names_the_file(tmp_path):
    files = table(tmp_path)
    files.create()
    os.truncate(files.path(files.columns[0]), 0)  # else its room is reserved
    with full_disk(), pytest.raises(DataError, match=r"logits\.npy cannot be written"):
        files.write(0, {"logits": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_file_system_that_cannot_sync_is_written_all_the_same(tmp_path, monkeypatch, code):
    def no_sync(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", no_sync)

    def convert(folder):
        with new_directory(folder / "out", overwrite=False, marker="meta.json") as out:
            (out / "meta.json").write_text("{}")

    for number, write in enumerate([*WRITERS.values(), convert]):
        folder = tmp_path / str(number)
        folder.mkdir()
        if code == errno.EIO and write not in (WRITERS["a.jsonl"], note_damage):
            with pytest.raises((DataError, OSError)):
                write(folder)
        else:
            write(folder)
    if code != errno.EIO:
        assert (folder / "out/meta.json").read_text() == "{}"


def test_what_cannot_be_removed_names_the_file(tmp_path, monkeypatch):
    note_block(tmp_path)

    def read_only(path, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(DataError, match=r"blocks-00001\.jsonl.*Read-only"):
        remove_journals(tmp_path)


def test_a_line_of_damaged_images_that_is_torn_is_taken_off_and_another_named(tmp_path):
    path = tmp_path / "damaged-images-0.jsonl"
    note_damage(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:9])
    assert len(Damage(path, warn=print)) == 1
    assert path.read_bytes() == whole
    path.write_bytes(whole + b"[]\n")
    with pytest.raises(DataError, match=r"line 2: .*remove the line"):
        Damage(path, warn=print)


def changes_files(call):
    """Return whether a call makes, fills, renames or removes a file or a folder."""
    if not isinstance(call.func, ast.Attribute):
        return False
    if call.func.attr == "open" and call.args and isinstance(call.args[0], ast.Constant):
        return bool(set(str(call.args[0].value)) & set("wax+"))
    names = {"write_bytes", "write_text", "mkdir", "unlink", "touch", "rename", "truncate"}
    return call.func.attr in names


def test_every_write_of_a_run_is_where_an_error_names_its_file():
    # A conversion's are all in one place: the command line says that nothing was left of OUT.
    of_conversion = {PACKAGE / "data" / name for name in ("directory.py", "split_files.py")}
    of_conversion |= {PACKAGE / "data/meta_file.py", *(PACKAGE / "data/storage").iterdir()}
    elsewhere = {PACKAGE / "core/files.py", PACKAGE / "runtime/run_directory.py"}
    found = []
    for path in set(PACKAGE.rglob("*.py")) - of_conversion - elsewhere:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.With)
            and any("writing(" in ast.unparse(item.context_expr) for item in node.items)
            for inner in ast.walk(node)
        }
        found += [
            f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and changes_files(node) and id(node) not in guarded
        ]

    assert not found
