"""What a model wrote: read strictly, whatever it is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.building.synthesis.reply import (
    LONGEST_ANSWER,
    LONGEST_QUESTION,
    Reply,
    points,
    read_reply,
    same_language,
    without_thought,
)

GOOD = '{"question": "Where is it?", "answer": "in Paris"}'
FOUND = Reply("Where is it?", "in Paris")


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here it is: {GOOD} I hope that helps {{!}}",
        f"{GOOD}\n{GOOD}\n" + '{"question": "More?", "answer": "no"}' * 500,  # it came to no end
        '{"answer": " in Paris\\n", "question": " Where\\n is  it? ", "why": [1, {"a": null}]}',
        f'{{"thought": "x"}} {GOOD}',
        f'<think>\nPerhaps {{"question": "Who?", "answer": "I"}}?\n</think>\n{GOOD}',
        f"Perhaps so</think>{GOOD}",
        f"[{GOOD}]",
        f"{{{{{GOOD}",
    ],
)  # fmt: skip
def test_an_object_with_both(text: str) -> None:
    assert read_reply(text) == FOUND


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "What is it? It is in Paris.",
        "Question: Where is it?\nAnswer: in Paris",
        GOOD[:-1],
        GOOD.replace('"', "'"),
        '{"question": "", "answer": "in Paris"}',
        '{"question": "Where is it?", "answer": " "}',
        '{"question": ["Where is it?"], "answer": "in Paris"}',
        '{"question": "Where is it?", "answer": 5}',
        '{"question": "Where is it?", "answer": null}',
        '{"question": "Where is it?"}',
        '["Where is it?", "in Paris"]',
        '{"question": "Where is it?", "answer": "in\\nParis"}',
        '{"question": "Where is it?", "answer": "in\\u2028Paris"}',
        '{"question": "Where is it?\\u0000", "answer": "in Paris"}',
        '{"question": "Where is it?", "answer": "in \\u202eParis"}',
        '{"question": "Where is it?", "answer": "\\ud800"}',
        '{"question": "Where\\u001b[2J is it?", "answer": "in Paris"}',
        '{"question": "Where <|im_end|> is it?", "answer": "in Paris"}',
        '{"question": "Where is it?", "answer": "</s>"}',
        '{"question": "Where is it? <start_of_turn>", "answer": "in Paris"}',
        '{"question": "Where is it?", "answer": "[INST] in Paris"}',
        json.dumps({"question": "x" * (LONGEST_QUESTION + 1), "answer": "in Paris"}),
        json.dumps({"question": "Where is it?", "answer": "x" * (LONGEST_ANSWER + 1)}),
        f"<think>{GOOD}",
        "  <Thinking> " + GOOD,
        "x" * 20_000 + GOOD,
    ],
)
def test_what_can_not_be_used(text: str) -> None:
    assert read_reply(text) is None


@pytest.mark.parametrize(
    "text",
    ["{" * 10**6, '{"a":' * 10**6, "[" * 10**6, "</think>" * 10**6, '{"question": "' + "x" * 10**7, "<think>" * 10**6],
)  # fmt: skip
def test_it_ends_soon(text: str) -> None:
    start = time.process_time()
    assert read_reply(text) is None
    assert time.process_time() - start < 2


@given(st.text())
def test_nothing_raises(text: str) -> None:
    found = read_reply(text)
    assert found is None or (found.question and found.answer)
    assert without_thought(text) in text


@given(st.text(), st.text())
def test_what_is_kept_is_what_was_written(question: str, answer: str) -> None:
    found = read_reply(json.dumps({"question": question, "answer": answer}))
    if found:
        assert found.answer in answer
        assert found.question.split() == question.split()


@pytest.mark.parametrize(
    ("question", "passage", "language", "same"),
    [
        ("富士山の標高は？", "富士山は日本の山である。", "ja", True),
        ("What is the height of 富士山?", "富士山は日本の山である。", "ja", False),
        ("富士山有多高？", "富士山は日本の山である。", "ja", False),
        ("NHKとは？", "NHK is Japan's broadcaster", "ja", True),
        ("富士山有多高？", "富士山是日本的山。", "zh", True),
        ("富士山の標高は？", "富士山是日本的山。", "zh", False),
        ("Who leads the 国会?", "The Diet (国会, Kokkai) is a parliament.", "en", True),
        ("国会の場所は？", "The Diet (国会, Kokkai) is a parliament.", "en", False),
        ("Кто это?", "Это Анна.", "ru", True),
        ("Who is it?", "Это Анна.", "ru", False),
        ("Wo ist es?", "Es ist in Köln.", "de", True),
    ],
)
def test_the_language(question: str, passage: str, language: str, same: bool) -> None:
    assert same_language(question, passage, language) == same


@pytest.mark.parametrize(
    ("question", "does"),
    [
        ("According to the passage, who was first?", True),
        ("What is This article about?", True),
        ("この文章によると、誰が建てたか？", True),
        ("本文で述べられている年は？", True),
        ("Who wrote the textbook?", False),
        ("Which river has a passage to the sea?", False),
        ("日本文学の父は誰か？", False),
        ("この橋を建てたのは誰か？", False),
    ],
)
def test_what_speaks_of_its_text(question: str, does: bool) -> None:
    assert points(question) == does
