"""Questions of any file: with their answers, with where these stand if that is said, and each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet
import pytest

from ragtune.base.errors import UsageError
from ragtune.building.questions import Question, read_questions
from ragtune.recipe.corpus import Questions
from tests.data.formats_table import CASES, NORMANS, SQUAD2_ARTICLE, lines

ROWS = [
    {"番号": "1", "質問": "日本一高い山は?", "正解": "富士山; ふじさん", "文書": "山.pdf"},
    {"番号": "2", "質問": "何年に終わった?", "正解": "1945", "文書": "歴史.docx"},
    {"番号": "3", "質問": "答えのない問い?", "正解": "", "文書": ""},
]
NAMES = {"qid": "番号", "question": "質問", "answers": "正解", "document": "文書"}
EXPECTED = [
    ("1", "日本一高い山は?", ("富士山", "ふじさん"), ("山.pdf",)),
    ("2", "何年に終わった?", ("1945",), ("歴史.docx",)),
    ("3", "答えのない問い?", (), ()),
]


def read(*paths: Path, **options: Any) -> list[Question]:
    sources = [str(path) for path in paths]
    return list(read_questions(sources, Questions.model_validate({"files": sources, **options})))


def refusal(*paths: Path, **options: Any) -> str:
    with pytest.raises(UsageError) as raised:
        read(*paths, **options)
    return str(raised.value).replace(f"{paths[0].parent}/", "")


def write_csv(path: Path) -> None:
    rows = [",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]
    path.write_bytes("\n".join(rows).encode("cp932"))


def write_tsv(path: Path) -> None:
    rows = ["\t".join(ROWS[0]), *("\t".join(row.values()) for row in ROWS)]
    path.write_bytes("\n".join(rows).encode("utf-16"))


def write_excel(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(list(ROWS[0]))
    for row in ROWS:
        typed = [int(v) if v.isdigit() else v or None for v in row.values()]
        sheet.append(typed)
    book.save(path)


WRITERS = {
    "a.csv": write_csv,
    "a.tsv": write_tsv,
    "a.xlsx": write_excel,
    "a.jsonl": lambda path: path.write_bytes(lines(ROWS)),
    "a.ndjson": lambda path: path.write_bytes(lines(ROWS)),
    "a.json": lambda path: path.write_text(json.dumps(ROWS), "utf-8"),
    "a.parquet": lambda path: pa.parquet.write_table(pa.Table.from_pylist(ROWS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_with_names_of_its_own(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name, fields=NAMES, separator=";")
    assert [(q.qid, q.question, q.answers, q.documents) for q in found] == EXPECTED


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        ("富士山", ("富士山",)),
        ("a; b ;;a", ("a", "b")),
        ('["a", "b; c"]', ("a", "b; c")),
        ("['a', \"b's\"]", ("a", "b's")),
        ("[1945, 1.5, None]", ("1945", "1.5")),
        ("[a]", ("[a]",)),
        ("[" * 5000, ("[" * 5000,)),
        ("[" * 3000 + "]" * 3000, ("[" * 3000 + "]" * 3000,)),
        ("['x' * 10**9]", ("['x' * 10**9]",)),
        (1945, ("1945",)),
        (1945.0, ("1945",)),
        (["a", 7, "", None], ("a", "7")),
        (None, ()),
        (" ", ()),
    ],
)
def test_several_answers_in_a_cell(tmp_path: Path, cell: object, answers: tuple[str, ...]) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"question": "?!", "answers": cell}]))
    if isinstance(cell, list):  # a list is a list, whatever stands in it
        cell = [one for one in cell if one]
    (found,) = read(tmp_path / "a.jsonl", separator=";")
    assert found.answers == answers


def test_without_a_separator_a_cell_is_one_answer(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\nWho?,"Smith, John; Jr."\n', "utf-8")
    assert read(tmp_path / "a.csv")[0].answers == ("Smith, John; Jr.",)


def test_usual_names_are_found_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("ID, 質問 ,正解,備考\n7,山は?,富士山,x\n", "utf-8")
    (found,) = read(tmp_path / "a.csv")
    assert (found.qid, found.question, found.answers, found.extra) == (
        "7", "山は?", ("富士山",), {"備考": "x"},
    )  # fmt: skip
    said = capsys.readouterr().out.replace("\n", "")
    assert "is read by its fields (qid: ID, question: 質問, answers: 正解)." in said


def test_a_column_that_is_not_there_has_a_nearest_name(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    assert refusal(tmp_path / "a.csv", fields={"question": "質門", "answers": "正解"}) == (
        "a.csv:2: there is no field 質門 (fields found: 番号, 質問, 正解, 文書).\nDid you mean 質問?"
    )
    assert "Name the field in fields: {answers: …}." in refusal(
        tmp_path / "a.csv", fields={"question": "質問", "answers": "kotae"}
    )


@pytest.mark.parametrize(
    "number", [n for n, case in enumerate(CASES) if case.becomes[0].get("documents")]
)
def test_named_documents_are_kept(tmp_path: Path, number: int) -> None:
    case = CASES[number]
    (tmp_path / "a.jsonl").write_bytes(lines([case.record]))
    (found,) = read(tmp_path / "a.jsonl")
    assert list(found.documents) == case.becomes[0]["documents"]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_every_public_format_gives_questions(tmp_path: Path, number: int) -> None:
    case = CASES[number]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([case.record]))
    found = read(path)
    assert [(q.question, list(q.answers)) for q in found] == [
        (w["question"], w["answers"]) for w in case.becomes
    ]
    for question, wanted in zip(found, case.becomes, strict=True):
        gold = [wanted["passages"][i] for i in wanted["positive"] or []]
        assert [(p.title, p.text) for p in question.passages] == gold
        assert all(p.place is None for p in question.passages)
        assert question.where.startswith(f"{path}:1")


def test_the_same_question_of_another_paragraph_is_another(tmp_path: Path) -> None:
    other = {**SQUAD2_ARTICLE, "title": "France"}
    other["paragraphs"] = [{"context": f"{NORMANS} More.", "qas": [
        {"id": "new", "question": "In what country is Normandy located?",
         "answers": [{"text": "France", "answer_start": 73}], "is_impossible": False}]}]  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(lines([SQUAD2_ARTICLE, other]))
    assert len(read(tmp_path / "a.jsonl")) == 3


def test_what_stands_there_twice_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"question": "Who?", "answers": ["Ann"]},
        {"question": "Who ?", "answers": ["Ann"]},
        {"question": "WHO", "answers": ["Bob"]},
        {"question": "What?", "answers": []},
    ]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(lines(rows))
    found = read(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [(q.question, q.answers) for q in found] == [
        ("Who?", ("Ann",)), ("WHO", ("Bob",)), ("What?", ()),
    ]  # fmt: skip
    assert len({q.qid for q in found}) == 3
    said = capsys.readouterr().out.replace("\n", " ").replace(f"{tmp_path}/", "")
    assert "5 questions stand there twice and are taken once: a.jsonl:2, b.jsonl:1" in said
    assert "1 question is asked again with other answers: a.jsonl:3." in said
    assert "1 question has no answer: a.jsonl:4." in said


def test_a_qid_names_one_question_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("qid,question,answer\n1,Who?,Ann\n", "utf-8")
    (tmp_path / "b.csv").write_text("qid,question,answer\n1,What?,Tea\n", "utf-8")
    assert refusal(tmp_path / "a.csv", tmp_path / "b.csv").startswith(
        "b.csv:2: qid '1' was already used at a.csv:2."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv holds no question."),
        ("question,answer\n", "a.csv holds no question."),
        ("question,answer\n,Ann\n", "a.csv:2: question is empty."),
        ("topic,text\nx,y\n", "a.csv:2: field question is missing (fields found: topic, text)."),
        (
            "question,reply\nx,y\n",
            "a.csv:2: field answers is missing (fields found: question, reply).",
        ),
    ],
)
def test_what_holds_no_question_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content, "utf-8")
    assert refusal(tmp_path / "a.csv").startswith(message)


def test_documents_of_another_kind_are_just_a_field(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        lines([{"question": "?!", "answers": ["a"], "documents": [{"x": 1}]}])
    )
    (found,) = read(tmp_path / "a.jsonl")
    assert (found.documents, found.extra) == ((), {"documents": [{"x": 1}]})


@pytest.mark.parametrize(("separator", "told"), [(None, True), (";", False)])
def test_answers_that_look_like_several_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], separator: str | None, told: bool
) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question,answers\nA?,one;1\nB?,two;2\nC?,three\nD?,;\n", "utf-8")
    found = list(read_questions([str(path)], Questions(files=["q.csv"], separator=separator)))
    assert [len(one.answers) for one in found[:2]] == ([1, 1] if told else [2, 2])
    said = " ".join(capsys.readouterr().out.split())
    assert ("2 of 4 questions have an answer with ; in it." in said) is told
    assert ('set questions.separator: ";"' in said) is told
