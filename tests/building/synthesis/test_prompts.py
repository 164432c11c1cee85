"""What a model is told."""

from __future__ import annotations

import json

import pytest

from ragtune.building.synthesis.assess import normal
from ragtune.building.synthesis.prompts import broken, prompts_for
from ragtune.building.synthesis.reply import read_reply, same_language
from ragtune.data.example import Passage
from ragtune.data.words import stands

PASSAGE = Passage("A {text} with <question> and <passage> in it.", "A title")
LANGUAGES = ["ja", "en", "de", "xx"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_text_is_whole(language: str) -> None:
    prompts = prompts_for(language)
    write = prompts.to_write(PASSAGE)[-1]["content"]
    assert f"---\nA title\n\n{PASSAGE.text}\n---" in write
    assert '{"question": "' in write
    within = prompts.to_answer("Who is <passage>?", PASSAGE)[-1]["content"]
    assert f"---\n{PASSAGE.text}\n---" in within
    assert within.endswith("Who is <passage>?")
    without = prompts.to_remember("Who?")
    assert without[-1]["content"].endswith("Who?")
    assert "---" not in json.dumps(without)
    assert "{language}" not in json.dumps([prompts.to_write(PASSAGE), within, without])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_examples_do_as_they_are_told(language: str) -> None:
    prompts = prompts_for(language)
    asks, said = prompts.to_write(PASSAGE)[:2]
    reply = read_reply(said["content"])
    assert reply is not None
    text = asks["content"].split("---")[1]
    assert stands(text, reply.answer)
    assert same_language(reply.question, text, "ja" if language == "ja" else "en")
    asks, said = prompts.to_answer("?", PASSAGE)[:2]
    assert text in asks["content"]
    assert asks["content"].endswith(reply.question)
    assert normal(said["content"], language) == normal(reply.answer, language)
    roles = [m["role"] for m in prompts.to_remember("?")]
    assert roles == ["user", "assistant", "user"]


def test_each_in_its_language() -> None:
    write = prompts_for("ja").to_write(PASSAGE)[-1]["content"]
    assert "質問" in write
    assert "Write one question" not in write
    example, _, asked = prompts_for("de").to_write(PASSAGE)
    assert "are in English." in example["content"]
    assert "are in German." in asked["content"]
    assert "Answer in German." in prompts_for("de").to_remember("Wer?")[-1]["content"]
    assert " are in " not in prompts_for("en").to_write(PASSAGE)[-1]["content"]
    assert "(xx)" in prompts_for("xx").to_write(PASSAGE)[-1]["content"]


@pytest.mark.parametrize(
    "token",
    ["<|im_end|>", "<|start_header_id|>", "<｜User｜>", "</s>", "<bos>", "<end_of_turn>", "[INST]", "<<SYS>>",
     "<[PLHD]>"],
)  # fmt: skip
def test_control_tokens_are_broken(token: str) -> None:
    message = {"role": "user", "content": f"a{token}b"}
    assert broken(message) == {"role": "user", "content": f"a{token[0]} {token[1:]}b"}


@pytest.mark.parametrize(
    "text", ["a < b | c > d", "x <y> z", "[1] [INSTEAD]", "<p>|</p>", "<s", "5<6"]
)
def test_other_texts_stay(text: str) -> None:
    assert broken({"content": text}) == {"content": text}
