"""Reading examples of any source: files, several of them, shipped samples, datasets of the Hub."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterator
from functools import partial
from glob import has_magic
from importlib import resources
from pathlib import Path
from typing import Any

from ragtune.base.disk import named_path
from ragtune.base.errors import UsageError
from ragtune.base.several import files_of, saved_splits
from ragtune.base.text import shortened
from ragtune.base.windows import BACKSLASHES
from ragtune.data.example import Example, is_unnamed, parse_example
from ragtune.data.files import SUFFIXES, Tick, reader_of
from ragtune.data.formats.reading import AUTO, How, as_records
from ragtune.data.hub import hub_rows

_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*(:\w[\w.-]*){0,2}")


def read_examples(
    source: str, split: str, tick: Tick = lambda *_: None, how: How = AUTO
) -> Iterator[Example]:
    """Yield the examples of a source, one after the other, without holding the file in memory.

    A record without a `qid` has a hash for one. Where several have the same (equal records, or such as
    differ in their answers), the second is HASH-2, the third HASH-3 and so on.

    Args:
        source: as `locate` has it.
        split: the split to read when the source names none.
        tick: progress.
        how: which format it is in, or what its fields are called.

    Raises:
        UsageError: a missing or damaged file, a bad record, a written `qid` that occurs twice, no record.
    """
    seen: dict[str, str] = {}
    again: dict[str, int] = {}
    """How often each hash occurred that occurred more than once."""
    for where, record in as_records(records(source, split, tick), source, how):
        if isinstance(record, dict) and {"question", "answers"} <= record.keys() - {"passages"}:
            _require_passages(record, source, where)
        example = parse_example(record, where)
        if example.qid in seen:
            if not is_unnamed(record):
                raise _used_twice(example.qid, where, seen[example.qid])
            example = dataclasses.replace(example, qid=_numbered(example.qid, seen, again))
        seen[example.qid] = where
        yield example
    if not seen:
        raise UsageError(f"{source} holds no record.", "A split needs at least one question.")


def _require_passages(record: dict[str, Any], source: str, where: str) -> None:
    if "passages" not in record:
        raise UsageError(
            f"{where}: questions without passages, which a model is to read.",
            f"Find some in documents of yours: name {source} in a corpus, and let `ragtune build` retrieve "
            "them (docs/documents.md). If they stand in another field, name it: data.fields={passages: …}.",
        )


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


def locate(source: str, split: str = "") -> list[Path]:
    """The files that a source names, in their order; none for a dataset of the Hub.

    Args:
        source: a path, one with * for several, `sample:NAME`, a folder that `save_to_disk` wrote, or a
            dataset of the Hub.
        split: of a folder that holds several.

    Raises:
        UsageError: there is no such file or sample.
    """
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        folder = Path(str(resources.files("ragtune.data") / "samples"))
        names = sorted(p.name.removesuffix(".jsonl.gz") for p in folder.glob("*.jsonl.gz"))
        if name not in names:
            raise UsageError(f"There is no sample {name!r}.", f"There are: {', '.join(names)}.")
        return [folder / f"{name}.jsonl.gz"]
    path = named_path(source)
    if found := files_of(source, split):
        if missing := [file for file in found if not file.exists()]:
            raise UsageError(
                f"{missing[0]} is missing, which {source} names.",
                "Copy the folder again, all of it.",
            )
        return found
    if path.is_dir():
        raise _folder(source, path, split)
    if path.exists():
        raise UsageError(
            f"{source} is no plain file, but a pipe or a device.", "Write what it gives to a file."
        )
    if has_magic(source):
        raise UsageError(f"{source} names no file.", f"Paths are relative to {Path.cwd()}.")
    # Names without an owner may be ways of `datasets` to read files here: json, text, webdataset.
    if source.endswith(SUFFIXES) or not _HUB.fullmatch(source):
        raise UsageError(
            f"{source} does not exist.",
            f"Paths are relative to the current folder, {Path.cwd()}. A dataset of the Hub is owner/name."
            if source.isprintable()
            else BACKSLASHES,
        )
    return []


def _folder(source: str, path: Path, split: str) -> UsageError:
    if splits := saved_splits(path):
        return UsageError(
            f"{source} holds no split {split or 'of that name'}.",
            f"Name one of its splits: {', '.join(str(Path(source) / name) for name in splits[:8])}.",
        )
    return UsageError(
        f"{source} is a folder.",
        f"Name the file in it ({', '.join(SUFFIXES)}), or several: {Path(source) / '*.jsonl'}.",
    )


def records(
    source: str, split: str = "", tick: Tick = lambda *_: None
) -> Iterator[tuple[str, Any]]:
    """Yield each record of a source, unchecked, and where it stands; raises as `read_examples` does."""
    files = locate(source, split)
    if not files:
        yield from hub_rows(source, split, tick)
        return
    total = sum(file.stat().st_size for file in files)
    before = 0
    for file in files:
        # Of several files the whole is told; Parquet counts its rows.
        size = file.stat().st_size
        inner = tick if len(files) == 1 else partial(_part, tick, before, size, total)
        yield from reader_of(file)(file, inner)
        before += size


def _part(tick: Tick, before: int, size: int, whole: int, done: int, total: int) -> None:
    tick(before + (size * done // total if total else 0), whole)
