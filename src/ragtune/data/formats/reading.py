"""Which format rows are in, found by looking at the first, and what becomes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note
from ragtune.data.formats.asked import ASKED
from ragtune.data.formats.format import Fields, Format, Record, is_list_of, shown
from ragtune.data.formats.mapped import Naming, named, records_of, usual
from ragtune.data.formats.paragraphs import PARAGRAPHS
from ragtune.data.formats.retrieved import RETRIEVED

FORMATS = (*PARAGRAPHS, *RETRIEVED, *ASKED)
RECORDS = "records"
"""The format that is ragtune's own: the schema of Example."""

LOOK = 20
"""Rows of which one has to have the fields that are named."""
Rows = Iterator[tuple[str, Any]]
"""Where each row stands, and the row."""


@dataclass(frozen=True)
class How:
    """How rows are read."""

    format: str = "auto"
    """A format's name; auto: found by looking at the first row."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Names of fields by what they mean; then no format is looked for."""
    separator: str | None = None
    """Between several answers in one text."""
    say: Callable[[str], None] = note
    """Is told in which format the rows are, if that was found by looking."""


AUTO = How()


def as_records(rows: Rows, source: str, how: How) -> Iterator[tuple[str, Any]]:
    """Rows of any format, in the schema of Example; what is in that already is left as it is.

    A record may lack passages; where the format names where the answer stands, `documents` has it.

    Raises:
        UsageError: the named format doesn't fit, a field that is named isn't there, a bad row.
    """
    head = list(itertools.islice(rows, LOOK if how.fields else 1))
    if not head:
        return
    rows = itertools.chain(head, rows)
    if how.fields:
        yield from records_of(named(how.fields, head, how.separator), rows)
        return
    where, row = head[0]
    chosen = _chosen(row, where, how)
    if chosen is None:
        yield from rows
        return
    if isinstance(chosen, Naming):
        how.say(f"{source} is read by its fields ({chosen.in_words()}).")
        yield from records_of(chosen, rows)
        return
    how.say(f"{source} is read as {chosen.title}." + (_FIRST if chosen.first else ""))
    for where, row in rows:
        yield from _converted(chosen, row, where)


_FIRST = " Its gold passages come first: data.shuffle_passages mixes those that are shown."


def _chosen(row: object, where: str, how: How) -> Format | Naming | None:
    """The format; None for the schema of Example, also where nothing fits: what is wrong is said there."""
    if not isinstance(row, dict):
        return None
    if how.format == RECORDS or (how.format == "auto" and is_own(row)):
        return None if is_own(row) else usual(row, how.separator)
    known = [one for one in FORMATS if how.format in ("auto", one.name)]
    fitting = [one for one in known if one.fits(row)]
    if fitting:
        return fitting[0]
    if how.format == "auto":
        return usual(row, how.separator)
    wanted = " or ".join(dict.fromkeys(one.wanted for one in known))
    raise UsageError(
        f"{where}: no {known[0].title}. Fields found: {shown(list(map(str, row)))}; wanted: {wanted}.",
        "Name another format, or none: it is then found by looking.",
    )


def is_own(row: Record) -> bool:
    """Whether a row is in the schema of Example, or was meant to be."""
    return {"question", "answers", "passages"} <= row.keys() and not isinstance(row["answers"], str)


def _converted(chosen: Format, row: object, where: str) -> Iterator[tuple[str, Record]]:
    _require_object(row, where)
    assert isinstance(row, dict)
    found = list(chosen.records(Fields(row, where, chosen.title, chosen.wanted)))
    for number, record in enumerate(found, 1):
        if record.get("qid") is None:
            record.pop("qid", None)
        yield where if len(found) == 1 else f"{where}, question {number}", record


def _require_object(row: object, where: str) -> None:
    if not isinstance(row, dict) or not is_list_of(str, list(row)):
        raise UsageError(
            f"{where}: a record must be a JSON object.", "Each record is an object of fields."
        )
