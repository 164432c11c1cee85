"""With evaluate.orders each question is asked with its passages in several orders, and the answers vote."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragtune.answering.engine import Way
from ragtune.answering.local import Local
from ragtune.answering.orders import answer_in_orders, voted
from ragtune.answering.prediction import Prediction
from ragtune.answering.ragged import Ragged
from ragtune.answering.server import Server
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example, Passage, parse_example
from ragtune.data.select import shown_indices
from ragtune.data.spans import Source
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.load import load_recipe
from tests.answering.families import family_model
from tests.answering.test_server import Chat, chat, pauses  # noqa: F401 - fixtures
from tests.conftest import make_records

TITLE = "answering (before)"


def said(text: str, probability: float | None = None, **more: Any) -> Prediction:
    return Prediction("q", text, [], True, probability, **more)


@pytest.mark.parametrize(
    ("answers", "place", "probability"),
    [
        ([("a", 0.5), ("b", 0.4), ("b", 0.3)], 1, 0.2333),  # together they are more probable
        ([("a", 0.8), ("b", 0.4), ("b", 0.3)], 0, 0.2667),
        ([("a", 0.3), ("b", 0.1), ("b", 0.2)], 0, 0.1),  # a tie, though 0.1 + 0.2 is a little more
        ([("a", 0.2), ("b", 0.3)], 1, 0.15),
        ([("a", 0.2), ("a", 0.3)], 0, 0.25),
        ([("a", None), ("b", None), ("b", None)], 1, None),  # of a server each counts as one
        ([("a", None), ("b", None), ("c", None)], 0, None),
        ([("a", 0.25)], 0, 0.25),
    ],
)
def test_the_answer_that_is_most_probable_over_the_orders_is_given(
    answers: list[tuple[str, float | None]], place: int, probability: float | None
) -> None:
    found = [
        dataclasses.replace(said(text, sure), token_ids=[i])
        for i, (text, sure) in enumerate(answers)
    ]
    assert voted(found) == dataclasses.replace(found[place], probability=probability)


def encoder_of(
    tokenizer: Any, recipe: dict[str, Any], shuffle: bool = False, **evaluate: Any
) -> Encoder:
    data = {
        **recipe["data"],
        "max_passages": 3,
        "refusal": "No answer",
        "shuffle_passages": shuffle,
    }
    evaluate = {"max_new_tokens": 8, "orders": 3, **evaluate}
    loaded = load_recipe({**recipe, "data": data, "evaluate": evaluate})
    return Encoder(prepare_tokenizer(tokenizer, loaded), loaded, 500)


def examples(*counts: int) -> list[Example]:
    """Questions with so many passages, each of which is another text."""
    records = make_records(len(counts))
    for record, count in zip(records, counts, strict=True):
        record["passages"] = [
            {"passage_id": k, "title": "", "text": f"{record['qid']} text {k}"}
            for k in range(count)
        ]
        record["positive_passage_indices"] = record["negative_passage_indices"] = []
    return [parse_example(record, "here") for record in records]


class Standin:
    """An engine that answers each question with the first passage that it is shown."""

    way: Way | None = None

    def __init__(self, *sure: float | None) -> None:
        self.sure = sure
        """Of the answers to one question, in their orders."""
        self.asked: list[Example] = []
        self.prompts: list[EncodedPrompt | None] = []
        self.title = ""

    def answer(
        self, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
    ) -> list[Prediction]:
        self.asked, self.title = list(examples), title
        self.prompts = encoder.prompts(examples)
        assert partial.name == "a"
        found = []
        for one in examples:
            kept = encoder.kept(one, encoder.prompt(one))
            assert [text for _, text in kept] == [p.text for p in one.passages]
            text = kept[0][1] if kept else "?"
            source = Source(0, 0, len(text)) if kept else None
            order, _, _ = one.qid.partition("/")
            found.append(Prediction(one.qid, text, [1], True, self.sure[int(order)], source))
        return found


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_orders_turn_what_is_shown_and_sources_are_turned_back(
    chatml_tokenizer: Any, tiny_recipe: dict[str, Any], shuffle: bool
) -> None:
    """A question with fewer passages is asked in fewer orders, one without any once."""
    encoder = encoder_of(chatml_tokenizer, tiny_recipe, shuffle)
    asked = examples(5, 2, 1, 0)
    engine = Standin(0.1, 0.6, 0.3)
    found = answer_in_orders(engine, encoder, asked, Path("a"), TITLE)
    assert engine.title == "answering (before) in 3 orders"
    assert [one.qid for one in found] == [e.qid for e in asked]
    texts: dict[str, list[list[str]]] = {}
    for one in engine.asked:
        texts.setdefault(one.qid.partition("/")[2], []).append([p.text for p in one.passages])
    orders = {e.qid: shown_indices(e, encoder.recipe) for e in asked}
    for example in asked:
        shown = [example.passages[i].text for i in orders[example.qid]]
        turns = [[*shown[i:], *shown[:i]] for i in range(max(1, len(shown)))]
        assert texts[example.qid] == turns
    assert [len(one) for one in texts.values()] == [3, 2, 1, 1]
    assert len({one.qid for one in engine.asked}) == 7
    # The second order's answer is the most probable: it is of the passage that was the second one.
    for example, one in zip(asked[:2], found, strict=False):
        second = orders[example.qid][1]
        assert one.source == Source(second, 0, len(one.prediction))
        assert one.prediction == example.passages[second].text
    assert [one.probability for one in found] == [0.2, 0.3, 0.1, 0.1]


def test_what_is_left_of_a_long_prompt_is_what_every_order_shows(
    chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    """A passage that was dropped comes back in no order: whoever reads the answer doesn't see it."""
    encoder = encoder_of(chatml_tokenizer, tiny_recipe)
    (example,) = examples(3)
    long = Passage("word " * 40)
    example = dataclasses.replace(example, passages=(*example.passages[:2], long))
    whole = encoder.prompt(example)
    assert whole is not None
    encoder.max_prompt = len(whole.ids) - 1
    engine = Standin(0.1, 0.6)
    answer_in_orders(engine, encoder, [example], Path("a"), TITLE)
    assert [len(one.passages) for one in engine.asked] == [2, 2]
    cut, first = encoder.prompt(example), engine.prompts[0]
    assert cut
    assert first
    assert first.ids == cut.ids  # the first order is the passages as they are
    assert long not in {p for one in engine.asked for p in one.passages}


def test_the_threshold_looks_at_the_answer_that_is_given(
    chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    encoder = encoder_of(chatml_tokenizer, tiny_recipe, refuse_below=0.3)
    asked = examples(3, 2)
    surest, other = answer_in_orders(Standin(0.2, 0.7, 0.1), encoder, asked, Path("a"), TITLE)
    # 0.7 of three orders is below it, and 0.7 of two is not.
    assert (surest.prediction, surest.unsure, surest.probability) == ("No answer", True, None)
    assert surest.source is None
    assert (other.prediction, other.unsure, other.probability) == ("q1 text 1", False, 0.35)


def test_one_order_is_asked_as_ever(chatml_tokenizer: Any, tiny_recipe: dict[str, Any]) -> None:
    encoder = encoder_of(chatml_tokenizer, tiny_recipe, orders=1)
    asked = [dataclasses.replace(e, qid=f"0/{e.qid}") for e in examples(3, 2)]
    engine = Standin(0.5)
    found = answer_in_orders(engine, encoder, asked, Path("a"), TITLE)
    assert engine.asked == asked
    assert engine.title == TITLE
    assert [one.qid for one in found] == [e.qid for e in asked]


def test_of_a_server_most_answers_count(
    tmp_path: Path,
    chatml_tokenizer: Any,
    tiny_recipe: dict[str, Any],
    chat: Chat,  # noqa: F811
) -> None:
    there = {"engine": "openai", "endpoint": chat.endpoint, "served_before": "base"}
    encoder = encoder_of(chatml_tokenizer, tiny_recipe, **there)
    chat.says = lambda content: (
        "first" if 0 < content.find("text 0") < content.find("text 1") else "other"
    )
    (three, two) = answer_in_orders(
        Server(encoder.recipe, "before"), encoder, examples(3, 2), tmp_path / "a", TITLE
    )
    assert len(chat.asked) == 5
    # Before text 1 stands text 0 in two of three orders, and in one of two: there the first order counts.
    assert (three.prediction, two.prediction) == ("first", "first")
    chat.says = lambda content: (
        "last" if content.find("text 0") < content.find("text 2") else "other"
    )
    (three,) = answer_in_orders(
        Server(encoder.recipe, "before"), encoder, examples(3), tmp_path / "b", TITLE
    )
    assert three == Prediction("q0", "other", [], stopped=True)


@pytest.mark.parametrize("copy", [False, True])
def test_it_goes_on_with_the_orders_that_are_answered(
    tmp_path: Path,
    chatml_tokenizer: Any,
    tiny_recipe: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    copy: bool,
) -> None:
    asked: list[list[int]] = []
    plain = Ragged.answer

    def noted(self: Ragged, prompts: list[list[int]], **more: Any) -> Any:
        asked.extend(prompts)
        return plain(self, prompts, **more)

    monkeypatch.setattr(Ragged, "answer", noted)
    encoder = encoder_of(chatml_tokenizer, tiny_recipe, copy=copy)
    questions = examples(3, 2)
    engine = Local(family_model("llama"), 8, batch_size=1)
    whole = answer_in_orders(engine, encoder, questions, tmp_path / "a", TITLE)
    assert len(asked) == 5
    asked.clear()
    lines = (tmp_path / "a").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "b").write_text("".join([*lines[:3], lines[3][:20]]), "utf-8")
    assert answer_in_orders(engine, encoder, questions, tmp_path / "b", TITLE) == whole
    assert len(asked) == 2
    assert "Going on: 3 of 5 answers are kept." in capsys.readouterr().out
    if copy:
        for example, one in zip(questions, whole, strict=True):
            assert one.source is not None
            text = example.passages[one.source.passage].text
            assert text[one.source.start : one.source.end] == one.prediction
