"""What Hypothesis feeds to each reader: records with wrong values, and known inputs changed."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.data.formats_table import CASES
from tests.fuzz.inputs import EXCEL, RECIPE, RECORD, Input, excel, parquet

TEXT = st.text(max_size=20) | st.sampled_from(["\x00", "\ud800", "\u2028", "../x", "*a", "0x_"])
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


@st.composite
def changed(draw: st.DrawFn, known: list[Input]) -> bytes:
    """An input of the corpus with bytes changed, cut out, or put in."""
    content = bytearray(
        draw(st.sampled_from([i for i in known if len(i.content) < 20_000])).content
    )
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        until = draw(st.integers(at, min(len(content), at + 30)))
        content[at:until] = draw(st.binary(max_size=12))
    return bytes(content)


@st.composite
def record(draw: st.DrawFn) -> dict[str, Any]:
    """A record of which some fields hold anything."""
    wrong = draw(st.dictionaries(st.sampled_from([*RECORD]) | TEXT, VALUE, max_size=3))
    return {**RECORD, **wrong}


@st.composite
def question(draw: st.DrawFn) -> dict[str, Any]:
    """A record of a public format of which some fields hold anything."""
    known = draw(st.sampled_from(CASES)).record
    wrong = draw(st.dictionaries(st.sampled_from([*known]) | TEXT, VALUE, max_size=3))
    return {**known, **wrong}


def written(rows: list[list[str]]) -> bytes:
    """A table below usual names."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["qid", "question", "answers"], *rows])
    return out.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    found = draw(st.lists(record(), max_size=3))
    return b"\n".join(json.dumps(r).encode() for r in found)


@st.composite
def predictions(draw: st.DrawFn) -> bytes:
    qid = st.sampled_from(["e0", "e1", "x", 7]) | VALUE
    pair = st.fixed_dictionaries({"qid": qid, "prediction": TEXT | VALUE})
    return b"\n".join(json.dumps(p).encode() for p in draw(st.lists(pair, max_size=3)))


@st.composite
def table(draw: st.DrawFn) -> bytes:
    """A Parquet file of columns that may be of any type."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name, value in draw(record()).items():
        try:
            columns[name] = pa.array([value])
            parquet(pa.table({name: columns[name]}))
        except (pa.ArrowException, UnicodeError, OverflowError, TypeError):
            columns.pop(name, None)  # it can't be written
    try:
        return parquet(pa.table(columns))
    except (pa.ArrowException, UnicodeError):
        return b""


@st.composite
def recipe(draw: st.DrawFn) -> bytes:
    """A recipe in which some keys hold anything."""
    values = yaml.safe_load(RECIPE)
    sections = st.sampled_from([*values, "lora", "evaluate", "publish"])
    for key, value in draw(st.dictionaries(sections | TEXT, VALUE, max_size=3)).items():
        if isinstance(values.get(key), dict) and isinstance(value, dict):
            values[key] |= value
        else:
            values[key] = value
    return json.dumps(values).encode() if draw(st.booleans()) else yaml.safe_dump(values).encode(
        "utf-8", "surrogatepass"
    )  # fmt: skip


def contents(kind: str, known: list[Input]) -> st.SearchStrategy[bytes]:
    """Contents for a reader, to begin with those that are known."""
    made = {
        "jsonl": lines(),
        "json": st.lists(record(), max_size=3).map(lambda found: json.dumps(found).encode()),
        "jsonl.gz": lines().map(lambda content: gzip.compress(content, mtime=0)),
        "json.gz": lines().map(lambda content: gzip.compress(content, mtime=0)),
        "parquet": table(),
        "recipe": recipe(),
        "predictions": predictions(),
        "questions": st.lists(question(), max_size=3).map(
            lambda found: b"\n".join(json.dumps(one).encode() for one in found)
        ),
        "csv": st.lists(st.lists(TEXT, max_size=4), max_size=4).map(written),
        "tsv": st.lists(st.lists(TEXT, max_size=4), max_size=4).map(written),
        "xlsx": st.dictionaries(st.sampled_from([*EXCEL]), st.binary(max_size=80), max_size=2).map(
            excel
        ),
        "card": recipe().map(lambda content: b"---\nlicense: mit\n" + content + b"\n---\n"),
    }[kind]
    return changed([i for i in known if i.kind == kind]) | made | st.binary(max_size=200)
