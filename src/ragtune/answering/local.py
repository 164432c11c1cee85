"""A model of this machine answers, in batches sorted by length."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypedDict

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ragtune.answering.confined import Answering, Confined, refusal_starts
from ragtune.answering.copying import Copies
from ragtune.answering.cut import Cut
from ragtune.answering.engine import EQUAL, IN_WORDS, PACKED, SINGLE, Way, fitting
from ragtune.answering.fit import probe_generate, unfit
from ragtune.answering.padded import WORTH_A_PROBE, choose_way, generate
from ragtune.answering.prediction import Kept, Prediction, keeping
from ragtune.answering.ragged import Heard, Ragged
from ragtune.answering.shared import Answered, Ask, Batch, Row, Rows, Shared
from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.screen.console import warn
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.base.text import one_or_many
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.model.fast.cache import Room
from ragtune.model.fast.lora import drop_waiting
from ragtune.model.fast.rope import lengths_forgotten
from ragtune.model.hardware import free_gpu
from ragtune.model.rounded import Rounded

Prompt = tuple[str, list[int]]
"""A qid and token ids."""


Share = Callable[[str], Shared]
"""Given how prompts are asked (`Way.how`), lets other ranks ask, too."""


class _More(TypedDict, total=False):
    """What else a batch is asked with."""

    heard: Heard
    confined: Confined


class TooLittleMemoryError(RagtuneError):
    """There is none for a single question."""


@dataclass
class Local:
    """A model of this machine (`Engine`), which answers greedily with a cache.

    The model's own generation settings hold (`min_new_tokens`, say), but nothing is sampled. Batches
    are of like length, the longest first, so that memory runs out at once or not at all; if it does,
    the batch is halved. A model that can't be asked in packed batches is asked through transformers'
    `generate`, in batches in which the prompts' answers are those of each alone, and that is said.
    """

    model: PreTrainedModel
    """On its device."""
    max_new_tokens: int
    """The longest answer."""
    batch_size: int
    """Questions at a time, at most."""
    cache_tokens: int | None = None
    """Tokens of prompts and answers at a time, at most; None for no limit."""
    heard: Heard | None = None
    """Told each token of a question that is asked alone, as soon as it is chosen."""
    share: Share | None = None
    """Where several ranks answer."""
    way: Way | None = field(default=None, init=False)
    _tried: tuple[int, int] | None = field(default=None, init=False, repr=False)
    """Tokens of the shortest and the longest prompt by which the way was chosen."""
    _copies: Copies | None = field(default=None, init=False, repr=False)
    """What answers are copied from, where they are (`evaluate.copy`)."""
    _barred: list[list[int]] = field(default_factory=list, init=False, repr=False)
    """How no answer begins, where a threshold refuses (`evaluate.refuse_below`)."""

    def answer(
        self, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers, without what the chat template writes around one; see `Engine.answer`."""
        asked = [*fitting(encoder, examples)]
        prompts = [(example.qid, prompt.ids) for example, prompt in asked]
        self._confine(encoder)
        if self._copies:
            self._copies.shown = {e.qid: encoder.kept(e, prompt) for e, prompt in asked}
        found = self.complete(prompts, encoder.tokenizer, encoder.stop_id, partial, title)
        if self._copies:
            return [*map(self._copies.read, found)]
        return [replace(o, prediction=encoder.turn.answer(o.prediction)) for o in found]

    def _confine(self, encoder: Encoder) -> None:
        """Have what answers can be copied, where that is asked for; the tokens' bytes are found once.

        Else how none may begin, if any may not.
        """
        self._barred = refusal_starts(encoder)
        if encoder.recipe.evaluate.copy and self._copies is None:
            self._copies = Copies.of(encoder)

    def complete(
        self,
        prompts: Sequence[Prompt],
        tokenizer: PreTrainedTokenizerBase,
        stop_id: int,
        partial: Path,
        title: str,
    ) -> list[Prediction]:
        """What the model writes behind each prompt, up to `stop_id` or a stop token of its own.

        Raises:
            TooLittleMemoryError: even for a single question.
            RagtuneError: the model's cache is wrong.
        """
        with keeping(partial, [qid for qid, _ in prompts], title) as kept:
            if len(kept.done) < len(prompts):
                self.model.eval()
                settings = greedy_settings(self.model, tokenizer, stop_id, self.max_new_tokens)
                order = sorted(prompts, key=lambda prompt: (-len(prompt[1]), prompt[0]))
                with lengths_forgotten(self.model), Rounded(self.model).taken():
                    # Of all, not of those that are left: a run that goes on has the batches that it had.
                    self._choose(settings, [ids for _, ids in order])
                    # One that is listened to stops with its next token.
                    with finishing("" if self.heard else "this batch of answers is finished first"):
                        self._ask(kept, order, settings, tokenizer)
            return kept.in_order()

    def _ask(
        self,
        kept: Kept,
        order: Sequence[Prompt],
        settings: GenerationConfig,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        how = self.way.how if self.way else PACKED
        shared = self.share(how) if self.share else None
        most = 1 if how == SINGLE else self.batch_size
        if shared and self._copies:
            shared.shown = {**self._copies.shown}
        ranks = shared.world.size if shared else 1
        cut = Cut(most, self.cache_tokens, self.max_new_tokens, ranks, equal=how == EQUAL)
        batches = cut.batches(order)
        room = cut.room(batches)
        # A batch is asked whole or not at all: half-precision answers depend on their batch.
        pending = [b for b in batches if not all(qid in kept.done for qid, _ in b)]
        ask = self.asker(settings, how, room)
        answered = (
            shared.lead(pending, room, ask) if shared else chain.from_iterable(map(ask, pending))
        )
        for batch, rows in answered:
            kept.add(
                _prediction(qid, row, tokenizer, settings)
                for (qid, _), row in zip(batch, rows, strict=True)
            )
            stop_if_asked(kept.in_words())

    def asker(self, settings: GenerationConfig, how: str, room: Room) -> Ask:
        """What answers a batch in a way; if memory runs out, in halves, and so from then on."""
        ragged = Ragged(self.model, settings, room) if how == PACKED else None
        most = [self.batch_size]

        def ask(batch: Batch) -> Answered:
            start = 0
            while start < len(batch):
                part = batch[start : start + most[0]]
                rows = self._rows(ragged, part, settings)
                if rows is None:
                    drop_waiting(self.model)
                    if ragged:
                        ragged.forget()
                    free_gpu()
                    most[0] = _half(part)
                else:
                    yield part, rows
                    start += len(part)

        return ask

    def _rows(self, ragged: Ragged | None, batch: Batch, settings: GenerationConfig) -> Rows | None:
        """What follows each prompt; None, with nothing of it kept, if memory ran out."""
        prompts = [ids for _, ids in batch]
        try:
            more: _More = {} if self.heard is None else {"heard": self.heard}
            if self._copies:
                more["confined"] = self._copies.copying(self.model, batch, settings)
            elif self._barred:
                device = self.model.get_input_embeddings().weight.device
                more["confined"] = Answering(self._barred, len(batch), device)
            if ragged:
                return ragged.answer(prompts, **more)
            return generate(self.model, prompts, settings, **more)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def follow(self, shared: Shared, how: str, encoder: Encoder) -> None:
        """Answer what another rank shares out. Raises as `complete`."""
        self.model.eval()
        self._confine(encoder)
        if self._copies:
            self._copies.shown = shared.shown
        settings = greedy_settings(
            self.model, encoder.tokenizer, encoder.stop_id, self.max_new_tokens
        )
        with lengths_forgotten(self.model), Rounded(self.model).taken():
            shared.follow(partial(self.asker, settings, how))

    def know(self, way: Way, prompts: Sequence[int]) -> None:
        """Take over the way that was chosen here for prompts of so many tokens."""
        self.way, self._tried = way, (min(prompts), max(prompts))

    def _choose(self, settings: GenerationConfig, prompts: Sequence[list[int]]) -> None:
        """Choose the way, unless prompts as short and as long as these were asked so before."""
        if self.way and self.way.how == SINGLE and len(prompts) < WORTH_A_PROBE:
            return  # alone each gets its own answer, and so few are asked alone
        shortest, longest = min(map(len, prompts)), max(map(len, prompts))
        if self.way and self.way.how == PACKED and self._tried:
            least, most = self._tried
            if least <= shortest and longest <= most:
                return
            shortest, longest = min(least, shortest), max(most, longest)
        again = self.way is not None and self.way.how == PACKED
        self.way = self._choose_way(settings, prompts, again=again)
        self._tried = shortest, longest

    def _choose_way(
        self, settings: GenerationConfig, prompts: Sequence[list[int]], *, again: bool
    ) -> Way:
        """How these prompts are asked; what is not the usual way is said.

        Raises:
            RagtuneError: the model's cache is wrong.
        """
        reason = unfit(self.model, settings, prompts, again=again)
        if not reason:
            words = "packed prompts and a growing cache give the logits of the whole text"
            return Way(PACKED, words)
        if wrong := probe_generate(self.model):
            raise RagtuneError(
                f"This model's answers can't be trusted here: with transformers' own cache, too, {wrong}.",
                "Try model.dtype=float32, another version of transformers, or remove liger-kernel; "
                "please report it.",
            )
        way = choose_way(self.model, settings, prompts, self.batch_size)
        warn(
            f"Answers through transformers' generate, which is slower: {reason}. "
            f"Questions are asked {IN_WORDS[way.how]}: {way.reason}."
        )
        return Way(way.how, f"{reason}; {way.reason}")


def _half(batch: Sequence[Prompt]) -> int:
    """Half as many questions at a time, for which memory may do."""
    if len(batch) == 1:
        raise TooLittleMemoryError(
            f"There is too little memory for the question {batch[0][0]} ({len(batch[0][1])} tokens).",
            "Set prompt.max_tokens lower, or model.quantization=nf4.",
        )
    warn(f"Out of memory: {one_or_many(len(batch) // 2, 'question')} at a time.")
    return len(batch) // 2


def greedy_settings(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop_id: int, max_new_tokens: int
) -> GenerationConfig:
    """The model's own generation settings, but that nothing is sampled."""
    settings = copy.deepcopy(model.generation_config)
    own = settings.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    settings.update(
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        max_length=None,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted({stop_id, *own}),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        return_dict_in_generate=False,
    )
    if settings.max_time is not None:
        settings.max_time = float("inf")  # a batch's time would cut the answers; None is filled up
    return settings


def _prediction(
    qid: str, row: Row, tokenizer: PreTrainedTokenizerBase, settings: GenerationConfig
) -> Prediction:
    stops, (ids, log_p) = set(settings.eos_token_id), row
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    ids = ids if end is None else ids[:end]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    # Later decimals depend on what shares the batch.
    return Prediction(qid, text, ids, end is not None, round(math.exp(log_p), 4))
