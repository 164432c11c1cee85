"""A file of ids that were retrieved elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragtune.base.errors import UsageError
from ragtune.building.retrieval import retrieved
from ragtune.building.retrieval.known import KnownPassages
from ragtune.building.retrieval.retrieved import Retrieved
from ragtune.building.retrieval.retriever import Entry, Hit

KNOWN = KnownPassages.of([Entry("a", "", "1"), Entry("b", "", "2"), Entry("3", "", "3")])


def written(folder: Path, *records: object) -> Path:
    path = folder / "found.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(retrieved, "warn", lines.append)
    return lines


def test_by_qid_and_by_question(tmp_path: Path, said: list[str]) -> None:
    path = written(
        tmp_path,
        {"qid": "q1", "passage_ids": ["b", "a", "b", 3]},
        "",
        {"question": "富士山は?", "passage_ids": ["a"]},
        {"qid": 7, "question": "富士山は?", "passage_ids": ["3"]},
    )
    file = Retrieved.open(path, KNOWN)
    assert file.of([("q1", "any"), ("7", ""), ("", "富士山は?")], 2) == [
        [Hit("b", 1.0), Hit("a", 0.5)],
        [Hit("3", 1.0)],
        [Hit("a", 1.0)],
    ]
    assert file.search(["富士山は?"], 2) == [[Hit("a", 1.0)]]
    assert said == []


def test_what_is_missing_and_unknown_is_counted_and_said(tmp_path: Path, said: list[str]) -> None:
    path = written(tmp_path, {"qid": "q1", "passage_ids": ["x", "a", "y"]})
    file = Retrieved.open(path, KNOWN)
    asked = [("q1", ""), ("q2", "Who?")]
    file.tell(asked)
    assert file.of(asked, 5) == [[Hit("a", 1.0)], []]
    assert file.of(asked[1:], 5) == [[]]
    assert said == [
        f"retrieval.retrieved: 2 of 3 ids in {path} are no passages of this corpus, and are left out; the first: x in line 1.",
        f"retrieval.retrieved: 1 of 2 questions is not in {path}, and has no passages; the first: q2.",
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (['{"qid": '], ":1 is no JSON"),
        (["[1]"], ":1 holds no object."),
        (
            [{"id": "q1", "passage_ids": ["a"]}],
            ":1: there is neither qid nor question (fields: id, pass",
        ),
        ([{"qid": "q1", "passages": []}], ":1: passage_ids is no list of ids."),
        ([{"qid": "q1", "passage_ids": [["a", 0.5]]}], ":1: passage_ids is no list of ids."),
        ([{"qid": "q", "passage_ids": ["a"]}] * 2, ":2: qid q is there already."),
        (
            [{"qid": "q", "passage_ids": ["x"]}],
            "names no passage of this corpus (1 id; the first: x in line 1)",
        ),
        ([], "names no passage of this corpus (0 ids)."),
        (["x" * 200], ":1 has more than"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, records: list[object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieved, "_LONGEST", 150)
    with pytest.raises(UsageError) as raised:
        Retrieved.open(written(tmp_path, *records), KNOWN)
    assert message in raised.value.message


def test_none_of_the_questions(tmp_path: Path) -> None:
    file = Retrieved.open(written(tmp_path, {"qid": "q1", "passage_ids": ["a"]}), KNOWN)
    with pytest.raises(UsageError, match="has none of 2 questions; the first: 1"):
        file.tell([("1", ""), ("2", "")])
    with pytest.raises(UsageError, match="has none of 1 question; the first: 1"):
        file.tell([("1", "")])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Retrieved.open(tmp_path / "no.jsonl", KNOWN)
    with pytest.raises(UsageError, match="does not exist"):
        Retrieved.open(tmp_path, KNOWN)
