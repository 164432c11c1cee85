"""Each public format is told from all others by its first record, and becomes what it means."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data.example import parse_example
from ragtune.data.formats.reading import FORMATS, How, as_records
from ragtune.data.read import read_examples, records
from ragtune.recipe.formats import QuestionFormat
from tests.conftest import make_records
from tests.data.formats_table import CASES, SQUAD2_ARTICLE, Case, lines

NAMED = [pytest.param(case, id=f"{number}-{case.name}") for number, case in enumerate(CASES)]


def converted(record: object, how: How | None = None, **more: Any) -> list[dict[str, Any]]:
    how = dataclasses.replace(how or How(**more), say=lambda _: None)
    return [found for _, found in as_records(iter([("here:1", record)]), "here", how)]


def refusal(record: object, **how: Any) -> str:
    with pytest.raises(UsageError) as raised:
        converted(record, **how)
    return str(raised.value)


def compared(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What of a record the table names."""
    passages = found.get("passages")
    shown = {
        "qid": str(found["qid"]) if "qid" in found else None,
        "question": found["question"],
        "answers": found["answers"],
        "passages": None if passages is None else [(p["title"], p["text"]) for p in passages],
        "positive": found.get("positive_passage_indices"),
    }
    if "documents" in found or "documents" in wanted:
        shown["documents"] = found.get("documents")
    if "ids" in wanted:
        shown["ids"] = [p.get("passage_id") for p in passages or []]
    if "extra" in wanted:
        shown["extra"] = {k: found.get(k) for k in wanted["extra"]}
    return shown


@pytest.mark.parametrize("case", NAMED)
def test_a_record_becomes_what_it_means(case: Case) -> None:
    said: list[str] = []
    found = [
        f for _, f in as_records(iter([("here:1", case.record)]), "here", How(say=said.append))
    ]
    assert [compared(f, w) for f, w in zip(found, case.becomes, strict=True)] == case.becomes
    assert [line.partition(".")[0] for line in said] == [f"here is read as {case.title}"]
    assert converted(case.record, format=case.name) == found


@pytest.mark.parametrize("case", NAMED)
def test_a_record_fits_one_format_alone(case: Case) -> None:
    fitting = [one.title for one in FORMATS if one.fits(case.record)]
    assert fitting == [case.title]


@pytest.mark.parametrize("case", NAMED)
def test_what_it_becomes_is_a_record_of_our_own(case: Case, tmp_path: Path) -> None:
    for found in converted(case.record):
        if "passages" not in found:
            continue
        example = parse_example(found, "here:1")
        again = example.to_dict()
        assert converted(again) == [again]  # and is read as it is
        (tmp_path / "a.jsonl").write_bytes(lines([again]))
        assert [e.to_dict() for e in read_examples(str(tmp_path / "a.jsonl"), "")] == [again]


def test_every_format_of_the_recipe_has_a_case() -> None:
    named = set(get_args(QuestionFormat)) - {"auto", "records"}
    assert named == {one.name for one in FORMATS} == {case.name for case in CASES}


def test_our_own_records_are_left_as_they_are_and_nothing_is_said() -> None:
    said: list[str] = []
    rows = [(f"here:{i}", r) for i, r in enumerate(make_records(3))]
    assert list(as_records(iter(rows), "here", How(say=said.append))) == rows
    assert said == []


def test_what_fits_no_format_is_left_to_the_check_of_our_own() -> None:
    assert converted({"question": "?"}) == [{"question": "?"}]
    assert converted([1]) == [[1]]


# What is refused.


def test_a_named_format_that_does_not_fit_says_what_was_found_and_what_is_wanted() -> None:
    assert refusal(make_records(1)[0], format="hotpotqa") == (
        "here:1: no HotpotQA. Fields found: qid, question, answers, passages, positive_passage_indices, "
        "negative_passage_indices; wanted: question, answer, context (title and sentences), supporting_facts.\n"
        "Name another format, or none: it is then found by looking."
    )


def test_a_field_that_is_missing_further_down_is_named_with_its_place() -> None:
    broken = json.loads(json.dumps(SQUAD2_ARTICLE))
    del broken["paragraphs"][0]["qas"][1]["question"]
    assert refusal(broken) == (
        "here:1: no SQuAD 2: field paragraphs[0].qas[1].question is missing (fields found: "
        "plausible_answers, id, answers, is_impossible).\n"
        "SQuAD 2 has articles: title, paragraphs, each with context and qas (id, question, answers)."
    )


def test_a_later_record_of_another_format_is_refused_with_its_line(tmp_path: Path) -> None:
    fid = next(case.record for case in CASES if case.name == "fid")
    (tmp_path / "a.jsonl").write_bytes(lines([fid, {"question": "?", "answers": ["a"], "ctx": []}]))
    with pytest.raises(UsageError) as raised:
        list(read_examples(str(tmp_path / "a.jsonl"), "", how=How(say=lambda _: None)))
    assert str(raised.value).replace(f"{tmp_path}/", "") == (
        "a.jsonl:2: no FiD: field ctxs is missing (fields found: question, answers, ctx).\n"
        "FiD has question, answers or target, ctxs (title, text). Did you mean ctx?"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctxs": "text"}, "no FiD: ctxs must be a list, this is 'text'"),
        ({"ctxs": [7]}, "no FiD: ctxs[0] must be an object, this is 7"),
        ({"ctxs": [{"title": "t"}]}, "no FiD: field ctxs[0].text is missing (fields found: title)"),
        ({"ctxs": {"text": ["a", "b"], "title": ["t"]}}, "ctxs must be an object of lists of the same length"),
        ({"answers": [True], "target": None}, "here:1: answers is true, and no text"),
        ({"answers": [["a"]], "target": None}, "here:1: answers must be text, this is ['a']"),
        ({"question": 7}, "no FiD: question must be text, this is 7"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_record_is_told(change: dict[str, Any], message: str) -> None:
    fid = next(case.record for case in CASES if case.name == "fid")
    assert message in refusal(fid | change)


def test_a_conversation_without_an_answer_is_told() -> None:
    assert "there is no question with an answer behind it" in refusal(
        {"messages": [{"role": "user", "content": "?"}]}
    )


@pytest.mark.parametrize("name", ["nq-open", "kilt", "flashrag", "messages", "aio"])
def test_questions_without_passages_say_where_to_go(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    path = tmp_path / "q.jsonl"
    path.write_bytes(lines([case.record]))
    with pytest.raises(UsageError) as raised:
        list(read_examples(str(path), ""))
    assert f"{path}:1: questions without passages, which a model is to read." in str(raised.value)
    assert "ragtune build" in str(raised.value)
    assert "docs/documents.md" in str(raised.value)


VALUES: list[Any] = [
    None,
    True,
    0,
    1.5,
    float("nan"),
    "",
    "x",
    [],
    [None],
    [[]],
    [1],
    {},
    {"a": 1},
    [{}],
    [{"text": 1}],
]


@pytest.mark.parametrize("case", NAMED)
def test_a_field_of_another_kind_ends_in_a_message(case: Case) -> None:
    places = []
    for field, value in itertools.product(case.record, VALUES):
        for how in (How(say=lambda _: None), How(format=case.name, say=lambda _: None)):
            try:
                for found in converted(case.record | {field: value}, how):
                    if isinstance(found, dict) and "passages" in found:
                        parse_example(found, "here:1")
            except UsageError as error:
                places.append(error.message)
    assert all("here:1" in place for place in places)


deep = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["text", "title", "context", "qas", "question", "answers", "id", "content", "role", "value", "from",
                         "is_selected", "passage_text", "sentences", "aliases", "provenance", "answer"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def test_an_article_whose_paragraphs_ask_nothing_ends_in_a_message() -> None:
    record = {"title": "t", "paragraphs": [{"context": None, "qas": None}]}
    for name in ("auto", "squad"):
        with pytest.raises(UsageError, match=r"here:1"):
            converted(record, format=name)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), st.data())
def test_anything_in_the_place_of_a_field_ends_in_a_message(
    case: Case, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(case.record)))
    record = case.record | {field: data.draw(deep)}
    places = []
    for name in ("auto", case.name):
        try:
            converted(record, format=name)
        except UsageError as error:
            places.append(error.message)
    assert all("here:1" in place for place in places)


def test_a_squad_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [SQUAD2_ARTICLE] * 2}), "utf-8")
    places = [
        where for where, _ in as_records(records(str(path)), str(path), How(say=lambda _: None))
    ]
    assert [p.removeprefix(f"{path}: ") for p in places] == [
        "record 1, question 1", "record 1, question 2", "record 2, question 1", "record 2, question 2",
    ]  # fmt: skip
