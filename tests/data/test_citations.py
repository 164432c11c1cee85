"""Citations: trained behind the answer, parsed off what a model wrote, numbered in the prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data import citations
from ragtune.data.citations import Parsed, cite
from ragtune.data.encode import IGNORE, Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.prompt import CITING, PRESETS, PromptBuilder
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Prompt, Recipe

CITES = Prompt(preset="english", citations=True)
TEXTS = ("Rome is old.", "In Paris.", "Paris, again Paris.")


def parse(text: str) -> Parsed:
    return citations.parse(text, CITES)


def recipe_of(**sections: Any) -> Recipe:
    small: dict[str, Any] = {
        "name": "x",
        "model": {"id": "some/model"},
        "data": {"train": "a.jsonl", "eval": "b.jsonl", **sections.pop("data", {})},
        "prompt": {"preset": "english", "citations": True, **sections.pop("prompt", {})},
        "train": {"steps": 1},
    }
    return load_recipe({**small, **sections})


def example(
    answer: str = "Paris", texts: tuple[str, ...] = TEXTS, positive: tuple[int, ...] = (1, 2)
) -> Example:
    return Example("q", "Where?", (answer,), tuple(map(Passage, texts)), positive, ())


def encoder(tokenizer: Any, recipe: Recipe, context: int = 10_000) -> Encoder:
    return Encoder(prepare_tokenizer(tokenizer, recipe), recipe, context)


def trained_text(made: Encoder, one: Example) -> str:
    sample = made.sample(one)
    assert sample is not None
    labels = [i for i in sample.features()["labels"] if i != IGNORE]
    assert labels == sample.completion_ids
    return str(made.tokenizer.decode(labels, skip_special_tokens=True))


@pytest.mark.parametrize(
    ("text", "answer", "numbers"),
    [
        ("Paris [2]", "Paris", (2,)),
        ("Paris [1][3]", "Paris", (1, 3)),
        ("Paris [1], [3].", "Paris", (1, 3)),
        ("Paris [2][2]\n", "Paris", (2,)),
        ("東京タワー[2]。", "東京タワー", (2,)),
        ("U.S. [9]", "U.S.", (9,)),
        ("[2]", "", (2,)),
        ("Paris", "Paris", ()),
        (" Paris. ", " Paris. ", ()),
        ("Paris [2] is it", "Paris [2] is it", ()),
        ("Paris [a]", "Paris [a]", ()),
        ("Paris [12345678]", "Paris [12345678]", ()),
        ("", "", ()),
    ],
)
def test_parsing(text: str, answer: str, numbers: tuple[int, ...]) -> None:
    assert parse(text) == Parsed(answer, numbers)


@given(st.text("ab [1].,。\n"))
def test_what_is_left_ends_in_no_citation(text: str) -> None:
    once = parse(text)
    assert parse(once.answer) == Parsed(once.answer, ())
    assert text.startswith(once.answer)


@given(st.text().filter(lambda t: t.strip() and not parse(t).numbers), st.sets(st.integers(1, 99)))
def test_what_is_cited_comes_back(answer: str, numbers: set[int]) -> None:
    answer = answer.rstrip()
    assert parse(cite(answer, sorted(numbers))) == Parsed(answer, tuple(sorted(numbers)))


def test_parsing_takes_a_time_that_grows_with_the_text() -> None:
    for many in ("[1]" * 200_000, " " * 200_000 + "x", "[1] " * 100_000 + "x", "]1" * 200_000):
        parse(many)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_number_the_passages_that_are_shown(preset: Any) -> None:
    builder = PromptBuilder.of(Prompt(preset=preset, citations=True))
    text = builder.text("Where?", [*map(Passage, TEXTS)])
    assert "[1] Rome is old.\n\n[2] In Paris.\n\n[3] Paris, again Paris.\n---\n\n" in text
    plain = PromptBuilder.of(Prompt(preset=preset)).text("Where?", [*map(Passage, TEXTS)])
    assert "[1]" not in plain
    assert CITING[preset].count("\n---\n") == PRESETS[preset].count("\n---\n") == 2
    # Without passages (a control) there is none to number.
    assert builder.text("Where?", []).endswith("---\n\n---\n\n" + plain.rpartition("---\n\n")[2])


def test_a_template_without_numbers_is_refused() -> None:
    own = "{% for p in passages %}{{ p.text }}{% endfor %}{{ question }} [1] [2]"
    with pytest.raises(UsageError, match="needs passages with numbers") as error:
        PromptBuilder.of(Prompt(template=own, citations=True))
    assert "loop.index" in error.value.advice
    PromptBuilder.of(
        Prompt(template=own.replace("{{ p.text", "[{{ loop.index }}] {{ p.text"), citations=True)
    )
    PromptBuilder.of(Prompt(template=own))


def test_targets_cite_the_positives_that_are_shown(chatml_tokenizer: Any) -> None:
    made = encoder(chatml_tokenizer, recipe_of(data={"max_passages": 3}))
    assert trained_text(made, example()) == "Paris [2][3]"
    assert trained_text(made, example(positive=())) == "Paris"
    made = encoder(chatml_tokenizer, recipe_of(data={"max_passages": 2}))
    assert trained_text(made, example()) == "Paris [2]"
    made = encoder(chatml_tokenizer, recipe_of(prompt={"citations": False}))
    assert trained_text(made, example()) == "Paris"


def test_targets_cite_the_numbers_of_shuffled_passages(chatml_tokenizer: Any) -> None:
    made = encoder(chatml_tokenizer, recipe_of(data={"max_passages": 3, "shuffle_passages": True}))
    seen = set()
    for i in range(20):
        one = replace(example(positive=(1,)), qid=str(i))
        sample = made.sample(one)
        assert sample is not None
        (number,) = parse(trained_text(made, one)).numbers
        assert f"[{number}] In Paris." in made.tokenizer.decode(sample.prompt_ids)
        seen.add(number)
    assert seen == {1, 2, 3}


def test_what_a_cut_prompt_lost_is_not_cited(chatml_tokenizer: Any) -> None:
    recipe = recipe_of(data={"max_passages": 3})
    whole = encoder(chatml_tokenizer, recipe).prompt(example())
    assert whole is not None
    short = recipe_of(data={"max_passages": 3}, prompt={"max_tokens": len(whole.ids) - 1})
    made = encoder(chatml_tokenizer, short)
    cut = made.prompt(example())
    assert cut is not None
    assert cut.passages_dropped == 1
    assert trained_text(made, example()) == "Paris [2]"


def test_a_refusal_cites_nothing(chatml_tokenizer: Any) -> None:
    made = encoder(chatml_tokenizer, recipe_of(data={"refusal": "not said"}))
    assert (
        trained_text(made, replace(example(), answers=(), positive_passage_indices=()))
        == "not said"
    )


def test_japanese(chatml_tokenizer: Any) -> None:
    recipe = recipe_of(prompt={"preset": "aio", "chat_template": "aio"})
    made = encoder(chatml_tokenizer, recipe)
    one = example("東京", ("大阪", "首都は東京です。"), (1,))
    assert trained_text(made, one) == "東京 [2]"
