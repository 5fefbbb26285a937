"""Reading Arrow's files with pyarrow, whose errors are of many kinds and whose files may lie."""

from importlib import import_module
from pathlib import Path
from typing import Any

from fastssd.core.reading import check_regular, reading, reason_of

_REMEDY = "fetch or save the dataset again"


def read_arrow(file: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Map a stream of record batches as `save_to_disk` writes it, and return its table.

    Raises:
        DataError: If it is damaged; names the file.
    """
    arrow = import_module("pyarrow")
    with reading(file, _REMEDY):
        check_regular(file)
        stream = arrow.ipc.open_stream(arrow.memory_map(str(file)))
        batches, num_rows = [], 0
        for batch in stream:
            batches.append(batch)
            num_rows += batch.num_rows
            _check_rows(num_rows, file)
        return arrow.Table.from_batches(batches, stream.schema)


def read_parquet(file: Path) -> Any:  # noqa: ANN401
    """Read a Parquet file into memory and return its table.

    Raises:
        DataError: If it is damaged; names the file.
    """
    parquet = import_module("pyarrow.parquet")
    with reading(file, _REMEDY):
        check_regular(file)
        opened = parquet.ParquetFile(str(file))
        _check_rows(opened.metadata.num_rows, file)
        return opened.read()


def value_of(column: Any, row: int) -> Any:  # noqa: ANN401
    """Return one value of a column.

    Raises:
        ValueError: If the column is damaged there; the message is the reason alone.
    """
    try:
        return column[row].as_py()
    except (LookupError, TypeError, NotImplementedError) as error:
        raise ValueError(reason_of(error)) from error


def _check_rows(num_rows: int, file: Path) -> None:
    # A column without values has any number of rows in no bytes. An image has more than one.
    num_bytes = file.stat().st_size
    if not 0 <= num_rows <= num_bytes:
        raise ValueError(f"it has {num_rows:,} rows in {num_bytes:,} bytes")
