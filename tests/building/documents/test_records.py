"""Records and tables: each with a text is a document; columns that aren't there are named with the nearest."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.building.documents import tables
from ragtune.building.documents.document import Document, Mark, UnreadableError
from ragtune.building.documents.read import read_source
from ragtune.building.documents.records import Said, read_records
from ragtune.building.documents.source import Source
from ragtune.recipe.corpus import Documents


def read(path: Path, **settings: Any) -> list[Document]:
    return list(read_source(Source(path, path.name), Documents(files=["x"], **settings)))


def refusal(path: Path, **settings: Any) -> UnreadableError:
    with pytest.raises(UnreadableError) as raised:
        read(path, **settings)
    assert str(path) not in raised.value.message
    return raised.value


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def lines(*records: object) -> str:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


PASSAGES = [
    {"id": 1, "pageid": 5, "revid": 87, "text": "アンパサンド(&, 英: ampersand)は、⽬と。", "section": "__LEAD__", "title": "アンパサンド"},
    {"id": 2, "pageid": 5, "revid": 87, "text": "その使用は1世紀に遡る。", "section": "歴史", "title": "アンパサンド"},
]  # fmt: skip
"""As the passages files of cl-tohoku/quiz-datasets have them."""


@pytest.mark.parametrize("name", ["passages.jawiki-c400-small.jsonl.gz", "p.jsonl", "p.parquet"])
def test_passages_files_of_quiz_datasets(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet

        pa.parquet.write_table(pa.Table.from_pylist(PASSAGES), path)
    else:
        write(path, lines(*PASSAGES))
    assert read(path) == [
        Document(f"{name}#1", name, "アンパサンド", "アンパサンド(&, 英: ampersand)は、目と。", (Mark(0, None, "__LEAD__"),)),
        Document(f"{name}#2", name, "アンパサンド", "その使用は1世紀に遡る。", (Mark(0, None, "歴史"),)),
    ]  # fmt: skip


def test_names_of_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        lines({"番号": 7, "題": "T", "本文": "B", "text": "other"}, {"本文": "C"}),
    )
    assert read(path, fields={"id": "番号", "title": "題", "text": "本文"}) == [
        Document("a.jsonl#7", "a.jsonl", "T", "B"),
        Document("a.jsonl#2", "a.jsonl", "a", "C"),
    ]
    for record in (
        {"_id": "x", "text": "t"},
        {"docid": "x", "text": "t"},
        {"id": "x", "contents": "t"},
    ):
        assert read(write(path, lines(record)))[0].id == "a.jsonl#x"


@pytest.mark.parametrize(
    ("record", "fields", "message", "advice"),
    [
        ({"texts": "x"}, {}, "there is no column text (there are: texts).", "documents.fields: {text: texts}"),
        ({"body": "x"}, {}, "there is no column text (there are: body).", "documents.fields: {text: NAME}"),
        ({"本文": "x"}, {"text": "ZZ"}, "there is no column ZZ (there are: 本文).", "must name one of them"),
        ({"text": "x", "titel": 1}, {"title": "titels"}, "there is no column titels (there are: text, titel).",
         "Did you mean titel?"),
        ({"text": ["x"]}, {}, "text must be a string, this is ['x'].", "documents.fields.text"),
        ([1], {}, "a record must be an object.", "{id, title, text}"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_record(
    record: object, fields: dict[str, str], message: str, advice: str, tmp_path: Path
) -> None:
    error = refusal(write(tmp_path / "a.jsonl", lines(record)), fields=fields)
    assert error.message == f"a.jsonl:1: {message}"
    assert advice in error.advice


def test_a_column_that_goes_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines({"text": "a"}, {"txt": "b"}))
    assert refusal(path).message == "a.jsonl:2: there is no column text (there are: txt)."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl holds no record."),
        ("a.jsonl", b"{", "a.jsonl:1: not JSON"),
        ("a.jsonl", '{"text": "東京"}'.encode("cp932"), "a.jsonl:1: not UTF-8"),
        ("a.jsonl.gz", b"", "a.jsonl.gz holds no record."),
        ("a.parquet", b"PAR1", "a.parquet: can't be read"),
        ("a.csv", b"", "a.csv is empty."),
        ("a.csv", b"a,b\n", "a.csv holds no record."),
        ("a.csv", b"PK\3\4x", "a.csv is no text, whatever its name says."),
        ("a.csv", b"\0\1" * 500, "a.csv is no text, whatever its name says."),
    ],
)  # fmt: skip
def test_damage_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path / name, content)).message.startswith(message)


def test_a_gzip_that_is_cut_off(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv.gz", "id,text\n" + "".join(f"{i},text {i}\n" for i in range(1000))
    )
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path).message.startswith("a.csv.gz can't be unpacked (Compressed file ended")
    path.write_bytes(b"no gzip")
    assert "no gzip" in refusal(path).advice


def test_a_table_without_a_text_is_read_row_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "山.csv", '名前;高さ;;注\n富士山;3776;x;"a;b"\n\n北岳;3193;;\n')
    said = Said()
    found = list(read_records(path, Source(path, path.name), Documents(files=["x"]), said))
    assert found == [
        Document(
            "山.csv#2",
            "山.csv",
            "山",
            "名前: 富士山\n高さ: 3776\ncolumn 3: x\n注: a;b",
            (Mark(0, 2),),
        ),
        Document("山.csv#4", "山.csv", "山", "名前: 北岳\n高さ: 3193", (Mark(0, 4),)),
    ]
    assert said.without_text == ["山.csv"]


@pytest.mark.parametrize("name", ["psgs_w100.tsv", "psgs_w100.tsv.gz", "a.csv"])
def test_tables_with_a_text(name: str, tmp_path: Path) -> None:
    """DPR's passages, as Python's csv writes them."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t" if "tsv" in name else ",")
    writer.writerows(
        [
            ["id", "text", "title"],
            ["1", 'He said "x,\ty"\nand left.', "A"],
            ["2", " ", "B"],
            ["3", "c", ""],
        ]
    )
    path = write(tmp_path / name, out.getvalue())
    said = Said()
    found = list(read_records(path, Source(path, name), Documents(files=["x"]), said))
    assert [(d.id, d.title, d.text) for d in found] == [
        (f"{name}#1", "A", 'He said "x,\ty"\nand left.'),
        (f"{name}#3", name.removesuffix(".gz").rpartition(".")[0] if not name.endswith(".gz") else "psgs_w100.tsv", "c"),
    ]  # fmt: skip
    assert said.empty == {name: 1}


def test_a_tsv_whose_quotation_marks_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'id\ttext\n1\t"Hi" she said\n2\t"open\n3\tplain\n')
    assert [d.text for d in read(path)] == ['"Hi" she said', '"open', "plain"]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp932", "euc_jp", "utf-16", "utf-16-le"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_and_separators(encoding: str, separator: str, tmp_path: Path) -> None:
    text = f"番号{separator}text\n" + "".join(
        f"{i}{separator}富士山は日本の山、{i}。\n" for i in range(50)
    )
    path = write(tmp_path / "a.csv", text.encode(encoding))
    said = Said()
    found = list(
        read_records(
            path, Source(path, "a.csv"), Documents(files=["x"], fields={"id": "番号"}), said
        )
    )
    assert [(d.id, d.text) for d in found] == [
        (f"a.csv#{i}", f"富士山は日本の山、{i}。") for i in range(50)
    ]
    assert list(said.encodings.values()) in ([["a.csv"]], [])
    assert bool(said.encodings) == (not encoding.startswith("utf-8"))


def test_what_follows_in_another_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_SAMPLE", 1000)
    rows = "text\n" + "富士山は日本の山。\n" * 500
    path = write(tmp_path / "a.csv", rows.encode("cp932") + b"\x81\x20\n")
    assert "is not cp932, as its beginning is" in refusal(path).message
    assert len(read(write(path, rows.encode("cp932")))) == 500


def test_rows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW", 1000)
    monkeypatch.setattr(tables, "MAX_EMPTY", 10)
    assert (
        "a.csv:3: a row of more than"
        in refusal(write(tmp_path / "a.csv", "text\na\n" + "x" * 5000)).message
    )
    assert (
        "a row of more than" in refusal(write(tmp_path / "a.csv", 'text\n"' + "x\n" * 5000)).message
    )
    assert "10 empty rows" in refusal(write(tmp_path / "a.csv", "text\n" + "\n" * 5000)).message


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_large_file_is_streamed(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("w", encoding="utf-8") as file:
        file.write("" if name == "a.jsonl" else "id,text\n")
        for i in range(4_000):
            file.write(
                f'{{"id": {i}, "text": "{"x" * 4000}"}}\n'
                if name == "a.jsonl"
                else f"{i},{'x' * 4000}\n"
            )
    assert (tmp_path / name).stat().st_size > 16e6
    tracemalloc.start()
    count = sum(1 for _ in read_source(Source(tmp_path / name, name), Documents(files=["x"])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4_000
    assert peak < 9e6  # the sample of a table, twice: as bytes and as text


CELL = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=6))
def test_csv_written_is_csv_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b"], *rows])
    found = [row for _, row in tables.rows(path, Source(path, "a.csv"), "utf-8", lambda _: None)]
    assert found == [{"a": a.strip(), "b": b.strip()} for a, b in rows if a.strip() or b.strip()]


def test_a_dataset_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def load(*names: str, split: str, streaming: bool) -> list[dict[str, object]]:
        asked.append((*names, split, streaming))
        return [{"docid": "7#0", "title": "T", "text": "x"}]

    monkeypatch.setattr("datasets.load_dataset", load)
    for name in ("miracl/corpus", "miracl/corpus:dev", "miracl/corpus:ja:train"):
        source = Source(Path(), name, dataset=name)
        assert list(read_source(source, Documents(files=["x"]))) == [
            Document(f"{name}#7#0", name, "T", "x")
        ]
    assert asked == [
        ("miracl/corpus", "train", True),
        ("miracl/corpus", "dev", True),
        ("miracl/corpus", "ja", "train", True),
    ]


def test_a_dataset_with_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported")

    monkeypatch.setattr("datasets.load_dataset", load)
    name = "llm-book/jawiki-20220404-c400"
    with pytest.raises(UnreadableError, match="is a dataset with a script") as raised:
        list(read_source(Source(Path(), name, dataset=name), Documents(files=["x"])))
    assert "github.com/cl-tohoku/quiz-datasets/releases" in raised.value.advice
