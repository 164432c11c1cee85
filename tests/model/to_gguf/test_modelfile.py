"""A Modelfile says what the run's chat template does: its TEMPLATE is rendered as Ollama would, and compared."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.data.chat import find_form
from ragtune.data.encode import Encoder
from ragtune.model.to_gguf.go_template import pieces_of
from ragtune.model.to_gguf.modelfile import Longest, modelfile
from tests.conftest import CHATML, build_tokenizer
from tests.model.to_gguf.vocabularies import encoder_of

SPECIALS = {
    "bos_token": "<s>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "start": "<|im_start|>",
}
DEFAULT = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe helpful.<|im_end|>\\n' }}{% endif %}"
    + CHATML
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
    "{{ m.content | trim }}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\\n' }}{% endif %}"
)
CURLY = "{{ '{{ .Not }} ' }}" + CHATML
TEMPLATES = {
    "chatml": CHATML,
    "default": DEFAULT,
    "bos": "{{ bos_token }}" + CHATML,
    "gemma": GEMMA,
    "curly": CURLY,
}


def encoder_with(template: str, **prompt: Any) -> Encoder:
    return encoder_of(build_tokenizer(specials=SPECIALS, template=template), **prompt)


def by_go(template: str, **values: str) -> str:
    """As much of Go's text/template as is written: texts, values, one condition."""
    pieces = re.split(r"\{\{ (.*?) \}\}", template)
    found, shown = pieces[0], True
    for action, text in zip(pieces[1::2], pieces[2::2], strict=True):
        if action.startswith("if ."):
            shown = bool(values.get(action.removeprefix("if .")))
        elif action == "else":
            shown = not shown
        elif action == "end":
            shown = True
        elif shown:
            found += (
                action[1:-1] if action.startswith('"') else values.get(action.removeprefix("."), "")
            )
        found += text if shown else ""
    return found


def field(text: str, name: str) -> str:
    found = re.search(rf'^{name} """(.*?)"""', text, re.DOTALL | re.MULTILINE)
    assert found, text
    return found[1]


@pytest.mark.parametrize("system", [None, "Answer in one word."])
@pytest.mark.parametrize("kind", TEMPLATES)
def test_ollama_writes_what_was_trained(kind: str, system: str | None) -> None:
    encoder = encoder_with(TEMPLATES[kind], system=system)
    template = field(modelfile(encoder, "m.gguf", Longest(100, "x"), 1024), "TEMPLATE")
    question = "Where {{ .System }}?\n\n「どこ」 'x'"
    messages = [{"role": "user", "content": question}]
    form = encoder.form
    if system:
        form = find_form(encoder.tokenizer, system=True)
        messages.insert(0, {"role": "system", "content": system})
    wanted = encoder.turn.prompt(encoder.tokenizer, messages, form)
    bos = "<s>" if kind in ("bos", "gemma") else ""  # the engine writes it, from the file's flag
    before, _, after = template.partition("{{ .Response }}")
    assert bos + by_go(before, System=system or "", Prompt=question) == wanted
    assert after.startswith("<|im_end|>")


def test_the_whole_file() -> None:
    encoder = encoder_with(CHATML, system='Say "yes" or "no".')
    text = modelfile(encoder, "model-q8_0.gguf", Longest(1500, "eval/dev"), 8192)
    assert "FROM ./model-q8_0.gguf\n" in text
    assert field(text, "SYSTEM") == 'Say "yes" or "no".'
    lines = text.splitlines()
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert [line for line in lines if line.startswith("PARAMETER")][1:] == [
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        "PARAMETER num_ctx 2048",
        "PARAMETER num_predict 32",
    ]
    assert "# The longest prompt is that of eval/dev, 1500 tokens; an answer has 32." in lines
    assert "PARAMETER num_ctx 1024" in modelfile(encoder, "m.gguf", Longest(1500, "x"), 1024)


def test_what_can_not_be_written_is_left_out_with_the_reason() -> None:
    quotes = encoder_with(CHATML, system='Write """ around it.')
    assert "# No SYSTEM here: its quotation marks can't be written in a Modelfile." in modelfile(
        quotes, "m", Longest(9, "x"), 99
    )


def test_a_template_that_depends_on_the_text_has_no_pieces() -> None:
    odd = CHATML.replace(
        "m['content']", "(m['content'] + ('?' if 'quoted' in m['content'] else ''))", 1
    )
    encoder = encoder_with(odd)
    with pytest.raises(UsageError, match="what stands around a text depends on the text"):
        pieces_of(encoder, bos=None)
    text = modelfile(encoder, "m.gguf", Longest(100, "x"), 1024)
    assert "# No TEMPLATE here: The chat template can't be said in Ollama's language" in text
    assert 'TEMPLATE """' not in text
