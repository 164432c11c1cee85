"""llama.cpp answers, with a GGUF file on this machine's processor: one question after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ragtune.answering.engine import encode_prompts
from ragtune.answering.llama_process import Llama
from ragtune.answering.prediction import Prediction, keeping
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.data.encode import Encoder
from ragtune.data.example import Example


@dataclass
class LlamaCpp:
    """A GGUF file (`Engine`), asked greedily with the very prompt ids that the model was trained on."""

    file: Path
    max_new_tokens: int
    """The longest answer."""
    way: None = None

    def answer(
        self, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers, without what the chat template writes around one; see `Engine.answer`.

        Raises:
            UsageError: xllamacpp is not installed.
            RagtuneError: llama.cpp can't load the file, or crashes.
        """
        prompts = encode_prompts(encoder, examples)
        with keeping(partial, [qid for qid, _ in prompts], title) as kept:
            pending = [one for one in prompts if one[0] not in kept.done]
            if pending:
                with self._loaded(prompts) as llama:
                    for qid, ids in pending:
                        with finishing("this answer is finished first"):
                            kept.add([self._ask(llama, encoder, qid, ids)])
                        stop_if_asked(kept.in_words())
            return kept.in_order()

    def _loaded(self, prompts: Sequence[tuple[str, list[int]]]) -> Llama:
        longest = max(len(ids) for _, ids in prompts)
        return Llama(self.file, longest + self.max_new_tokens + 1, torch.get_num_threads())

    def _ask(self, llama: Llama, encoder: Encoder, qid: str, ids: list[int]) -> Prediction:
        found = llama.ask(
            "/completion",
            {
                "prompt": ids,
                "n_predict": self.max_new_tokens,
                "temperature": 0,
                "cache_prompt": False,  # each is computed alone, as it would be by itself
                "return_tokens": True,
            },
        )
        stopped = found["stop_type"] == "eos"
        tokens: list[int] = found["tokens"]
        if stopped:
            tokens = tokens[:-1]
        text = encoder.tokenizer.decode(tokens, skip_special_tokens=True)
        return Prediction(qid, encoder.turn.answer(text), tokens, stopped)
