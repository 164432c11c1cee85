"""Reading Parquet row by row, after a look at how much its rows hold when they are unpacked; and Arrow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from ragtune.base.errors import UsageError
from ragtune.base.text import one_or_many, size_of

ROWS = 64
"""Rows that are unpacked at a time."""


def rows(path: Path, most: int) -> Iterator[tuple[int, int, Any]]:
    """Yield each row's number, how many there are, and the row as Python values.

    Args:
        path: the file.
        most: bytes of values that 64 rows may hold together, unpacked.

    Raises:
        UsageError: they hold more.
        ArrowException, OSError, ValueError, and whatever else pyarrow raises: the file is damaged.
    """
    _require_small(path, most)
    number = 0
    # Without buffering ahead: that would hold a whole row group.
    with ParquetFile(path, pre_buffer=False) as file:
        total = file.metadata.num_rows
        for batch in file.iter_batches(batch_size=ROWS):
            if batch.nbytes > most:
                raise _too_large(path, most, batch.num_rows, number)
            for row in batch.to_pylist():
                number += 1
                yield number, total, row


def arrow_rows(path: Path, most: int) -> Iterator[tuple[int, Any]]:
    """Yield each row's number and the row of a file that `save_to_disk` of `datasets` wrote.

    Args and raises as `rows`.
    """
    number = 0
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, ROWS):
                some = batch.slice(start, ROWS)
                if some.nbytes > most:
                    raise _too_large(path, most, some.num_rows, number)
                for row in some.to_pylist():
                    number += 1
                    yield number, row


def _require_small(path: Path, most: int) -> None:
    """Refuse batches that are too large, without unpacking what is written once for many rows.

    50 kB can stand for gigabytes: one long text, and the number of its place a thousand times. Read as
    dictionaries such texts stay as small as they are written. pyarrow can't do that for a column that
    is written partly otherwise, as writers do when there are many different texts: such a row group is
    not looked at.
    """
    with ParquetFile(path) as file:
        columns = [file.schema.column(i) for i in range(len(file.schema))]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    with ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
        before = 0
        for group in range(file.metadata.num_row_groups):
            done = before
            # pyarrow can't read a group like this that is only partly written with a dictionary.
            with contextlib.suppress(pa.ArrowNotImplementedError):  # such a one can't be weighed
                for batch in file.iter_batches(batch_size=ROWS, row_groups=[group]):
                    if sum(map(_size, batch.columns)) > most:
                        raise _too_large(path, most, batch.num_rows, done)
                    done += batch.num_rows
            before += file.metadata.row_group(group).num_rows


def _too_large(path: Path, most: int, rows: int, before: int) -> UsageError:
    these = one_or_many(rows, f"row after row {before} holds", f"rows after row {before} hold")
    return UsageError(
        f"{path}: the {these} more than {size_of(most)}.",
        "A row holds one record: a question and its passages.",
    )


def _size(array: pa.Array) -> int:
    """Bytes of an array's values when each is held for itself."""
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(map(_size, array.flatten()))
    if pa.types.is_list(array.type):
        return int(array.offsets.nbytes) + _size(array.flatten())
    return int(array.nbytes)
