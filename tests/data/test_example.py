"""One record: what is accepted, and what is refused in which words."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data.example import Example, Passage, Place, parse_example

RECORD: dict[str, Any] = {
    "qid": "q1",
    "question": "What is the capital of France?",
    "answers": ["Paris"],
    "passages": [
        {"passage_id": 1, "title": "France", "text": "Paris is the capital of France."},
        {"passage_id": 2, "title": "Italy", "text": "Rome is the capital of Italy."},
    ],
    "positive_passage_indices": [0],
    "negative_passage_indices": [1],
}


def record_with(**changes: Any) -> dict[str, Any]:
    return {**RECORD, **changes}


def record_without(name: str) -> dict[str, Any]:
    return {k: v for k, v in RECORD.items() if k != name}


def refusal(record: Any) -> str:
    with pytest.raises(UsageError) as raised:
        parse_example(record, "x.jsonl:7")
    assert raised.value.message.startswith("x.jsonl:7: ")
    return raised.value.message.removeprefix("x.jsonl:7: ")


# A letter that several normal forms write otherwise, line separators, a sign beyond the first plane.
text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\x85が🗼 \n"))
said = text.filter(str.strip)

places = st.builds(Place, text, st.integers(), st.integers(), st.none() | st.integers(), text)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    passages = draw(
        st.lists(
            st.builds(Passage, text, text, st.none() | st.integers() | text, st.none() | places),
            max_size=4,
        ).map(tuple)
    )  # fmt: skip
    indices = st.lists(st.integers(0, len(passages) - 1), unique=True) if passages else st.just([])
    return Example(
        qid=draw(text.filter(bool)),
        question=draw(said),
        answers=tuple(draw(st.lists(said, max_size=3))),
        passages=passages,
        positive_passage_indices=tuple(draw(indices)),
        negative_passage_indices=tuple(draw(indices)),
        extra=draw(
            st.dictionaries(st.sampled_from(["section", "timestamp", "考"]), text | st.none())
        ),
    )


@given(examples())
def test_read_after_write_is_identity(example: Example) -> None:
    assert parse_example(json.loads(json.dumps(example.to_dict())), "x") == example


@given(examples(), st.integers(0, 5))
def test_the_first_passages_keep_their_marks(example: Example, count: int) -> None:
    first = example.first_passages(count)
    assert first.passages == example.passages[:count]
    assert [i for i in example.positive_passage_indices if i < count] == list(
        first.positive_passage_indices
    )
    assert parse_example(first.to_dict(), "x") == first


def test_the_genuine_record_keeps_every_field(record: dict[str, Any]) -> None:
    example = parse_example(record, "x")
    assert example.to_dict() == record
    assert (len(example.passages), example.answers) == (100, ("ジェット団",))
    assert example.extra["competition"] == "第2回AI王"
    assert not example.positives_computed


def test_a_record_with_the_schema_s_fields_alone_is_accepted() -> None:
    example = parse_example(RECORD, "x")
    assert example.to_dict() == RECORD
    assert example.extra == {}


def test_titles_and_passage_ids_may_be_left_out() -> None:
    example = parse_example(
        record_with(passages=[{"text": "Paris"}, {"text": "x", "title": None}]), "x"
    )
    assert example.passages == (Passage("Paris"), Passage("x"))


def test_positives_are_found_by_the_answer_s_text() -> None:
    record = record_without("positive_passage_indices") | {"answers": ["Lyon", "Rome"]}
    del record["negative_passage_indices"]
    example = parse_example(record, "x")
    assert example.positive_passage_indices == (1,)
    assert example.negative_passage_indices == (0,)
    assert example.positives_computed


def test_positives_computed_for_the_genuine_record_are_the_data_s_own(
    record: dict[str, Any],
) -> None:
    bare = {k: v for k, v in record.items() if not k.endswith("_passage_indices")}
    example = parse_example(bare, "x")
    assert example.to_dict() == record


def test_negatives_are_the_rest_where_they_are_not_given() -> None:
    example = parse_example(record_without("negative_passage_indices"), "x")
    assert example.negative_passage_indices == (1,)
    assert not example.positives_computed


def test_no_answer_is_legal_and_has_no_positive() -> None:
    example = parse_example(record_with(answers=[], positive_passage_indices=None), "x")
    assert (example.answers, example.positive_passage_indices) == ((), ())


def test_an_empty_answer_is_no_answer() -> None:
    example = parse_example(
        record_with(answers=["", " ", "Rome"], positive_passage_indices=None), "x"
    )
    assert (example.answers, example.positive_passage_indices) == (("Rome",), (1,))


def test_no_passage_is_legal() -> None:
    record = record_with(passages=[], positive_passage_indices=[], negative_passage_indices=[])
    assert parse_example(record, "x").passages == ()


def test_a_missing_qid_is_a_hash_of_question_and_passages() -> None:
    one, same, other = (
        parse_example(r, "x").qid
        for r in (record_without("qid"), record_with(qid=None), record_with(qid="", question="?"))
    )
    assert one == same == "116e402ffbd18046"
    assert other != one


def test_a_number_as_qid_is_its_text() -> None:
    assert parse_example(record_with(qid=7), "x").qid == "7"


def test_what_json_cannot_hold_is_kept_as_text() -> None:
    example = parse_example(record_with(timestamp=dt.date(2025, 6, 19), n=1), "x")
    assert example.extra == {"timestamp": "2025-06-19", "n": 1}


@pytest.mark.parametrize("more", [{}, {"n": 1}], ids=["text alone", "a number too"])
def test_what_else_a_record_holds_is_the_example_s_own(more: dict[str, Any]) -> None:
    record = record_with(section="dev", **more)
    example = parse_example(record, "x")
    assert example.extra == {"section": "dev", **more}
    record["section"] = "train"
    assert example.extra == {"section": "dev", **more}


PASSAGE = RECORD["passages"][0]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "a record must be a JSON object, this is a list."),
        ("x", "a record must be a JSON object, this is a string."),
        (None, "a record must be a JSON object, this is null."),
        ({}, "field question is missing (fields found: none)."),
        (
            record_without("question"),
            "field question is missing (fields found: qid, answers, passages, positive_passage_indices, negative_passage_indices).",
        ),
        (record_without("answers"), "field answers is missing (fields found: qid, question,"),
        (record_without("passages"), "field passages is missing (fields found: qid, question,"),
        (record_with(question=5), "question must be a string, this is a number: 5."),
        (record_with(question=" \n"), "question is empty."),
        (record_with(qid=1.5), "qid must be a string, this is a number: 1.5."),
        (record_with(qid=True), "qid must be a string, this is a boolean: true."),
        (record_with(qid=["a"]), 'qid must be a string, this is a list: ["a"].'),
        (record_with(answers="Paris"), 'answers must be a list, this is a string: "Paris".'),
        (record_with(answers=None), "answers must be a list, this is null: null."),
        (record_with(answers=["a", 5]), "answers[1] must be a string, this is a number: 5."),
        (record_with(answers="x" * 99), f'answers must be a list, this is a string: "{"x" * 58}….'),
        (record_with(passages={}), "passages must be a list, this is an object: {}."),
        (record_with(passages=["x"]), 'passages[0] must be an object with text, this is a string: "x".'),
        (record_with(passages=[{"title": "x"}]), "passages[0].text is missing."),
        (record_with(passages=[PASSAGE, {"text": 5}]), "passages[1].text must be a string, this is a number: 5."),
        (record_with(passages=[PASSAGE | {"title": 5}]), "passages[0].title must be a string, this is a number: 5."),
        (
            record_with(passages=[PASSAGE | {"passage_id": [1]}]),
            "passages[0].passage_id must be a string or a number, this is a list: [1].",
        ),
        (
            record_with(positive_passage_indices=[0, 2]),
            "positive_passage_indices[1] is 2, but there are 2 passages (0 to 1).",
        ),
        (
            record_with(negative_passage_indices=[-1]),
            "negative_passage_indices[0] is -1, but there are 2 passages (0 to 1).",
        ),
        (record_with(passages=[]), "positive_passage_indices[0] is 0, but there are none."),
        (record_with(positive_passage_indices=0), "positive_passage_indices must be a list, this is a number: 0."),
        (
            record_with(positive_passage_indices=["0"]),
            'positive_passage_indices[0] must be an integer, this is a string: "0".',
        ),
        (
            record_with(negative_passage_indices=[True]),
            "negative_passage_indices[0] must be an integer, this is a boolean: true.",
        ),
        (record_with(question="a\ud800"), "question holds half of a surrogate pair, which is no text."),
        (record_with(qid="a\ud800"), "qid holds half of a surrogate pair, which is no text."),
        (record_with(answers=["a\ud800"]), "answers[0] holds half of a surrogate pair"),
        (record_with(passages=[{"text": "a\ud800"}]), "passages[0].text holds half of a surrogate pair"),
        (record_with(passages=[{"text": "a", "title": "\ud800"}]), "passages[0].title holds half of a surrogate"),
        (record_with(section="a\ud800"), "section holds half of a surrogate pair"),
        (record_with(**{"b": "c", "a\ud800": "d"}), "b, a\\ud800 holds half of a surrogate pair"),
        (record_with(section="a\ud800", at=dt.date(2025, 6, 19)), "section, at holds half of a"),
    ],
)  # fmt: skip
def test_refusal_names_the_field(record: Any, message: str) -> None:
    assert message in refusal(record)


@pytest.mark.parametrize(
    "place",
    [
        "the attic", 7, [], {}, {"file": "a.pdf"}, {"file": 3, "start": 0, "end": 1},
        {"file": "a.pdf", "start": "0", "end": 1}, {"file": "a.pdf", "start": True, "end": 1},
        {"file": "\ud800", "start": 0, "end": 1},
    ],
)  # fmt: skip
def test_what_other_data_call_a_place_is_none_of_ours(place: Any) -> None:
    passage = {**RECORD["passages"][0], "place": place}
    example = parse_example(record_with(passages=[passage], negative_passage_indices=[]), "x")
    assert example.passages[0].place is None


def test_a_place_in_words() -> None:
    assert Place("manual.pdf", 3, 9, page=12, heading="Start").in_words() == "manual.pdf, p. 12"
    assert Place("a.md", 3, 9, heading="Start > First").in_words() == "a.md, Start > First"
    assert Place("a.txt", 3, 9).in_words() == "a.txt"
    assert Place("Prices.XLSX", 3, 9, page=4, heading="2024").in_words() == "Prices.XLSX, row 4"
    assert Place("a.csv", 3, 9, page=4).in_words() == "a.csv, row 4"
    assert Place("all.zip/a.jsonl.gz", 3, 9, page=4).in_words() == "all.zip/a.jsonl.gz, record 4"
    assert Place("talk.pptx", 3, 9, page=4).in_words() == "talk.pptx, slide 4"
