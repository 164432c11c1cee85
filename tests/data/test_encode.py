"""Token ids and the loss mask, for every kind of chat template and tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data.chat import render
from ragtune.data.encode import IGNORE, EncodedPrompt, Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model.load import load_tokenizer
from ragtune.model.source import ModelSource
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from tests.conftest import CHATML, build_tokenizer
from tests.data.templates import CASES, EOS, IM, OPEN, TAGS, metaspace_tokenizer


def recipe_of(**sections: Any) -> Recipe:
    small: dict[str, Any] = {
        "name": "x",
        "model": {"id": "some/model"},
        "data": {"train": "a.jsonl", "eval": "b.jsonl", **sections.pop("data", {})},
        "prompt": {"preset": "english", **sections.pop("prompt", {})},
        "train": {"steps": 1},
    }
    return load_recipe({**small, **sections})


@cache
def encoder(name: str, context: int = 100_000, max_tokens: int | None = None) -> Encoder:
    case = CASES[name]
    recipe = recipe_of(
        data={"max_passages": 4}, prompt={"chat_template": case.named, "max_tokens": max_tokens}
    )
    return Encoder(prepare_tokenizer(case.tokenizer(), recipe), recipe, context)


def example(
    question: str = "Where?", answer: str = "Paris", texts: tuple[str, ...] = ("In Paris.",)
) -> Example:
    return Example("q", question, (answer,), tuple(map(Passage, texts)), (0,), ())


every_case = pytest.mark.parametrize("name", CASES)
text = st.text(st.characters(exclude_categories=["Cs"]))
said = text.filter(lambda t: t.strip() and "<" not in t)


# The mask.


@every_case
@settings(max_examples=30, deadline=None)
@given(question=said, answer=said, texts=st.lists(text, max_size=3).map(tuple))
def test_the_mask_covers_the_completion_and_the_stop_token(
    name: str, question: str, answer: str, texts: tuple[str, ...]
) -> None:
    one, each = encoder(name), example(question, answer, texts)
    prompt, sample = one.prompt(each), one.sample(each)
    assert prompt
    assert sample
    features = sample.features()
    ids, labels = features["input_ids"], features["labels"]
    start = len(prompt.ids)
    # What is trained on begins exactly as what is generated from.
    assert ids[:start] == sample.prompt_ids == prompt.ids
    assert labels == [IGNORE] * start + ids[start:]
    assert len(sample) == len(ids) == len(labels)
    *trained, stop = ids[start:]
    written = one.tokenizer.decode(trained)
    assert written == one.turn.completion(answer)
    assert one.turn.answer(written) == (answer.strip() if name == "gemma" else answer)
    assert one.tokenizer.convert_ids_to_tokens(stop) == CASES[name].stop
    assert stop == one.stop_id


@every_case
def test_the_prompt_is_what_the_chat_template_writes(name: str) -> None:
    one = encoder(name)
    prompt = one.prompt(example())
    assert prompt
    assert prompt == EncodedPrompt(
        prompt.ids, passages_shown=1, passages_dropped=0, characters_cut=0
    )
    messages = one.builder.messages("Where?", [Passage("In Paris.")])
    written = one.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert one.tokenizer.decode(prompt.ids) == written


@every_case
def test_bos_is_as_often_there_as_the_template_writes_it(name: str) -> None:
    one = encoder(name)
    prompt = one.prompt(example())
    assert prompt
    written = {"aio": 2, "aio, bos added": 2, "plain": 1, "llama, bos added": 1, "gemma": 1}
    if name in written:
        bos = one.tokenizer.bos_token_id
        assert prompt.ids.count(bos) == written[name]
        assert prompt.ids[0] == bos
        assert prompt.ids[1] != bos
        assert bos not in one.target(example())


@every_case
def test_prompt_and_completion_are_a_finished_turn(name: str) -> None:
    one, each = encoder(name), example()
    turns = one.builder.messages("Where?", [Passage("In Paris.")])
    whole = render(one.tokenizer, [*turns, {"role": "assistant", "content": "Paris"}])
    sample = one.sample(each)
    assert sample
    trained = one.tokenizer.decode(sample.prompt_ids + sample.completion_ids)
    stop = CASES[name].stop
    assert trained == (whole.rstrip("\n") + stop if name == "open end" else whole.rstrip("\n"))


@pytest.mark.parametrize("scheme", ["always", "first", "legacy"])
@pytest.mark.parametrize("template", ["aio", "plain", OPEN, TAGS])
@pytest.mark.parametrize("answer", ["Paris", "New York", "富士山", "9"])
def test_sentencepiece_puts_no_space_before_the_answer(
    scheme: str, template: str, answer: str
) -> None:
    named = template if template in {"aio", "plain"} else None
    recipe = recipe_of(prompt={"chat_template": named})
    tokenizer = metaspace_tokenizer(scheme, None if named else template)
    one = Encoder(prepare_tokenizer(tokenizer, recipe), recipe, 10_000)
    *trained, stop = one.completion(answer)
    pieces = tokenizer.convert_ids_to_tokens(trained)
    # "Answer: " ends with a blank, which the tokenizer writes with the answer.
    lead = " " if template == OPEN else ""
    assert "".join(pieces).replace("▁", " ") == lead + answer
    prompt = one.prompt(example())
    assert prompt
    assert tokenizer.decode(prompt.ids + trained).endswith(lead + answer)
    assert stop == tokenizer.eos_token_id


def test_a_space_before_the_answer_would_be_there_without_care() -> None:
    tokenizer = metaspace_tokenizer("always")
    alone = tokenizer.convert_ids_to_tokens(tokenizer.encode("Paris", add_special_tokens=False))
    assert alone[0].startswith("▁")


# The stop token.


def test_without_a_stop_token_and_eos_there_is_an_error() -> None:
    tokenizer = build_tokenizer(
        specials={"start": "<s>"}, template=OPEN.replace("{{ bos_token }}", "")
    )
    with pytest.raises(UsageError) as raised:
        Encoder(tokenizer, recipe_of(), 1000)
    assert str(raised.value) == (
        "The chat template ends a turn with no token of its own, and the tokenizer has no eos.\n"
        "Choose a chat template that ends the assistant's turn with a special token."
    )


def test_a_tokenizer_without_a_chat_template_is_told() -> None:
    with pytest.raises(UsageError) as raised:
        prepare_tokenizer(build_tokenizer(specials=EOS), recipe_of())
    assert str(raised.value) == (
        "The tokenizer of some/model has no chat template.\n"
        "Set prompt.chat_template: aio (the book's), plain (English), or a .jinja file."
    )


def test_the_recipe_s_chat_template_overrides_the_tokenizer_s() -> None:
    tokenizer = build_tokenizer(specials={**EOS, **IM}, template=CHATML)
    assert prepare_tokenizer(tokenizer, recipe_of()).chat_template == CHATML
    recipe = recipe_of(prompt={"chat_template": "plain"})
    assert "Assistant" in prepare_tokenizer(tokenizer, recipe).chat_template


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_of_several_chat_templates_the_default_is_looked_at_used_and_saved(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(specials={**EOS, **IM}, template=CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": ENDLESS}
    tokenizer.save_pretrained(tmp_path / "given")
    assert (tmp_path / "given/additional_chat_templates/tool_use.jinja").is_file()
    loaded = load_tokenizer(ModelSource(str(tmp_path / "given"), None))
    assert isinstance(loaded.chat_template, dict)
    prepare_tokenizer(loaded, recipe_of()).save_pretrained(tmp_path / "saved")
    assert loaded.chat_template == CHATML
    assert not (tmp_path / "saved/additional_chat_templates").exists()
    (tmp_path / "given/chat_template.jinja").write_text(ENDLESS, "utf-8")
    loaded = load_tokenizer(ModelSource(str(tmp_path / "given"), None))
    with pytest.raises(
        UsageError, match="The chat template can't be used: it goes on for more than 2 s"
    ):
        prepare_tokenizer(loaded, recipe_of())


def test_several_chat_templates_without_a_default_are_told() -> None:
    tokenizer = build_tokenizer(specials=EOS)
    tokenizer.chat_template = {"tool_use": CHATML, "rag": CHATML}
    with pytest.raises(UsageError) as raised:
        prepare_tokenizer(tokenizer, recipe_of())
    assert str(raised.value) == (
        "The tokenizer of some/model has several chat templates and none that is the default: rag, "
        "tool_use.\nSave the one to use as a .jinja file, and name it in prompt.chat_template."
    )
    recipe = recipe_of(prompt={"chat_template": "plain"})
    assert isinstance(prepare_tokenizer(tokenizer, recipe).chat_template, str)


def test_the_system_prompt_is_in_the_prompt() -> None:
    recipe = recipe_of(prompt={"system": "Be brief.", "chat_template": "plain"})
    one = Encoder(prepare_tokenizer(build_tokenizer(specials=EOS), recipe), recipe, 1000)
    prompt = one.prompt(example())
    assert prompt
    assert one.tokenizer.decode(prompt.ids).startswith("<s>System:\nBe brief.\n\nUser:\nAnswer the")


# Truncation.


@settings(max_examples=60, deadline=None)
@given(
    question=said.map(lambda t: t[:30]),
    texts=st.lists(st.integers(0, 200).map(lambda n: "text " * (n // 5)), max_size=6).map(tuple),
    room=st.integers(16, 900),
)
def test_truncation_drops_passages_then_text_and_nothing_else(
    question: str, texts: tuple[str, ...], room: int
) -> None:
    one, each = encoder("plain"), example(question, "a" * 300, texts)
    one.max_prompt = room
    try:
        prompt, sample = one.prompt(each), one.sample(each)
    finally:
        one.max_prompt = one.context - 32
    shown = each.passages[:4]

    def ids(passages: tuple[Passage, ...]) -> list[int]:
        written = render(one.tokenizer, one.builder.messages(question, passages), generation=True)
        return one.tokenizer.encode(written, add_special_tokens=False)

    if prompt is None:
        # Not even one character of a passage has room beside the question.
        fewest = (Passage(shown[0].text[:1]),) if shown else ()
        assert len(ids(fewest)) > room
        assert sample is None
        return
    assert len(prompt.ids) <= room
    assert prompt.passages_shown + prompt.passages_dropped == len(shown)
    kept = shown[: prompt.passages_shown]
    if prompt.characters_cut:
        assert prompt.passages_shown == 1
        whole = kept[0].text
        kept = (Passage(whole[: len(whole) - prompt.characters_cut]),)
        assert len(ids((Passage(whole[: len(kept[0].text) + 1]),))) > room
    elif prompt.passages_dropped:
        assert len(ids(shown[: prompt.passages_shown + 1])) > room
    assert prompt.ids == ids(kept)
    assert one.messages(each, prompt) == one.builder.messages(question, kept)
    assert question in one.tokenizer.decode(prompt.ids)
    assert sample
    assert sample.prompt_ids == prompt.ids
    assert one.tokenizer.decode(sample.completion_ids[:-1]) == "a" * 300


@every_case
@settings(max_examples=15, deadline=None)
@given(
    many=st.lists(
        st.tuples(said, said, st.lists(text.map(lambda t: t * 9), max_size=5).map(tuple)),
        max_size=6,
    ),
    room=st.integers(60, 2000),
)
def test_together_or_one_by_one_is_the_same(
    name: str, many: list[tuple[str, str, tuple[str, ...]]], room: int
) -> None:
    one, examples = encoder(name), [example(*each) for each in many]
    one.max_prompt, one.context = room, room + 20
    try:
        assert one.prompts(examples) == [one.prompt(e) for e in examples]
        assert one.targets(examples) == [one.target(e) for e in examples]
        assert one.samples(examples) == [one.sample(e) for e in examples]
    finally:
        one.context = 100_000
        one.max_prompt = one.context - 32


def test_together_each_answer_continues_the_tail_that_suits_it() -> None:
    tokenizer = metaspace_tokenizer("always", OPEN)
    recipe = recipe_of()
    one = Encoder(tokenizer, recipe, 1000)
    # With the text before it, an answer may grow together; then it follows a line break.
    answers = ["Paris", " York", "富士山", "\n", "x" * 40]
    examples = [example(answer=a) for a in answers]
    assert one.targets(examples) == [one.completion(a) for a in answers]


def test_a_question_without_answers_that_does_not_fit_makes_no_sample() -> None:
    one = encoder("plain", 60)
    bare = Example("q", "Where? " * 50, (), (Passage("In Paris."),), (), ())
    assert one.samples([bare]) == [None]


def test_the_room_for_a_prompt_is_the_context_less_the_answer_s() -> None:
    recipe = recipe_of(prompt={"chat_template": "plain"}, evaluate={"max_new_tokens": 40})
    tokenizer = prepare_tokenizer(build_tokenizer(specials=EOS), recipe)
    assert Encoder(tokenizer, recipe, 1000).max_prompt == 960
    assert encoder("plain", 1000, 64).max_prompt == 64
    assert encoder("plain", 50, 64).max_prompt == 18


def test_an_answer_that_the_context_cannot_hold_makes_no_sample() -> None:
    one = encoder("plain", 300)
    assert one.sample(example(answer="7" * 200)) is None
    assert one.sample(example(answer="7" * 20))


def test_the_target_is_drawn_by_the_recipe() -> None:
    recipe = recipe_of(data={"target": "random"}, prompt={"chat_template": "plain"})
    one = Encoder(prepare_tokenizer(build_tokenizer(specials=EOS), recipe), recipe, 1000)
    many = [Example(f"q{i}", "?", ("a", "b"), (), (), ()) for i in range(20)]
    assert {one.tokenizer.decode(one.target(e)) for e in many} == {"a</s>", "b</s>"}


def test_a_special_token_that_is_written_out_in_an_answer_stays_text(
    tiny_recipe: dict[str, Any], chatml_tokenizer: Any
) -> None:
    encoder = Encoder(chatml_tokenizer, load_recipe(tiny_recipe), 1024)
    ids = encoder.completion("<|im_end|>green")
    assert ids.count(encoder.stop_id) == 1
    assert chatml_tokenizer.decode(ids[:-1]) == "<|im_end|>green"


@pytest.mark.parametrize("change", ["[:200]", ".split('?')[-1]", "|replace('House', 'home')"])
def test_a_template_that_cuts_or_changes_long_texts(change: str, tmp_path: Path) -> None:
    """Short ones come out whole: only the very prompt shows it."""
    (tmp_path / "cut.jinja").write_text(
        CHATML.replace("m['content']", f"(m['content']{change})"), "utf-8"
    )
    recipe = recipe_of(prompt={"chat_template": str(tmp_path / "cut.jinja")})
    made = Encoder(
        prepare_tokenizer(build_tokenizer(specials={"eos_token": "<|im_end|>", **IM}), recipe),
        recipe,
        10_000,
    )
    long = example("What colour is House 1? Or 2", texts=("House 1 is red, it is said. " * 20,))
    with pytest.raises(UsageError, match="does not write the user's text whole"):
        made.prompt(long)
