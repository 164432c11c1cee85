"""Quotes: trained before the answer, taken off what a model wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data.citations import Parsed, parse
from ragtune.data.counts import shortest_accepted
from ragtune.data.prompt import PRESETS, PromptBuilder
from ragtune.data.quotes import quote_of, quoted, sentence, unquoted
from ragtune.recipe.data import Prompt
from tests.conftest import make_records, write_records
from tests.data.prepared import prepare_both
from tests.data.test_citations import encoder, example, recipe_of, trained_text

QUOTES = Prompt(preset="english", quote=True)
BOTH = Prompt(preset="english", quote=True, citations=True)
TEXTS = ("Rome is old.", "Look. It is in Paris. Go!", "Paris, again Paris.")


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("One. It is in Paris. Two.", "Paris", "It is in Paris."),
        ("It is in Paris", "Paris", "It is in Paris"),
        ("In 3.5 days. Mr. Smith of St. Ives and J. R. Brown won it! No?", "Ives",
         "Mr. Smith of St. Ives and J. R. Brown won it!"),
        ("He said “It is Rome.” Then he left.", "Rome", "He said “It is Rome.”"),
        ("It costs 3.14 in the U.S. today. Or so.", "3.14", "It costs 3.14 in the U.S. today."),
        ("A line\nthat is\n  in Paris, too \nand more", "Paris", "in Paris, too"),
        ("東京は首都である。塔は東京タワーという。高い！", "東京タワー", "塔は東京タワーという。"),
        ("彼は「行く。」と言った。次。", "行く", "彼は「行く。」と言った。"),
        ("円周率は３．１４である．次の文．", "３．１４", "円周率は３．１４である．"),
        ("Tom. Ann. Both.", "Tom. Ann", "Tom. Ann."),
        ("Where?!  In Oslo.", "Oslo", "In Oslo."),
    ],
)  # fmt: skip
def test_the_sentence_of_an_answer(text: str, answer: str, expected: str) -> None:
    start = text.index(answer)
    assert sentence(text, start, start + len(answer)) == expected


@given(st.text("aB .。\n「」!1"), st.integers(0, 30), st.integers(1, 9))
def test_a_sentence_is_one_line_of_the_text_around_the_answer(
    text: str, start: int, size: int
) -> None:
    answer = text[start : start + size]
    found = sentence(text, start, start + len(answer))
    assert "\n" not in found
    assert "".join(answer.split()) in "".join(found.split()) in "".join(text.split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("> In Paris.\nParis", Parsed("Paris", (), "In Paris.")),
        ("> In Paris.\nParis [2]", Parsed("Paris", (2,), "In Paris.")),
        (">塔は東京。\n\n東京[1][3]。", Parsed("東京", (1, 3), "塔は東京。")),
        ("> One.\n> Two.\nPa\nris", Parsed("Pa\nris", (), "One. Two.")),
        ("> One.\n  > Two.\n \n >\nParis", Parsed("Paris", (), "One. Two.")),
        ("> In Paris.", Parsed("> In Paris.")),
        ("> In Paris.\n \n", Parsed("> In Paris.\n \n")),
        ("In Paris.\nParis", Parsed("In Paris.\nParis")),
        ("Paris [2]", Parsed("Paris", (2,))),
        ("", Parsed("")),
    ],
)
def test_parsing(text: str, found: Parsed) -> None:
    """What can't be told apart counts as it stands."""
    assert parse(text, BOTH) == found
    if not found.numbers:
        assert parse(text, QUOTES) == found
    assert parse(text, Prompt(preset="english")) == Parsed(text)


@given(st.text("ab> \n[1]"))
def test_what_is_left_has_no_quote(text: str) -> None:
    once = parse(text, QUOTES)
    assert parse(once.answer, QUOTES) == Parsed(once.answer)
    assert text.endswith(once.answer)


_ANSWER = st.text().map(str.lstrip).filter(lambda t: t and not t.startswith(">"))
_QUOTE = st.text().map(lambda t: " ".join(t.split())).filter(lambda t: t.strip("> "))


@given(_ANSWER, _QUOTE)
def test_what_is_quoted_comes_back(answer: str, quote: str) -> None:
    assert unquoted(quoted(answer, quote)) == (quote, answer)
    assert quoted(answer, "") == answer


def test_parsing_takes_a_time_that_grows_with_the_text() -> None:
    for many in (">\n" * 200_000, " " * 200_000, "> a" * 200_000, "\n" * 200_000 + ">"):
        parse(many, BOTH)
    long = "a. B" * 100_000
    assert sentence(long, 200_000, 200_004)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_ask_for_it(preset: Any) -> None:
    plain, asking, both = (
        PromptBuilder.of(Prompt(preset=preset, quote=quote, citations=cites)).text("?", [])
        for quote, cites in ((False, False), (True, False), (True, True))
    )
    assert '"> "' not in plain
    assert "「> 」" not in plain
    added = [line for line in asking.splitlines() if line not in plain.splitlines()]
    assert len(added) == 1
    assert added[0] in both
    assert "[1]" in both


def test_targets_quote_the_first_positive_that_is_shown(chatml_tokenizer: Any) -> None:
    one = example(texts=TEXTS)
    made = encoder(
        chatml_tokenizer, recipe_of(prompt={"citations": False, "quote": True}, data={"max_passages": 3})
    )  # fmt: skip
    assert trained_text(made, one) == "> It is in Paris.\nParis"
    assert trained_text(made, replace(one, positive_passage_indices=(2,))).startswith("> Paris, ")
    assert trained_text(made, replace(one, positive_passage_indices=())) == "Paris"
    assert trained_text(made, example("Par", TEXTS)) == "Par"  # inside a word
    made = encoder(chatml_tokenizer, recipe_of(prompt={"quote": True}, data={"max_passages": 3}))
    assert trained_text(made, one) == "> It is in Paris.\nParis [2][3]"
    assert quote_of(one, "Paris", [(2, TEXTS[2]), (1, TEXTS[1])]) == TEXTS[2]  # as it is shown


def test_a_refusal_quotes_nothing(chatml_tokenizer: Any) -> None:
    recipe = recipe_of(prompt={"quote": True}, data={"refusal": "not said"})
    one = replace(example(), answers=(), positive_passage_indices=())
    assert trained_text(encoder(chatml_tokenizer, recipe), one) == "not said"
    assert parse("not said", recipe.prompt) == Parsed("not said")


def test_japanese(chatml_tokenizer: Any) -> None:
    prompt = {"preset": "aio", "chat_template": "aio", "quote": True}
    made = encoder(chatml_tokenizer, recipe_of(prompt=prompt))
    one = example("東京", ("首都は東京である。大阪ではない。",), (0,))
    assert trained_text(made, one) == "> 首都は東京である。\n東京 [1]"


def test_what_is_too_long_counts_the_quote(chatml_tokenizer: Any) -> None:
    one = example(texts=TEXTS)
    plain, quoting = (
        shortest_accepted(
            encoder(chatml_tokenizer, recipe_of(prompt={"quote": on, "citations": False})), [one]
        )
        for on in (False, True)
    )
    assert quoting[0] > plain[0] + 10


def test_answers_without_a_quote_are_counted(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    records = make_records(10)
    for record in records[:3]:
        record["answers"] = ["a colour"]
    train = write_records(tmp_path / "train.jsonl", records)
    evaluated = write_records(tmp_path / "eval.jsonl", make_records(3, "e"))
    recipe = recipe_of(
        data={"train": str(train), "eval": str(evaluated)}, prompt={"quote": True},
        evaluate={"max_new_tokens": 64},
    )  # fmt: skip
    made = encoder(chatml_tokenizer, recipe)
    report = prepare_both(recipe, made, tmp_path / "out")
    assert report["train"]["unquoted"] == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 10 answers have no quote before them" in said
    assert not next(a for a in report["audits"] if a["name"] == "changed_answers")["count"]


def test_it_is_not_for_answers_that_are_copied() -> None:
    with pytest.raises(UsageError, match="can only write one span"):
        recipe_of(prompt={"quote": True, "citations": False}, evaluate={"copy": True})
