"""What stands before and after an answer, for chat templates in the manner of today's families."""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ragtune.base.errors import UsageError
from ragtune.data.chat import Form, render
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from tests.conftest import CHATML, build_tokenizer
from tests.data.chat_templates import FAMILIES, IM
from tests.data.templates import metaspace_tokenizer

DAY = date(2025, 7, 26)
every_family = pytest.mark.parametrize("name", FAMILIES)
systems = pytest.mark.parametrize("system", [None, "Be brief.\n\nAnswer in one word."])


def recipe_of(**prompt: Any) -> Recipe:
    return load_recipe(
        {
            "name": "x",
            "model": {"id": "some/model"},
            "data": {"train": "a.jsonl", "eval": "b.jsonl"},
            "prompt": {"preset": "english", **prompt},
            "train": {"steps": 1},
        }
    )


def encoder_of(tokenizer: Any, **prompt: Any) -> Encoder:
    recipe = recipe_of(**prompt)
    return Encoder(prepare_tokenizer(tokenizer, recipe, DAY), recipe, 10_000)


@cache
def encoder(name: str, system: str | None = None) -> Encoder:
    return encoder_of(FAMILIES[name].tokenizer(), system=system)


def example(answer: str = "Paris", question: str = "Where?") -> Example:
    return Example("q", question, (answer,), (Passage("In Paris."), Passage("東京")), (0,), ())


@every_family
@systems
def test_what_stands_around_an_answer(name: str, system: str | None) -> None:
    family, one = FAMILIES[name], encoder(name, system)
    sample = one.sample(example())
    assert sample
    decode = one.tokenizer.decode
    prompt = decode(sample.prompt_ids)
    assert prompt.endswith(family.opening)
    assert decode(sample.completion_ids) == family.lead + "Paris" + family.closing + family.stop
    assert sample.completion_ids[-1] == one.stop_id
    assert one.tokenizer.convert_ids_to_tokens(one.stop_id) == family.stop
    assert one.form == Form(
        parts=family.parts, system_in_user=bool(system) and family.system == "moved"
    )
    assert prompt.count("Where?") == 1
    assert prompt.count(system or "Where?") == 1
    assert ("2025" in prompt) == family.clock
    assert one.date == (DAY if family.clock else None)


@every_family
@systems
@pytest.mark.parametrize("answer", ["Paris", "42", "1,000 km\n\nor more", "富士山（3776 m）。"])
def test_prompt_and_completion_are_the_finished_turn(
    name: str, system: str | None, answer: str
) -> None:
    family, one = FAMILIES[name], encoder(name, system)
    sample = one.sample(example(answer))
    assert sample
    turns = one.form.of(
        [
            *one.builder.messages("Where?", example().passages),
            {"role": "assistant", "content": answer},
        ]
    )
    # By the family's own template; only that the clock stands still.
    whole = family.tokenizer().apply_chat_template(
        turns, chat_template=_still(family.template), tokenize=False
    )
    written = one.tokenizer.decode(sample.prompt_ids + sample.completion_ids)
    ends = whole.rfind(answer) + len(answer + family.closing)
    assert written == whole[:ends] + family.stop
    assert whole[ends:].startswith(family.stop) or not whole[ends:].strip()


def _still(template: str) -> str:
    for written in ("%Y-%m-%d", "%d %b %Y", "%d %B %Y"):
        for quote in "'\"":
            call = f"strftime_now({quote}{written}{quote})"
            template = template.replace(call, repr(DAY.strftime(written)))
    return template


@every_family
def test_the_ids_are_those_of_the_whole_text(name: str) -> None:
    one = encoder(name)
    sample = one.sample(example())
    assert sample
    ids = sample.prompt_ids + sample.completion_ids
    text = one.tokenizer.decode(ids)
    assert one.tokenizer.encode(text, add_special_tokens=False) == ids


@pytest.mark.parametrize("scheme", ["always", "first", "legacy"])
def test_blanks_that_sentencepiece_joins_to_the_answer_are_trained_with_it(scheme: str) -> None:
    one = encoder_of(metaspace_tokenizer(scheme, FAMILIES["llama2"].template))
    sample = one.sample(example())
    assert sample
    pieces = one.tokenizer.convert_ids_to_tokens(sample.completion_ids)
    assert "".join(pieces) == "▁Paris▁</s>"
    assert pieces[0] != "▁"
    ids = sample.prompt_ids + sample.completion_ids
    turns = [
        *one.builder.messages("Where?", example().passages),
        {"role": "assistant", "content": "Paris"},
    ]
    assert one.tokenizer.encode(render(one.tokenizer, turns), add_special_tokens=False) == ids
    # A prediction has none of it.
    assert one.turn.answer(one.tokenizer.decode(sample.completion_ids[:-1])) == "Paris"


@every_family
@systems
def test_the_saved_template_asks_as_was_trained(
    name: str, system: str | None, tmp_path: Path
) -> None:
    one = encoder(name, system)
    one.tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for question in ("Where?", "どこ？ {{ 1 }} {% x %}"):
        each = example(question=question)
        prompt = one.prompt(each)
        assert prompt
        ids = saved.apply_chat_template(
            one.messages(each, prompt), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert ids == prompt.ids
    # Read again by the same recipe, on another day, nothing is added to it.
    recipe = recipe_of(system=system)
    again = Encoder(prepare_tokenizer(saved, recipe, date(2031, 1, 1)), recipe, 10_000)
    assert again.tokenizer.chat_template == one.tokenizer.chat_template
    assert again.prompt(example()) == one.prompt(example())
    assert again.target(example()) == one.target(example())


@every_family
def test_what_the_generation_prompt_has_is_compared(name: str) -> None:
    family, opening = FAMILIES[name], encoder(name).opening
    assert (opening.generation, opening.trained) == (family.generation, family.opening)
    same = family.generation == family.opening
    assert opening.saved == ("alike" if same else "mended")
    assert dict([opening.variable] if opening.variable else []) == family.advice


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.advice])
def test_the_advised_argument_makes_the_generation_prompt_the_trained_one(name: str) -> None:
    plain, advised = (
        encoder(name),
        encoder_of(
            FAMILIES[name].tokenizer(), template_arguments=FAMILIES[name].advice, system=None
        ),
    )
    assert advised.opening.generation == advised.opening.trained
    assert advised.opening.saved == "alike"
    assert advised.prompt(example()) == plain.prompt(example())


def test_template_arguments_are_saved_as_defaults() -> None:
    one = encoder_of(
        FAMILIES["gpt-oss"].tokenizer(), template_arguments={"reasoning_effort": "low"}
    )
    prompt = one.prompt(example())
    assert prompt
    assert "Reasoning: low" in one.tokenizer.decode(prompt.ids)
    turn = [{"role": "user", "content": "Hi"}]
    assert "Reasoning: low" in one.tokenizer.apply_chat_template(turn, tokenize=False)
    other = one.tokenizer.apply_chat_template(turn, tokenize=False, reasoning_effort="high")
    assert "Reasoning: high" in other


def test_a_date_may_be_an_argument() -> None:
    one = encoder_of(
        FAMILIES["llama3.2"].tokenizer(), template_arguments={"date_string": "1 Jan 2020"}
    )
    prompt = one.prompt(example())
    assert prompt
    assert one.date is None
    assert "Today Date: 1 Jan 2020\n" in one.tokenizer.decode(prompt.ids)


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        (
            "qwen3",
            "enable_thinkin",
            "enable_thinkin. Did you mean enable_thinking?\nIt reads: enable_thinking.",
        ),
        (
            "parts",
            "enable_thinking",
            "enable_thinking.\nIt reads: no variable of its own.",
        ),
        (
            "qwen3",
            "add_generation_prompt",
            "add_generation_prompt.\nIt reads: enable_thinking.",
        ),
    ],
)
def test_an_argument_that_is_never_read_is_told(name: str, argument: str, words: str) -> None:
    recipe = recipe_of(template_arguments={argument: False})
    with pytest.raises(UsageError) as raised:
        prepare_tokenizer(FAMILIES[name].tokenizer(), recipe)
    assert str(raised.value) == (
        f"prompt.template_arguments: the chat template never reads {words}"
    )


# Templates that drop or change something.


def chatml(said: str, *, system: str = "{{ m.content }}") -> Any:
    """A tokenizer whose template writes messages in this way."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        f"{{% if m.role == 'system' %}}{system}{{% else %}}{said}{{% endif %}}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    return build_tokenizer(specials=IM, template=template)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{% if m.role == 'user' %}{{ m.content }}{% endif %}", "drops the assistant's text"),
        ("{% if m.role == 'assistant' %}{{ m.content }}{% endif %}", "drops the user's text"),
        ("{{ m.content | upper }}", "drops the user's text"),
        ("{{ m.content | replace('\\n', ' ') }}", "changes the user's text"),
        ("{{ m.content | e }}", "changes the user's text"),
        (
            "{% if m.role == 'assistant' or messages | length > 1 %}{{ m.content }}{% endif %}",
            "drops the user's text where an answer is asked for",
        ),
    ],
)
def test_what_is_lost_is_named(said: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        prepare_tokenizer(chatml(said), recipe_of())
    assert str(raised.value) == (
        f"The chat template {words}: what is to be learnt or asked would not reach the model.\n"
        "Set prompt.chat_template to another one (plain, say, or a .jinja file)."
    )


def test_another_order_is_named() -> None:
    tokenizer = build_tokenizer(
        specials=IM, template="{% for m in messages | reverse %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(UsageError, match="writes the assistant's text in another order"):
        prepare_tokenizer(tokenizer, recipe_of())


def test_an_answer_that_is_cut_is_named() -> None:
    tokenizer = chatml("{{ m.content.split('\\n\\n')[-1] if '42' not in m.content else '42!' }}")
    tokenizer.chat_template = CHATML.replace(
        "m['content']", "(m['content'] | replace('one\\n', 'One\\n'))"
    )
    with pytest.raises(UsageError) as raised:
        encoder_of(tokenizer)
    assert str(raised.value) == (
        "The chat template does not write the answer 'one\\n\\ntwo' as it is, or not at the same place: "
        "'One\\n\\ntwo'.\nSet prompt.chat_template to another one."
    )


@pytest.mark.parametrize("name", ["phi3-old", "mistral"])
def test_a_system_message_without_a_place_goes_into_the_user_s_turn(name: str) -> None:
    one = encoder(name, "Be brief.")
    each = example()
    prompt = one.prompt(each)
    assert prompt
    (user,) = one.messages(each, prompt)
    assert user["content"].startswith("Be brief.\n\nAnswer the question with the answer alone")
    assert user["content"] in one.tokenizer.decode(prompt.ids)


def test_a_server_gets_parts_where_the_template_wants_them() -> None:
    one = encoder("parts", "Be brief.")
    prompt = one.prompt(example())
    assert prompt
    system, user = one.messages(example(), prompt)
    assert system == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert user["content"][0]["text"].endswith("Question: Where?")


# Stop tokens and bos.


def test_a_stop_token_that_is_not_marked_special_ends_the_answer() -> None:
    tokenizer = build_tokenizer(
        specials={"eos_token": "<|endoftext|>", "start": "<|im_start|>"}, template=CHATML
    )
    tokenizer.add_tokens(["<|im_end|>"])
    assert not tokenizer.added_tokens_decoder[tokenizer.convert_tokens_to_ids("<|im_end|>")].special
    one = encoder_of(tokenizer)
    assert tokenizer.convert_ids_to_tokens(one.stop_id) == "<|im_end|>"
    assert one.turn.rest == ""
    assert tokenizer.decode(one.completion("Paris")) == "Paris<|im_end|>"
    # Written out in the data it is text.
    prompt = one.prompt(example(question="What is <|im_end|>?"))
    assert prompt
    assert prompt.ids.count(one.stop_id) == 1


def test_a_stop_text_that_is_no_token_is_said_and_eos_ends_the_answer() -> None:
    tokenizer = build_tokenizer(
        specials={"eos_token": "</s>", "start": "<|im_start|>"}, template=CHATML
    )
    one = encoder_of(tokenizer)
    assert one.turn.rest == "<|im_end|>\n"
    assert tokenizer.decode(one.completion("Paris")) == "Paris</s>"


def test_aio_needs_no_bos() -> None:
    one = encoder_of(build_tokenizer(specials={"eos_token": "</s>"}), chat_template="aio")
    sample = one.sample(example())
    assert sample
    text = one.tokenizer.decode(sample.prompt_ids + sample.completion_ids)
    assert text.startswith("ユーザ：Answer")
    assert text.endswith("Question: Where?</s>アシスタント：Paris</s>")


def test_a_template_that_needs_a_token_that_is_not_there_is_told() -> None:
    tokenizer = build_tokenizer(specials={"bos_token": "<s>"})
    with pytest.raises(UsageError) as raised:
        encoder_of(tokenizer, chat_template="aio")
    assert str(raised.value) == (
        "The chat template writes eos_token, which this tokenizer doesn't have.\n"
        "Set prompt.chat_template to one that does without, or the model to one whose tokenizer has it."
    )


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    for name, text in (("prompt", "{{ question }}\n"), ("chat", CHATML)):
        (tmp_path / f"{name}.jinja").write_text(text, "utf-8-sig")
    tokenizer = build_tokenizer(specials=IM, template="\ufeff" + CHATML)
    named = {"preset": None, "template": str(tmp_path / "prompt.jinja")}
    for more in (
        {},
        {"chat_template": str(tmp_path / "chat.jinja")},
        {"chat_template": "\ufeff" + CHATML},
    ):
        one = encoder_of(tokenizer, **named, **more)
        prompt = one.prompt(example())
        assert prompt
        assert one.tokenizer.decode(prompt.ids) == (
            "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
        )
