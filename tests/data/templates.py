"""Chat templates of every kind, each with a tokenizer that is made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.conftest import CHATML, build_tokenizer

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + {'user': 'user', 'assistant': 'model'}[m['role']] }}"
    "{{ '\\n' + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<|head|>' + m['role'] + '<|/head|>\\n\\n' }}"
    "{{ m['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}"
)
THINK = CHATML.replace("assistant\\n' }}", "assistant\\n<think>\\n\\n</think>\\n\\n' }}")
OPEN = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ ('Answer: ' if m['role'] == 'assistant' else '') + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
TAGS = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

EOS = {"bos_token": "<s>", "eos_token": "</s>"}
IM = {"start": "<|im_start|>"}


def metaspace_tokenizer(scheme: str, template: str | None = None) -> Any:
    """A tokenizer that puts a space before a text, as SentencePiece does.

    Args:
        scheme: how: Metaspace's `always` or `first`; or `legacy`, the normaliser of Llama 2.
        template: its chat template.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
    if scheme == "legacy":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        inner.normalizer = normalizers.Sequence(steps)
        parts = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        inner.decoder = decoders.Sequence(parts)
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    letters = "".join(map(chr, range(32, 127))) + "\nアシスタント：ユーザ富士山はどこ東京"
    specials = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=[*letters, "▁"]
    )
    inner.train_from_iterator(["Paris is in France", "New York", "富士山 東京"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        additional_special_tokens=specials[3:],
        **EOS,
    )
    tokenizer.chat_template = template
    return tokenizer


@dataclass(frozen=True)
class Case:
    """A chat template with a tokenizer, and the token that ends its turns."""

    stop: str
    specials: Any = None
    template: str | None = None
    named: str | None = None
    bos: bool = False

    def tokenizer(self) -> Any:
        return build_tokenizer(specials=self.specials, template=self.template, bos=self.bos)


CASES = {
    "aio": Case("</s>", EOS, named="aio"),
    "aio, bos added": Case("</s>", EOS, named="aio", bos=True),
    "plain": Case("</s>", EOS, named="plain"),
    "plain, no bos": Case("</s>", {"eos_token": "</s>"}, named="plain"),
    "chatml, pad is stop": Case(
        "<|im_end|>", {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", **IM}, CHATML
    ),
    "chatml, eos is another": Case("<|im_end|>", {**EOS, "end": "<|im_end|>", **IM}, CHATML),
    "think block": Case("<|im_end|>", {"eos_token": "<|im_end|>", **IM}, THINK),
    "llama, bos added": Case(
        "<|eot|>", {**EOS, "h": "<|head|>", "/h": "<|/head|>", "eot": "<|eot|>"}, LLAMA, bos=True
    ),
    "gemma": Case(
        "<end_of_turn>", {**EOS, "sot": "<start_of_turn>", "eot": "<end_of_turn>"}, GEMMA, bos=True
    ),
    "open end": Case("</s>", EOS, OPEN),
    "prompt ends in a tag": Case("</s>", {**EOS, "u": "<|user|>", "a": "<|assistant|>"}, TAGS),
}
