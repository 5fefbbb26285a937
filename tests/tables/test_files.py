import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastssd.errors import DataError
from fastssd.tables.files import HEADER_BYTES, Column, TableFiles

IDS, REST = Column("ids", "uint16", 5), Column("rest", "float32", 1)


def filled(directory, *, num_rows=25, block_rows=4, columns=(IDS, REST)):
    """Return files with random content, the arrays and the checksums of each block."""
    files = TableFiles(directory, list(columns), num_rows=num_rows, block_rows=block_rows)
    files.create()
    generator = np.random.default_rng(num_rows)
    arrays = {
        column.name: generator.integers(0, 1000, (num_rows, column.width)).astype(column.dtype)
        for column in columns
    }
    checksums = {
        block: files.write(
            block,
            {name: values[rows.start : rows.stop] for name, values in arrays.items()},
        )
        for block in reversed(range(files.num_blocks))
        for rows in [files.rows(block)]
    }
    return files, arrays, checksums


@settings(max_examples=30, deadline=None)
@given(num_rows=st.integers(1, 40), block_rows=st.integers(1, 50))
def test_numpy_opens_what_blocks_in_any_order_have_left(tmp_path_factory, num_rows, block_rows):
    directory = tmp_path_factory.mktemp("table")
    files, arrays, checksums = filled(directory, num_rows=num_rows, block_rows=block_rows)
    rows = [row for block in range(files.num_blocks) for row in files.rows(block)]
    assert rows == list(range(num_rows))
    assert files.problem() == ""
    assert not any(files.damaged(block, checksums[block]) for block in checksums)
    for column in files.columns:
        content = np.load(files.path(column), mmap_mode="r", allow_pickle=False)
        assert content.dtype == column.dtype
        assert content.offset == HEADER_BYTES
        np.testing.assert_array_equal(content, arrays[column.name])
        some = np.random.default_rng(0).integers(0, num_rows, 17)
        mapped = files.map(column)
        mapped.ask_for(np.sort(some))
        np.testing.assert_array_equal(mapped.read(some), arrays[column.name][some])
    assert sum(path.stat().st_size for path in directory.iterdir()) == files.num_bytes


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_found_in_the_file_and_block_that_has_it(tmp_path_factory, data):
    files, _, checksums = filled(tmp_path_factory.mktemp("table"))
    column = data.draw(st.sampled_from(files.columns))
    content = bytearray(files.path(column).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    files.path(column).write_bytes(content)

    found = {block: files.damaged(block, checksums[block]) for block in checksums}

    hurt = {block: text for block, text in found.items() if text}
    if position < HEADER_BYTES:
        assert str(files.path(column)) in files.problem()
        assert not hurt
    else:
        row = (position - HEADER_BYTES) // column.row_bytes
        assert files.problem() == ""
        assert set(hurt) == {row // files.block_rows}
        assert f"{files.path(column)}: block {row // files.block_rows}" in hurt[row // 4]


@pytest.mark.parametrize("damage", ["cut", "longer", "missing", "text", "pickle", "shape", "order"])
def test_a_file_that_is_not_the_array_is_named(tmp_path, damage):
    files, arrays, _ = filled(tmp_path)
    path = files.path(IDS)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + b"\0")
    elif damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("no array")
    elif damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "shape":
        np.save(path, arrays["ids"].T.copy())
    else:
        np.save(path, np.asfortranarray(arrays["ids"]))
    assert str(path) in files.problem()


def test_values_of_another_shape_are_not_written(tmp_path):
    files, arrays, _ = filled(tmp_path)
    with pytest.raises(ValueError, match="block 0 of ids"):
        files.write(0, {name: values[:3] for name, values in arrays.items()})


def test_room_is_reserved_at_once_and_a_full_disk_says_what_is_needed(tmp_path, monkeypatch):
    files, _, _ = filled(tmp_path / "table")
    path = files.path(IDS)
    assert path.stat().st_blocks * 512 >= 25 * IDS.row_bytes

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"table of 606 bytes has no room .* tables\.store"):
        files.create()
    assert not any(files.directory.glob("*.npy"))
    larger = TableFiles(tmp_path / "larger", [IDS], num_rows=2**60, block_rows=4)
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("took what there was"))
    with pytest.raises(DataError, match=r"has no room .* [1-9][0-9,]* bytes free"):
        larger.create()


def test_a_file_system_that_reserves_nothing_still_gets_a_table(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    files, _, checksums = filled(tmp_path)
    assert not any(files.damaged(block, checksums[block]) for block in checksums)


def test_reading_many_rows_lets_mapped_pages_go(tmp_path, monkeypatch):
    monkeypatch.setattr("fastssd.tables.files._RESIDENT_BYTES", 40)
    files, arrays, _ = filled(tmp_path)
    mapped = files.map(IDS)
    for start in range(20):
        rows = np.arange(start, start + 5)
        np.testing.assert_array_equal(mapped.read(rows), arrays["ids"][rows])
