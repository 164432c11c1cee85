"""Chat templates in the manner of model families, with what each should come to.

They are written anew, with no more than what matters here: what stands before and after an answer,
what happens to a system message, in which form content is expected, whether the clock is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.conftest import build_tokenizer


@dataclass(frozen=True)
class Family:
    """A template, its special tokens, and what a finished turn has."""

    template: str
    specials: dict[str, str]
    generation: str
    """What the template's generation prompt has after the user's turn."""
    opening: str
    """What a finished turn has there: up to the answer, but for blanks that belong to the answer."""
    stop: str
    added: tuple[str, ...] = ()
    """Tokens of their own that are not marked special."""
    lead: str = ""
    """Blanks between opening and answer that are trained."""
    closing: str = ""
    """What stands between the answer and the stop token."""
    system: str = "own"
    """own: the system message has a place; moved: it goes into the user's turn."""
    parts: bool = False
    """Whether content must be a list of parts."""
    clock: bool = False
    """Whether the date is written."""
    advice: dict[str, Any] = field(default_factory=dict)
    """The template's own variable with which its generation prompt is that of a finished turn."""

    def tokenizer(self) -> Any:
        """A byte-level tokenizer with the family's tokens and template."""
        tokenizer = build_tokenizer(specials=self.specials, template=self.template)
        tokenizer.add_tokens(list(self.added))
        return tokenizer


IM = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "start": "<|im_start|>"}
TAGS = ("<think>", "</think>")
EMPTY = "<think>\n\n</think>\n\n"

_QWEN = """\
{%- set ns = namespace(query=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.query = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role != 'assistant' %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- else %}
        {%- set said = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.query %}
            {{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- said + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    GENERATION
{%- endif %}
"""
QWEN3 = _QWEN.replace(
    "    GENERATION\n",
    "    {%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n",
)
QWEN3_5 = _QWEN.replace(
    "    GENERATION\n",
    "    {%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- else %}{{- '<think>\\n' }}{%- endif %}\n",
)
QWEN3_THINKING = _QWEN.replace("    GENERATION\n", "    {{- '<think>\\n' }}\n")

GPT_OSS = """\
{{- '<|start|>system<|message|>You answer.\\nCurrent date: ' + strftime_now('%Y-%m-%d') }}
{{- '\\n\\nReasoning: ' + (reasoning_effort if reasoning_effort is defined else 'medium') }}
{{- '\\n\\nChannels: analysis, final.<|end|>' }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- '<|start|>developer<|message|># Instructions\\n\\n' + message.content + '<|end|>' }}
    {%- elif message.role == 'user' %}
        {{- '<|start|>user<|message|>' + message.content + '<|end|>' }}
    {%- elif loop.last and not add_generation_prompt %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}
    {%- else %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}
"""
GLM = """\
[gMASK]<sop>
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|assistant|>\\n<think></think>\\n' + message.content.strip() }}
    {%- else %}
        {{- '<|' + message.role + '|>\\n' + message.content }}
        {%- if message.role == 'user' and enable_thinking is defined and not enable_thinking %}
            {{- '/nothink' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
    {{- '\\n<think></think>' if enable_thinking is defined and not enable_thinking else '' }}
{%- endif %}
"""
R1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}"
    "{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
GEMMA4 = """\
{%- macro text(content) -%}
    {%- if content is string -%}{{- content | trim -}}
    {%- else -%}{%- for part in content -%}{{- part.text | trim -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
    {{- text(message.content) + '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|turn>model\\n' -}}
    {%- if not enable_thinking | default(false) -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}
{%- endif -%}
"""
NEMOTRON = """\
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- '<SPECIAL_10>System\\n' + message.content + '\\n' }}
    {%- elif message.role == 'user' %}
        {{- '<SPECIAL_11>User\\n' + message.content + '\\n' }}
    {%- else %}
        {{- '<SPECIAL_11>Assistant\\n' + message.content.split('</think>')[-1].strip() }}
        {{- '\\n<SPECIAL_12>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<SPECIAL_11>Assistant\\n' }}
    {{- '<think></think>' if thinking is defined and not thinking else '<think>\\n' }}
{%- endif %}
"""
LLAMA3_2 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
SMOLLM3 = """\
{%- set mode = '/no_think' if enable_thinking is defined and not enable_thinking else '/think' %}
{{- '<|im_start|>system\\nToday: ' + strftime_now('%d %B %Y') + '\\nMode: ' + mode + '\\n\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in messages if message.role != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and mode == '/no_think' %}
        {{- '<think>\\n\\n</think>\\n' + message.content.lstrip('\\n') }}
    {%- else %}
        {{- message.content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n' if mode == '/no_think' else '') }}
{%- endif %}
"""
PHI3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ '<|user|>\\n' + m.content + '<|end|>\\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|assistant|>\\n' + m.content + '<|end|>\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0].role == 'system' %}"
    "{% set first = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}"
    "{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (first if loop.first else '') + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% for part in m.content %}{% if part.type == 'image' %}{{ '<image>' }}"
    "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_BOS = {"bos_token": "<s>", "eos_token": "</s>"}
_ASSISTANT = "<|im_start|>assistant\n"
_HARMONY = "<|start|>assistant"

FAMILIES = {
    "qwen3": Family(
        QWEN3, IM, _ASSISTANT, _ASSISTANT + EMPTY, "<|im_end|>", added=TAGS,
        advice={"enable_thinking": False},
    ),
    "qwen3.5": Family(
        QWEN3_5, IM, _ASSISTANT + "<think>\n", _ASSISTANT + EMPTY, "<|im_end|>", added=TAGS,
        advice={"enable_thinking": False},
    ),
    "qwen3-thinking": Family(
        QWEN3_THINKING, IM, _ASSISTANT + "<think>\n", _ASSISTANT + EMPTY, "<|im_end|>", added=TAGS
    ),
    "gpt-oss": Family(
        GPT_OSS,
        {"eos_token": "<|return|>", "pad_token": "<|endoftext|>",
         **{name: f"<|{name}|>" for name in ("start", "end", "message", "channel")}},
        _HARMONY, _HARMONY + "<|channel|>final<|message|>", "<|return|>", clock=True,
    ),
    "glm4.5": Family(
        GLM,
        {"eos_token": "<|endoftext|>", "mask": "[gMASK]", "sop": "<sop>",
         **{name: f"<|{name}|>" for name in ("system", "user", "assistant")}},
        "<|assistant|>", "<|assistant|>\n<think></think>\n", "<|endoftext|>", added=TAGS,
    ),
    "deepseek-r1-distill": Family(
        R1,
        {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>",
         "user": "<｜User｜>", "assistant": "<｜Assistant｜>"},
        "<｜Assistant｜><think>\n", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", added=TAGS,
    ),
    "gemma4": Family(
        GEMMA4,
        {"bos_token": "<bos>", "eos_token": "<eos>", "open": "<|turn>", "close": "<turn|>",
         "channel": "<|channel>", "/channel": "<channel|>"},
        "<|turn>model\n<|channel>thought\n<channel|>", "<|turn>model\n", "<turn|>",
        advice={"enable_thinking": True},
    ),
    "nemotron": Family(
        NEMOTRON,
        {"bos_token": "<s>", "eos_token": "<SPECIAL_12>", "10": "<SPECIAL_10>", "11": "<SPECIAL_11>"},
        "<SPECIAL_11>Assistant\n<think>\n", "<SPECIAL_11>Assistant\n", "<SPECIAL_12>",
        added=TAGS, closing="\n",
    ),
    "llama3.2": Family(
        LLAMA3_2,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
         "head": "<|start_header_id|>", "/head": "<|end_header_id|>"},
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", clock=True,
    ),
    "smollm3": Family(
        SMOLLM3, IM, _ASSISTANT, _ASSISTANT, "<|im_end|>", added=TAGS, clock=True
    ),
    "phi3-old": Family(
        PHI3,
        {**_BOS, "user": "<|user|>", "assistant": "<|assistant|>", "end": "<|end|>"},
        "<|assistant|>\n", "<|assistant|>\n", "<|end|>", system="moved",
    ),
    "llama2": Family(LLAMA2, _BOS, "", "", "</s>", lead=" ", closing=" "),
    "mistral": Family(MISTRAL, _BOS, "", "", "</s>", lead=" ", system="moved"),
    "parts": Family(PARTS, IM, _ASSISTANT, _ASSISTANT, "<|im_end|>", parts=True),
}  # fmt: skip
