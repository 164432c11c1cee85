"""Reading examples: JSONL, JSONL.gz, JSON, Parquet, shipped samples, Hub datasets."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Container, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from ragtune.base.disk import named_path
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.reading import open_plain
from ragtune.base.text import first_line, shortened, size_of
from ragtune.base.web.answers import AnswerError
from ragtune.base.web.hub_client import bound_client
from ragtune.base.web.refusals import SENSELESS, HTTPError, explain, root_of
from ragtune.base.windows import BACKSLASHES
from ragtune.data import parquet
from ragtune.data.example import Example, is_unnamed, parse_example

Tick = Callable[[int, int], None]
"""Called with bytes (or records) read so far and their total (0: unknown)."""

MAX_RECORD = 16 << 20
"""Bytes of the longest line of a .jsonl file; parsed, one takes up to some 30 times as much."""
MAX_JSON = 128 << 20
"""Bytes of the largest .json file, unpacked."""
MAX_EMPTY = 100_000
"""Empty lines in a row; more are no data, and a small .gz can hold billions."""
MAX_BLANK = 16 << 20
"""Bytes of empty lines in a row: of blanks, too, a small .gz can hold billions."""
MAX_DEPTH = 100
"""How deep a record may be nested: other stages and libraries follow it by recursion."""

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")

_WAITS_LESS = {
    "STREAMING_READ_MAX_RETRIES": 1,
    "STREAMING_OPEN_MAX_RETRIES": 1,
    "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 1,
    "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 1,
}
"""Settings of `datasets`: it waits up to twenty times a minute on top of what the Hub's client waited."""
_UNPACKING = (OSError, EOFError, zlib.error)
_PARQUET = (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError, TypeError)
"""pyarrow's own, and what Python can't make of a value: text that is no UTF-8, the year 10000."""


def read_examples(source: str, split: str, tick: Tick = lambda *_: None) -> Iterator[Example]:
    """Yield the examples of a source, one after the other, without holding the file in memory.

    A record without a `qid` has a hash for one. Where several have the same (equal records, or such as
    differ in their answers), the second is HASH-2, the third HASH-3 and so on.

    Args:
        source: a path, `sample:NAME`, or a Hub dataset `owner/name` or `owner/name:split`.
        split: the Hub split to read when the source names none.
        tick: progress.

    Raises:
        UsageError: a missing or damaged file, a bad record, a written `qid` that occurs twice, no record.
    """
    seen: dict[str, str] = {}
    again: dict[str, int] = {}
    """How often each hash occurred that occurred more than once."""
    for where, record in records(source, split, tick):
        example = parse_example(record, where)
        if example.qid in seen:
            if not is_unnamed(record):
                raise _used_twice(example.qid, where, seen[example.qid])
            example = dataclasses.replace(example, qid=_numbered(example.qid, seen, again))
        seen[example.qid] = where
        yield example
    if not seen:
        raise UsageError(f"{source} holds no record.", "A split needs at least one question.")


def _numbered(qid: str, seen: Container[str], again: dict[str, int]) -> str:
    """The qid of a record whose hash is taken: the hash and which one it is."""
    number = again.get(qid, 1) + 1
    while f"{qid}-{number}" in seen:  # somebody wrote it
        number += 1
    again[qid] = number
    return f"{qid}-{number}"


def _used_twice(qid: str, where: str, before: str) -> UsageError:
    return UsageError(
        f"{where}: qid {shortened(qid)!r} was already used at {before}.",
        "A qid names one question of a split: give one of the two another, or remove it. Records "
        "without any qid get their own.",
    )


def locate(source: str) -> Path | None:
    """The file that a source names, or None for a Hub dataset.

    Raises:
        UsageError: there is no such file or sample.
    """
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        folder = Path(str(resources.files("ragtune.data") / "samples"))
        names = sorted(p.name.removesuffix(".jsonl.gz") for p in folder.glob("*.jsonl.gz"))
        if name not in names:
            raise UsageError(f"There is no sample {name!r}.", f"There are: {', '.join(names)}.")
        return folder / f"{name}.jsonl.gz"
    path = named_path(source)
    if path.is_file():
        return path
    if path.exists() and not path.is_dir():
        raise UsageError(
            f"{source} is no plain file, but a pipe or a device.", "Write what it gives to a file."
        )
    if path.is_dir():
        raise UsageError(f"{source} is a folder.", f"Name the file in it ({', '.join(SUFFIXES)}).")
    # Names without an owner may be ways of `datasets` to read files here: json, text, webdataset.
    if source.endswith(SUFFIXES) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(:\w[\w.-]*)?", source):
        raise UsageError(
            f"{source} does not exist.",
            f"Paths are relative to the current folder, {Path.cwd()}. A dataset of the Hub is owner/name."
            if source.isprintable()
            else BACKSLASHES,
        )
    return None


def records(
    source: str, split: str = "", tick: Tick = lambda *_: None
) -> Iterator[tuple[str, Any]]:
    """Yield each record of a source, unchecked, and where it stands; raises as `read_examples` does."""
    path = locate(source)
    if path is None:
        yield from _hub(source, split, tick)
    elif path.name.endswith(".parquet"):
        yield from _parquet(path, tick)
    elif path.name.endswith((".json", ".json.gz")):
        yield from _json(path)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _jsonl(path, tick)
    else:
        raise UsageError(f"{path}: unknown kind of file.", f"Known are {', '.join(SUFFIXES)}.")


def _open(path: Path) -> BinaryIO:
    try:
        return open_plain(path)
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror}).") from None


def _unpacked(path: Path, raw: BinaryIO) -> BinaryIO | gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw) if path.name.endswith(".gz") else raw


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


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    with _open(path) as raw:
        try:
            content = _unpacked(path, raw).read(MAX_JSON + 1)
        except _UNPACKING as error:
            raise _damaged(path, error) from None
    if len(content) > MAX_JSON:
        raise UsageError(
            f"{path}: more than {size_of(MAX_JSON)} of JSON, which is read as a whole.",
            "Write it as .jsonl (one record a line): that is read line by line, whatever its size.",
        )
    value = _loads(_decode(content, str(path)), str(path))
    if not isinstance(value, list):
        raise UsageError(
            f"{path}: a JSON file must hold a list of records.",
            "For one record a line, name the file .jsonl.",
        )
    for index, record in enumerate(value):
        yield f"{path}: record {index + 1}", record


def _parquet(path: Path, tick: Tick) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        for number, total, record in parquet.rows(path, MAX_JSON):
            tick(number, total)
            where = f"{path}: row {number}"
            yield where, _shallow(record, where)
    except _PARQUET as error:
        raise _damaged(path, error, f" after row {number}" if number else "") from None


def _hub(source: str, split: str, tick: Tick) -> Iterator[tuple[str, Any]]:
    import datasets  # noqa: PLC0415 - takes seconds, and only datasets of the Hub need it

    name, _, named = source.partition(":")
    bound_client()
    vars(datasets.config).update(_WAITS_LESS)
    try:
        rows = datasets.load_dataset(name, split=named or split, streaming=True)
        for number, record in enumerate(rows, 1):
            tick(number, 0)
            yield f"{source}: row {number}", record
    # datasets stops an iteration of its own where a file is empty.
    except (RuntimeError, OSError, ValueError, StopIteration, HTTPError, *SENSELESS) as error:
        if isinstance(error, RuntimeError) and "script" in str(error):
            raise UsageError(
                f"{name} is a dataset with a script, which no current library runs.",
                "For llm-book/aio-retriever write data.source: aio, not data.train and data.eval.",
            ) from None
        raise _unread(source, error) from error


def _unread(source: str, error: Exception) -> RagtuneError:
    root: BaseException | None = root_of(error)
    if isinstance(root, FileNotFoundError):  # datasets tried this and that, and says it of the last
        while root and not isinstance(root, (HTTPError, AnswerError)):
            root = root.__cause__ or root.__context__
    reached = not isinstance(root, (RepositoryNotFoundError, OfflineModeIsEnabled))
    if isinstance(root, (HTTPError, AnswerError, ConnectionError, TimeoutError)) and reached:
        reason, advice = explain(root, source, writing=False)
        return RagtuneError(f"Dataset {source} can't be read. {reason}", advice)
    return UsageError(
        f"Dataset {source} can't be read: {shortened(first_line(error), 300)}",
        "It is neither a file here nor a dataset that the Hub gives. Check the path; or the "
        "dataset's name, its splits (owner/name:split) and the network.",
    )


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where}: not UTF-8 (byte {error.start}).", "Save the file as UTF-8."
        ) from None


def _loads(text: str, where: str) -> object:
    try:
        return _shallow(json.loads(text), where)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where}: not JSON ({error.msg}, column {error.colno}): {shortened(text.strip())}",
            "A .jsonl file holds one JSON object a line.",
        ) from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{where}: not readable as JSON ({first_line(error)}).") from None


def _shallow(value: object, where: str) -> object:
    """The value, if it is not nested too deeply."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list | tuple)
        ]
        if not level:
            return value
    raise UsageError(
        f"{where}: nested more than {MAX_DEPTH} deep.", "A record is an object of fields."
    )


def _damaged(path: Path, error: BaseException, after: str = "") -> UsageError:
    what = "cut off or no gzip" if path.name.endswith(".gz") else "damaged"
    return UsageError(
        f"{path}: can't be read{after} ({first_line(error)}).",
        f"The file is {what}: download or write it again.",
    )
