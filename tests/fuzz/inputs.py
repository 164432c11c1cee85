"""Malformed inputs, made the same way every time; and those that once failed, in corpus/failed.jsonl."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import random
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import make_records
from tests.data.formats_table import CASES

FAILED = Path(__file__).parent / "corpus" / "failed.jsonl"
FAILED_DOCUMENTS = FAILED.with_name("failed_documents.jsonl")


@dataclass(frozen=True)
class Input:
    """What a reader is given, and a name for it."""

    kind: str
    name: str
    content: bytes


def corpus() -> list[Input]:
    """All of them."""
    made = itertools.chain(
        _texts(),
        _records(),
        _predictions(),
        _gzips(),
        _parquets(),
        _recipes(),
        _formats(),
        _tables(),
    )
    return [*made, *failed()]


def failed(file: Path = FAILED) -> list[Input]:
    """Inputs that once ended in a traceback, a hang or a message without a place."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [Input(r["kind"], r["name"], base64.b64decode(r["content"])) for r in rows]


def keep(found: Input, file: Path = FAILED) -> None:
    """Add one to those that failed."""
    row = {"kind": found.kind, "name": found.name, "content": base64.b64encode(found.content)}
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(row, default=bytes.decode) + "\n")


RECORD = make_records(1)[0]
LINE = json.dumps(RECORD).encode()

TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "an empty line": b"\n",
    "a NUL": b"\0",
    "many NULs": b"\0" * 5000,
    "a NUL after a record": LINE + b"\0\n",
    "a NUL in a record": LINE.replace(b"red", b"r\0d"),
    "an escaped NUL": LINE.replace(b"red", b"r\\u0000d"),
    "a byte order mark alone": b"\xef\xbb\xbf",
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + LINE,
    "a byte order mark within": LINE + b"\n\xef\xbb\xbf" + LINE.replace(b"q0", b"q1"),
    "UTF-16": LINE.decode().encode("utf-16"),
    "UTF-16 without mark": LINE.decode().encode("utf-16-le"),
    "UTF-32": LINE.decode().encode("utf-32"),
    "UTF-7": "東京".encode("utf-7"),
    "Shift JIS": LINE.replace(b"red", "東京".encode("shift_jis")),
    "EUC-JP": LINE.replace(b"red", "東京".encode("euc_jp")),
    "Latin 1": LINE.replace(b"red", "rouge foncé".encode("latin-1")),
    "mixed encodings": LINE + b"\n" + LINE.replace(b"red", b"\x83\x65\x83X"),
    "half of a character": LINE + "é".encode()[:1],
    "an overlong form": LINE.replace(b"red", b"\xc0\xaf"),
    "a surrogate in UTF-8": LINE.replace(b"red", b"\xed\xa0\x80"),
    "beyond Unicode": LINE.replace(b"red", b"\xf5\x80\x80\x80"),
    "a lone surrogate": LINE.replace(b"red", b"\\ud800"),
    "a lone low surrogate": LINE.replace(b"red", b"\\udc00 x"),
    "a lone surrogate in a key": LINE.replace(b'{"qid"', b'{"\\ud800": 1, "qid"'),
    "a lone surrogate in the qid": LINE.replace(b"q0", b"\\ud800"),
    "surrogates the wrong way round": LINE.replace(b"red", b"\\udc00\\ud800"),
    "CR alone": LINE + b"\r" + LINE,
    "CRLF": LINE + b"\r\n" + LINE,
    "line separators": LINE.replace(b"red", "a\u2028b\u2029c\x85d".encode()),
    "a form feed": b"\f" + LINE,
    "a comment": b"// a comment\n" + LINE,
    "single quotes": LINE.replace(b'"', b"'"),
    "a trailing comma": LINE[:-1] + b",}",
    "a missing brace": LINE[:-1],
    "a brace too many": LINE + b"}",
    "two records in a line": LINE + LINE,
    "two records with a comma": LINE + b"," + LINE,
    "the same line twice": LINE + b"\n" + LINE,
    "a list of lines": b"[" + LINE + b",\n" + LINE + b"]",
    "deep lists": b"[" * 100_000,
    "deep closed lists": b"[" * 5000 + b"]" * 5000,
    "deep lists within reach": b"[" * 900 + b"]" * 900,
    "deep objects": b'{"a":' * 100_000,
    "deep closed objects": b'{"a":' * 900 + b"1" + b"}" * 900,
    "deep extra": LINE[:-1] + b', "x": ' + b"[" * 300 + b"]" * 300 + b"}",
    "deep in a list": b"[" + LINE[:-1] + b', "x": ' + b"[" * 950 + b"]" * 950 + b"}]",
    "many brackets": b"[]" * 5000,
    "a huge integer": b"9" * 5000,
    "a huge integer as qid": LINE.replace(b'"q0"', b"9" * 5000),
    "a large integer as qid": LINE.replace(b'"q0"', b"9" * 4000),
    "a large integer as index": LINE.replace(b"[0]", b"[" + b"9" * 4000 + b"]"),
    "a huge exponent": LINE.replace(b'"q0"', b"1e999999999"),
    "infinity": LINE.replace(b'"q0"', b"Infinity"),
    "not a number": LINE.replace(b"[0]", b"[NaN]"),
    "a negative index": LINE.replace(b"[0]", b"[-1]"),
    "a negative zero": LINE.replace(b"[0]", b"[-0]"),
    "a leading zero": LINE.replace(b"[0]", b"[00]"),
    "hexadecimal": LINE.replace(b"[0]", b"[0x0]"),
    "duplicate keys": LINE[:-1] + b', "question": 7}',
    "duplicate keys of one kind": LINE[:-1] + b', "qid": "again"}',
    "a long key": b'{"' + b"k" * 100_000 + b'": 1}',
    "many keys": b"{" + b",".join(b'"%d": 1' % i for i in range(5000)) + b"}",
    "a long qid": LINE.replace(b"q0", b"q" * 100_000) + b"\n" + LINE.replace(b"q0", b"q" * 100_000),
    "a long string": b'"' + b"x" * 1_000_000,
    "a long wrong value": LINE.replace(b'"red"', b'[["' + b"x" * 100_000 + b'"]]'),
    "a literal": b"null",
    "true": b"true",
    "a text": b'"text"',
    "an empty object": b"{}",
    "an empty list": b"[]",
    "HTML": b"<!DOCTYPE html><html><body>404</body></html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "CSV": b"qid,question\n1,What?\n",
    "YAML": b"qid: 1\nquestion: What?\n",
    "Python": b"__import__('os').system('id')",
    "a pickle": b"cposix\nsystem\n(S'id'\ntR.",
    "an ANSI escape": b"\x1b[2J\x1b]0;x\x07",
    "markup": b"[bold red]x[/][link=file:///etc/passwd]y[/link]",
    "format signs": b"%s%n{0.__class__}{{7*7}}${jndi:ldap://x}",
    "a path": b"../../../../etc/passwd",
    "zip": b"PK\x03\x04" + b"\0" * 26,
    "zstandard": b"\x28\xb5\x2f\xfd" + b"\0" * 20,
    "gzip": gzip.compress(LINE, mtime=0),
    "Parquet's mark": b"PAR1",
    "Parquet's marks": b"PAR1" + b"\0" * 8 + b"PAR1",
}  # fmt: skip

VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, "", " ", "x", "\0", "../../x", [], [None], [[]], [1], ["a", 1],
    {}, {"a": 1}, [{}], [{"text": 1}], [{"text": None}], [{"text": "x", "title": 1}], "x" * 5000,
]  # fmt: skip
"""What a field may hold instead of what it should."""


def _texts() -> Iterator[Input]:
    for kind in ("jsonl", "json", "recipe", "predictions"):
        for name, content in TEXTS.items():
            yield Input(kind, name, content)
    for kind in ("jsonl.gz", "json.gz"):
        for name, content in itertools.islice(TEXTS.items(), 0, None, 3):
            yield Input(kind, f"packed: {name}", gzip.compress(content, mtime=0))


def _records() -> Iterator[Input]:
    for field in RECORD:
        without = {k: v for k, v in RECORD.items() if k != field}
        yield Input("jsonl", f"no {field}", json.dumps(without).encode())
        for number, value in enumerate(VALUES):
            line = json.dumps({**RECORD, field: value}).encode()
            yield Input("jsonl", f"{field} {number}", line)
    for cut in range(1, len(LINE), 7):
        yield Input("jsonl", f"cut at {cut}", LINE[:cut])


def _predictions() -> Iterator[Input]:
    for field, number in itertools.product(("qid", "prediction"), range(len(VALUES))):
        line = json.dumps({"qid": "e0", "prediction": "red", field: VALUES[number]})
        yield Input("predictions", f"{field} {number}", line.encode())
    good = b'{"qid": "e0", "prediction": "red"}\n'
    yield Input("predictions", "good", good)
    yield Input("predictions", "twice", good * 2)
    yield Input("predictions", "unknown", good.replace(b"e0", b"e00"))
    yield Input("predictions", "a surrogate", good.replace(b"red", b"\\ud800"))
    yield Input("predictions", "a surrogate as qid", good.replace(b"e0", b"\\ud800"))
    yield Input("predictions", "a very long qid", good.replace(b"e0", b"e" * 300_000))


def _gzips() -> Iterator[Input]:
    whole = gzip.compress(LINE + b"\n", mtime=0)
    for kind in ("jsonl.gz", "json.gz"):
        for cut in range(1, len(whole), 9):
            yield Input(kind, f"cut at {cut}", whole[:cut])
        for place in range(0, len(whole), 9):
            changed = bytearray(whole)
            changed[place] ^= 0xFF
            yield Input(kind, f"changed at {place}", bytes(changed))
        yield Input(kind, "followed by rubbish", whole + b"rubbish")
        yield Input(kind, "followed by zeros", whole + b"\0" * 100)
        yield Input(kind, "packed twice", gzip.compress(whole, mtime=0))
        yield Input(kind, "zlib without gzip", zlib.compress(LINE))
        yield Input(kind, "a wrong length", whole[:-4] + b"\1\0\0\0")
        yield Input(kind, "a name without end", b"\x1f\x8b\x08\x08" + b"\0" * 6 + b"x" * 5000)


def _formats() -> Iterator[Input]:
    """Records of public formats with anything in the place of a field."""
    for number, case in enumerate(CASES):
        line = json.dumps(case.record).encode()
        for field in case.record:
            without = {k: v for k, v in case.record.items() if k != field}
            yield Input("questions", f"{number} no {field}", json.dumps([without])[1:-1].encode())
            for place in range(number % 3, len(VALUES), 3):
                changed = json.dumps({**case.record, field: VALUES[place]})
                yield Input("questions", f"{number} {field} {place}", changed.encode())
        for cut in range(1 + number, len(line), 199):
            yield Input("questions", f"{number} cut at {cut}", line[:cut])
    for name, content in itertools.islice(TEXTS.items(), 0, None, 3):
        yield Input("questions", name, content)


CSV = 'qid,question,answers\r\n1,"Who, ""he""?","[""a"", ""b""]"\r\n2,何?,山\r\n'


def _tables() -> Iterator[Input]:
    for kind, text in (("csv", CSV), ("tsv", CSV.replace(",", "\t"))):
        for encoding in ("utf-8", "utf-16", "cp932", "utf-32-le", "utf-7"):
            content = text.encode(encoding)
            yield Input(kind, encoding, content)
            for cut in range(1, len(content), 17):
                yield Input(kind, f"{encoding} cut at {cut}", content[:cut])
                changed = bytearray(content)
                changed[cut] ^= 0xFF
                yield Input(kind, f"{encoding} changed at {cut}", bytes(changed))
        for name, content in TEXTS.items():
            yield Input(kind, name, content)
            yield Input(kind, f"below names: {name}", b"question,answers\n" + content)
    whole = excel()
    for cut in range(0, len(whole), len(whole) // 60):
        yield Input("xlsx", f"cut at {cut}", whole[:cut])
        changed = bytearray(whole)
        changed[cut] ^= 0xFF
        yield Input("xlsx", f"changed at {cut}", bytes(changed))
    for part, content in EXCEL.items():
        for name, other in itertools.islice(TEXTS.items(), len(part) % 5, None, 5):
            yield Input("xlsx", f"{part}: {name}", excel({part: other}))
        for cut in range(1, len(content), 29):
            yield Input("xlsx", f"{part} cut at {cut}", excel({part: content[:cut].encode()}))
    for name, cell in CELLS.items():
        sheet = EXCEL["xl/worksheets/sheet1.xml"].replace("<c r='C2'><v>7</v></c>", cell)
        yield Input("xlsx", name, excel({"xl/worksheets/sheet1.xml": sheet.encode()}))


_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
EXCEL = {
    "[Content_Types].xml": f"<Types xmlns='{_PACKAGE}/content-types'>"
    f"<Override PartName='/xl/workbook.xml' ContentType='{_TYPE}.sheet.main+xml'/>"
    f"<Override PartName='/xl/worksheets/sheet1.xml' ContentType='{_TYPE}.worksheet+xml'/></Types>",
    "_rels/.rels": f"<Relationships xmlns='{_PACKAGE}/relationships'><Relationship Id='rId1' "
    f"Type='{_DOCUMENT}/officeDocument' Target='xl/workbook.xml'/></Relationships>",
    "xl/workbook.xml": f"<workbook xmlns='{_MAIN}' xmlns:r='{_DOCUMENT}'><sheets>"
    "<sheet name='S' sheetId='1' r:id='rId1'/></sheets></workbook>",
    "xl/_rels/workbook.xml.rels": f"<Relationships xmlns='{_PACKAGE}/relationships'><Relationship Id='rId1' "
    f"Type='{_DOCUMENT}/worksheet' Target='worksheets/sheet1.xml'/></Relationships>",
    "xl/worksheets/sheet1.xml": f"<worksheet xmlns='{_MAIN}'><sheetData><row r='1'>"
    "<c r='A1' t='inlineStr'><is><t>qid</t></is></c><c r='B1' t='inlineStr'><is><t>question</t></is></c>"
    "<c r='C1' t='inlineStr'><is><t>answers</t></is></c></row><row r='2'><c r='A2'><v>1</v></c>"
    "<c r='B2' t='inlineStr'><is><t>Who?</t></is></c><c r='C2'><v>7</v></c></row></sheetData></worksheet>",
}  # fmt: skip
"""The parts of a small Excel file."""

CELLS = {
    "a truth": "<c r='C2' t='b'><v>1</v></c>",
    "an error": "<c r='C2' t='e'><v>#N/A</v></c>",
    "a date without end": "<c r='C2' t='d'><v>99999-99-99</v></c>",
    "a shared text that is not there": "<c r='C2' t='s'><v>99</v></c>",
    "a formula without a value": "<c r='C2'><f>1+1</f></c>",
    "a style that is not there": "<c r='C2' s='99'><v>1</v></c>",
    "a number without end": "<c r='C2'><v>1e999</v></c>",
    "no number": "<c r='C2'><v>x</v></c>",
    "the last column": "<c r='XFD2'><v>1</v></c>",
    "no place": "<c r='nowhere'><v>1</v></c>",
    "a place of another row": "<c r='C999999'><v>1</v></c>",
    "an unknown kind": "<c r='C2' t='zzz'><v>1</v></c>",
    "a cell in a cell": "<c r='C2'><c r='C3'><v>1</v></c></c>",
}  # fmt: skip


def excel(parts: dict[str, bytes] | None = None) -> bytes:
    """A small Excel file, some of whose parts are others."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (EXCEL | (parts or {})).items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def parquet(table: Any, **options: Any) -> bytes:
    """A table as a Parquet file."""
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, **options)
    return out.getvalue()


def _parquets() -> Iterator[Input]:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [value] for name, value in RECORD.items()}
    whole = parquet(pa.table(columns))
    for cut in range(0, len(whole), len(whole) // 40):
        yield Input("parquet", f"cut at {cut}", whole[:cut])
        yield Input("parquet", f"without the first {cut}", whole[cut:])
    shuffled = random.Random(1)
    for number in range(60):
        changed = bytearray(whole)
        for _ in range(shuffled.randint(1, 8)):
            changed[shuffled.randrange(len(changed))] = shuffled.randrange(256)
        yield Input("parquet", f"changed {number}", bytes(changed))
    wrong: dict[str, Any] = {
        "integers": pa.array([7]),
        "booleans": pa.array([True]),
        "bytes": pa.array([b"\xff\xfe"]),
        "nulls": pa.nulls(1),
        "lists of lists": pa.array([[[1]]]),
        "a map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "a decimal": pa.array([12], pa.int64()).cast(pa.decimal128(38, 2)),
        "a date beyond Python's": pa.array([10**7], pa.int32()).cast(pa.date32()),
        "a date before Python's": pa.array([-(10**7)], pa.int32()).cast(pa.date32()),
        "a time beyond Python's": pa.array([2**60], pa.int64()).cast(pa.timestamp("us")),
        "nanoseconds": pa.array([1], pa.int64()).cast(pa.timestamp("ns")),
        "an unknown time zone": pa.array([1], pa.int64()).cast(pa.timestamp("us", "No/Where")),
        "a long duration": pa.array([2**62], pa.int64()).cast(pa.duration("s")),
        "a dictionary": pa.array(["a"]).dictionary_encode(),
        "a struct": pa.array([{"a": 1}]),
        "an empty struct": pa.array([{}], pa.struct([])),
        "not a number": pa.array([float("nan")]),
        "text that is no UTF-8": pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
        ),
        "deep lists": _deep(pa, 150),
    }  # fmt: skip
    for name, array in wrong.items():
        for field in ("qid", "question", "answers", "passages", "positive_passage_indices", "x"):
            table = {**columns, field: array}
            try:
                yield Input("parquet", f"{field}: {name}", parquet(pa.table(table)))
            except pa.ArrowException:  # it can't be written
                continue
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["question", "question"])
    yield Input("parquet", "a column twice", parquet(twice))
    yield Input("parquet", "no column", parquet(pa.table({})))


def _deep(pa: Any, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return pa.array([value])


RECIPE = """\
name: small
model: {id: some/model}
data: {train: train.jsonl, eval: eval.jsonl}
prompt: {preset: english}
train: {steps: 5}
"""

YAMLS: dict[str, str] = {
    "Python's object": "name: !!python/object/apply:os.system ['id']",
    "Python's name": "name: !!python/name:os.system",
    "Python's module": "!!python/module:os",
    "Python's tuple": "name: !!python/tuple [1]",
    "an object at the top": "!!python/object/new:type {}",
    "an unknown tag": "name: !own x",
    "a verbatim tag": "name: !<tag:x> x",
    "binary": "name: !!binary aGk=",
    "broken binary": "name: !!binary \u00e9",
    "a set": "!!set {a, b}",
    "an ordered map": "!!omap [a: 1]",
    "pairs": "!!pairs [a: 1]",
    "a tagged list": "!!map [a]",
    "a tagged number": "name: !!int x",
    "a tagged float": "name: !!float x",
    "a tagged boolean": "name: !!bool x",
    "a tagged time": "name: !!timestamp x",
    "a date": "name: 2024-01-01",
    "no date": "name: 2024-13-45",
    "no time": "name: 2024-01-01 99:99:99",
    "a time zone": "name: 2024-01-01 00:00:00 +99:99",
    "an empty binary number": "seed: 0b_",
    "an empty hexadecimal number": "seed: 0x_",
    "a sexagesimal number": "seed: 190:20:30",
    "a long number": "seed: " + "9" * 5000,
    "a long octal": "seed: 0" + "7" * 9000,
    "a long float": "seed: 1." + "9" * 50_000,
    "a dot": "seed: ._",
    "infinity": "seed: .inf",
    "no number": "seed: .nan",
    "the value sign": "name: =",
    "a merge": "<<: {name: x}",
    "a merge of a list": "<<: [{name: x}, {seed: 1}]",
    "a merge of nothing": "<<: 1",
    "a merge of lists": "<<: [[1]]",
    "a complex key": "? [a, b]\n: 1",
    "a mapping as key": "? {a: 1}\n: 1",
    "null as key": "~: 1",
    "a date as key": "2024-01-01: 1",
    "a boolean as key": "yes: 1",
    "a binary key": "!!binary aGk=: 1",
    "a key of a key": "a: b: c",
    "an anchor": "name: &a x",
    "an alias": "name: &a x\nseed: *a",
    "an alias to nothing": "name: *a",
    "an alias to itself": "&a {name: *a}",
    "a bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghijk"))
    + "name: *k",
    "a merge bomb": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nname: *b",
    "deep lists": "name: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "name: " + "{a: " * 2000 + "1" + "}" * 2000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(1500)),
    "deep dashes": "name: \n  " + "- " * 3000,
    "unclosed": "name: [" * 100,
    "a directive": "%YAML 9.9\n---\nname: x",
    "a tag directive": "%TAG ! tag:x,2000:\n---\nname: !y x",
    "an unknown directive": "%X\n---\nname: x",
    "two documents": "name: x\n---\nname: y",
    "an end": "name: x\n...\nname: y",
    "a tab": "\tname: x",
    "a block scalar": "name: |9\n x",
    "a long line": "name: " + "x" * 100_000,
    "many keys": "".join(f"k{i}: 1\n" for i in range(2000)),
    "many overrides": "train: {" + ", ".join(f"k{i}: 1" for i in range(500)) + "}",
    "an escape": 'name: "\\x00"',
    "a surrogate": 'prompt: {system: "\\ud800"}',
    "a surrogate as name": 'name: "\\udfff"',
    "no escape": 'name: "\\q"',
    "a large escape": 'name: "\\UFFFFFFFF"',
    "a NUL": "name: \0",
    "a delete": "name: \x7f",
    "a list": "- name\n- x",
    "a text": "text",
    "a lone dash": "-",
    "a question mark": "?",
    "a percent sign": "%",
    "an at sign": "@",
    "a star": "*",
    "an ampersand": "&",
    "a bang": "!",
    "a quote": "'",
    "a long key": "k" * 5000 + ": 1",
}  # fmt: skip

RECIPE_KEYS = {
    "name": VALUES, "seed": VALUES, "model": VALUES, "data": VALUES, "prompt": VALUES, "lora": VALUES,
    "train": VALUES,
}  # fmt: skip

RECIPE_PARTS = [
    'prompt: {template: "{{ 10**10**9 }}{{ question }}"}',
    'prompt: {template: "a\\0b.jinja"}',
    'prompt: {template: "/dev/null.jinja"}',
    f"prompt: {{template: {'x' * 5000}.jinja}}",
    'prompt: {template: "~nobody-of-that-name/x.jinja"}',
    "prompt: {preset: english, chat_template: ../../../../../etc/passwd.j2}",
    'prompt: {preset: english, system: "\\ud800"}',
    'prompt: {preset: english, system: "\\0"}',
    "publish: {repo: ../x}",
    "publish: {repo: a/b/c}",
    "evaluate: {endpoint: 'http://[::1'}",
    "lora: {target_modules: []}",
    "lora: {alpha: 1e999}",
    "lora: {dropout: 1e-999}",
    "model: {trust_remote_code: 1}",
]


def _recipes() -> Iterator[Input]:
    for name, text in YAMLS.items():
        yield Input("recipe", f"YAML: {name}", text.encode("utf-8"))
        yield Input("recipe", f"YAML after a recipe: {name}", f"{RECIPE}{text}\n".encode())
        yield Input("card", f"YAML: {name}", f"---\nlicense: mit\n{text}\n---\n".encode())
    for key, values in RECIPE_KEYS.items():
        for number, value in enumerate(values):
            lines = [line for line in RECIPE.splitlines() if not line.startswith(f"{key}:")]
            lines.append(f"{key}: {json.dumps(value)}")
            yield Input("recipe", f"{key} {number}", "\n".join(lines).encode())
    for number, part in enumerate(RECIPE_PARTS):
        key = part.partition(":")[0]
        lines = [line for line in RECIPE.splitlines() if not line.startswith(f"{key}:")]
        yield Input("recipe", f"part {number}", "\n".join([*lines, part]).encode())
    for cut in range(1, len(RECIPE), 3):
        yield Input("recipe", f"cut at {cut}", RECIPE[:cut].encode())
