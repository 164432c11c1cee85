"""Reading the records of one file, whatever its kind: JSONL, JSON, Parquet, Arrow, CSV, Excel."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ragtune.base.errors import UsageError
from ragtune.base.reading import open_plain
from ragtune.base.text import first_line, shortened, size_of
from ragtune.data import parquet
from ragtune.data.json_file import JsonFile
from ragtune.data.tables import csv_rows, excel_rows
from ragtune.data.unpacking import unpacked

Tick = Callable[[int, int], None]
"""Called with bytes (or records) read so far and their total (0: unknown)."""

MAX_RECORD = 16 << 20
"""Bytes of the longest line of a .jsonl file; parsed, one takes up to some 30 times as much."""
MAX_JSON = 128 << 20
"""Characters of the largest record of a .json file, unpacked; bytes of 64 rows of Parquet."""
MAX_EMPTY = 100_000
"""Empty lines in a row; more are no data, and a small .gz can hold billions."""
MAX_BLANK = 16 << 20
"""Bytes of empty lines in a row: of blanks, too, a small .gz can hold billions."""
MAX_DEPTH = 100
"""How deep a record may be nested: other stages and libraries follow it by recursion."""

SUFFIXES = (
    ".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz", ".parquet", ".csv", ".tsv", ".xlsx",
)  # fmt: skip

_NESTED = (dict, list, tuple)
_END = object()
_UNPACKING = (OSError, EOFError, zlib.error)
_PARQUET = (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError, TypeError)
"""pyarrow's own, and what Python can't make of a value: text that is no UTF-8, the year 10000."""


def reader_of(path: Path) -> Callable[[Path, Tick], Iterator[tuple[str, Any]]]:
    """What reads a kind of file, told by its name: it yields where each record stands, and the record."""
    name = path.name.lower()
    for endings, reader in _READERS.items():
        if name.endswith(endings):
            return reader
    near = _OTHERS.get(path.suffix.lower())
    raise UsageError(f"{path}: unknown kind of file.", near or f"Known are {', '.join(SUFFIXES)}.")


def _open(path: Path) -> BinaryIO:
    try:
        return open_plain(path)
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror}).") from None


def _unpacked(path: Path, raw: BinaryIO) -> BinaryIO:
    return unpacked(raw) if _is_packed(path) else raw


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")  # as `reader_of` reads names


def _jsonl(path: Path, tick: Tick) -> Iterator[tuple[str, Any]]:
    with _open(path) as raw:
        total = path.stat().st_size
        lines = _unpacked(path, raw)
        empty = blank = 0
        for number in itertools.count(1):
            where = f"{path}:{number}"
            try:
                line = lines.readline(MAX_RECORD + 1)
            except _UNPACKING as error:
                raise _damaged(path, error, f" after line {number - 1}") from None
            if not line:
                return
            if len(line) > MAX_RECORD:
                raise UsageError(
                    f"{where}: a line of more than {size_of(MAX_RECORD)}.",
                    "A .jsonl file holds one record a line: a question and its passages.",
                )
            tick(raw.tell(), total)
            text = _decode(line, where)
            empty, blank = (0, 0) if text.strip() else (empty + 1, blank + len(line))
            if empty > MAX_EMPTY or blank > MAX_BLANK:
                many = f"{MAX_EMPTY:,}" if empty > MAX_EMPTY else f"{size_of(MAX_BLANK)} of"
                raise UsageError(f"{where}: {many} empty lines in a row.", "Remove them.")
            if not empty:
                yield where, _loads(text, where)


def _json(path: Path, tick: Tick) -> Iterator[tuple[str, Any]]:
    with _open(path) as raw:
        total = path.stat().st_size
        records = JsonFile(_unpacked(path, raw).read, str(path), MAX_JSON).records()
        for number in itertools.count(1):
            try:
                record = next(records, _END)
            except _UNPACKING as error:
                raise _damaged(
                    path, error, f" after record {number - 1}" if number > 1 else ""
                ) from None
            if record is _END:
                return
            tick(raw.tell(), total)
            where = f"{path}: record {number}"
            yield where, _shallow(record, where)


def _table(path: Path, tick: Tick) -> Iterator[tuple[str, Any]]:
    with _open(path) as raw:
        try:
            if path.name.lower().endswith(".xlsx"):
                yield from excel_rows(path, raw)
            else:
                yield from csv_rows(path, raw)
        except OSError as error:
            raise _damaged(path, error) from None
        size = path.stat().st_size
        tick(size, size)


def _arrow(path: Path, tick: Tick) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        for number, record in parquet.arrow_rows(path, MAX_JSON):
            where = f"{path}: row {number}"
            yield where, _shallow(record, where)
    except _PARQUET as error:
        raise _damaged(path, error, f" after row {number}" if number else "") from None
    size = path.stat().st_size
    tick(size, size)


def _parquet(path: Path, tick: Tick) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        for number, total, record in parquet.rows(path, MAX_JSON):
            tick(number, total)
            where = f"{path}: row {number}"
            yield where, _shallow(record, where)
    except _PARQUET as error:
        raise _damaged(path, error, f" after row {number}" if number else "") from None


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where}: not UTF-8 (byte {error.start}).", "Save the file as UTF-8."
        ) from None


def _loads(text: str, where: str) -> object:
    try:
        return _shallow(json.loads(text.rstrip()), where)  # a line's end has no columns
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where}: not JSON ({error.msg}, column {error.colno}): {shortened(text.strip())}",
            "A .jsonl file holds one JSON object a line.",
        ) from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{where}: not readable as JSON ({first_line(error)}).") from None


def _shallow(value: object, where: str) -> object:
    """The value, if it is not nested too deeply."""
    level = [value] if isinstance(value, _NESTED) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _NESTED)
        ]
        if not level:
            return value
    raise UsageError(
        f"{where}: nested more than {MAX_DEPTH} deep.", "A record is an object of fields."
    )


def _damaged(path: Path, error: BaseException, after: str = "") -> UsageError:
    what = "cut off or no gzip" if _is_packed(path) else "damaged"
    return UsageError(
        f"{path}: can't be read{after} ({first_line(error)}).",
        f"The file is {what}: download or write it again.",
    )


_READERS = {
    (".parquet",): _parquet,
    (".json", ".json.gz"): _json,
    (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"): _jsonl,
    (".csv", ".tsv", ".xlsx"): _table,
    (".arrow",): _arrow,
}
_OTHERS = {
    ".xls": "Open it in a spreadsheet, and save it as .xlsx or .csv.",
    ".ods": "Open it in a spreadsheet, and save it as .xlsx or .csv.",
    ".zip": "Unpack it, and name the file in it.",
}
