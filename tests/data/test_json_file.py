"""A JSON file is read record by record, as `json.loads` reads it whole."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data import json_file
from ragtune.data.json_file import JsonFile


def read(content: bytes | str, most: int = 1 << 20) -> list[Any]:
    raw = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(JsonFile(raw.read, "a.json", most).records())


def refusal(content: bytes | str, most: int = 1 << 20) -> str:
    with pytest.raises(UsageError) as raised:
        read(content, most)
    return raised.value.message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(values, max_size=6), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_what_is_written_is_read_however_it_is_cut(
    records: list[Any], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    before, json_file._CHUNK = json_file._CHUNK, chunk
    try:
        content = json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode()
        assert read(content) == records
        nested = json.dumps(
            {"version": "v2.0", "data": records, "after": {"data": [1]}}, indent=indent
        )
        assert read(nested) == records
    finally:
        json_file._CHUNK = before


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.data())
def test_what_is_broken_is_refused_or_read_as_json_reads_it(
    records: list[Any], data: st.DataObject
) -> None:
    content = json.dumps(records)
    place = data.draw(st.integers(0, len(content) - 1))
    content = (
        content[:place]
        + data.draw(st.sampled_from(["", "x", ",", "]", "}", '"', "[", " "]))
        + content[place + 1 :]
    )
    before, json_file._CHUNK = json_file._CHUNK, 7
    try:
        try:
            whole = json.loads(content)
        except ValueError:
            assert refusal(content).startswith("a.json: ")
            return
        if isinstance(whole, list):
            assert read(content) == whole
    finally:
        json_file._CHUNK = before


def test_columns_of_pandas_become_records() -> None:
    columns = {"query": {"0": "a", "1": "b"}, "query_id": {"0": 1, "1": 2}}
    assert read(json.dumps(columns)) == [
        {"query": "a", "query_id": 1},
        {"query": "b", "query_id": 2},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.json: not JSON (Expecting value, line 1, column 1): "),
        ('[1,\n {"a": x}]', "a.json: not JSON (Expecting value, line 2, column 8): "),
        ("[1 2]", "a.json: not JSON (Expecting ',' delimiter, line 1, column 4): "),
        ("[1,]", "a.json: not JSON (Expecting value, line 1, column 4): "),
        ("[1] x", "a.json: not JSON (Extra data, line 1, column 5): "),
        ('["x', "a.json: not JSON (Unterminated string starting at, line 1, column 2): "),
        ("[1", "a.json: not JSON (Expecting ',' delimiter, line 1, column 3): "),
        ('{"data": [1]', "a.json: not JSON (Expecting ',' delimiter, line 1, column 13): "),
        ('{"data" 1}', "a.json: not JSON (Expecting ':' delimiter, line 1, column 9): "),
        ("{data: 1}", "a.json: not JSON (Expecting property name enclosed in double quotes, line 1, column 2): "),
        ("{}", "a.json: a JSON file must hold a list of records."),
        ('{"data": {"a": 1}}', "a.json: a JSON file must hold a list of records."),
        ('"text"', "a.json: a JSON file must hold a list of records."),
        ("[" * 100_000, "a.json: not readable as JSON (maximum recursion depth exceeded"),
        ("[" + "9" * 5000 + "]", "a.json: not readable as JSON (Exceeds the limit (4300 digits)"),
        (b'["\xff"]', "a.json: not UTF-8 (byte 2)."),
        ('["' + "x" * (1 << 21) + '"]', "a.json: a record of more than 1 MiB of JSON."),
        (" " * (17 << 20), "a.json: 16 MiB of blanks."),
    ],
)  # fmt: skip
def test_what_is_no_json_is_told_with_its_place(content: bytes | str, message: str) -> None:
    assert refusal(content).startswith(message)


def test_a_record_comes_before_the_rest_is_read() -> None:
    asked = []

    def endless(count: int) -> bytes:
        asked.append(count)
        return (
            b"[" + b'{"a": 1}, ' * (count // 10)
            if len(asked) == 1
            else b'{"a": 1}, ' * (count // 10)
        )

    found = JsonFile(endless, "a.json", 1 << 20).records()
    assert [next(found) for _ in range(500_000)] == [{"a": 1}] * 500_000
    assert max(asked) <= 2 << 20
