import numpy as np
import pytest
import torch

from fastssd.data.draws import Draws
from fastssd.errors import DataError
from fastssd.tables.files import Column, TableFiles
from fastssd.tables.manifest import write_manifest
from fastssd.tables.rows import EveryView
from fastssd.tables.table import Table


@pytest.fixture
def finished(tmp_path):
    """Return a finished table's directory and rows: 6 draws, 3 classes, float16, 2 blocks."""
    files = TableFiles(tmp_path, [Column("logits", "float16", 3)], num_rows=6, block_rows=4)
    files.create()
    values = np.arange(18).reshape(6, 3) / 4
    sums = [files.write(0, {"logits": values[:4]}), files.write(1, {"logits": values[4:]})]
    content = {
        "columns": {"logits": ["float16", 3]},
        "num_rows": 6,
        "block_rows": 4,
        "versions": {},
        "checksums": {"logits": [each["logits"] for each in sums]},
    }
    write_manifest(tmp_path / "manifest.json", content)
    return tmp_path, EveryView(3, 2)


def test_reading_returns_the_rows_as_they_are_stored_in_the_order_of_the_draws(finished):
    table = Table(*finished)
    draws = Draws(np.array([2, 0, 2]), np.array([1, 0, 1]))
    table.announce(draws)
    batch = table.read(draws)
    assert set(batch) == {"table.logits"}
    assert batch["table.logits"].dtype == torch.float16
    last = [3.75, 4.0, 4.25]
    assert batch["table.logits"].tolist() == [last, [0, 0.25, 0.5], last]


def test_a_read_row_is_a_copy_that_may_be_written(finished):
    table, draws = Table(*finished), Draws(np.array([0]), np.array([0]))
    table.read(draws)["table.logits"].fill_(9)
    assert table.read(draws)["table.logits"].tolist() == [[0, 0.25, 0.5]]


@pytest.mark.parametrize("name", ["logits.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing"])
def test_a_damaged_file_is_an_error_that_names_it(finished, name, damage):
    directory, rows = finished
    file = directory / name
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "garbage":
        file.write_bytes(b"no array at all")
    else:
        file.unlink()
    with pytest.raises(DataError, match=rf"{name}.*delete the table's folder"):
        Table(directory, rows)


def test_rows_of_another_number_are_refused(finished):
    directory, _ = finished
    with pytest.raises(DataError, match="has 6 rows, not 8"):
        Table(directory, EveryView(4, 2))
