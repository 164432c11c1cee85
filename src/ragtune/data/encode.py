"""From messages to token ids and the loss mask, by construction.

A prompt is a finished turn's text up to the answer, in training and in answering: what the chat template
writes there belongs to it. The completion is encoded as it continues the prompt's tail, and the stop
token follows: nothing is searched for in token ids.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.data.chat import Message, find_form
from ragtune.data.example import Example, Passage
from ragtune.data.opening import find_opening
from ragtune.data.prompt import PromptBuilder
from ragtune.data.select import shown_indices, shown_passages, target_answer
from ragtune.data.tokenizer import date_of, special_ids
from ragtune.data.turn import find_turn
from ragtune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100
"""The label of a position that is not trained (PyTorch's convention)."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt's ids, and what was left out to make it fit."""

    ids: list[int]
    passages_shown: int
    passages_dropped: int
    characters_cut: int

    @property
    def is_cut(self) -> bool:
        """Whether anything was left out."""
        return bool(self.passages_dropped or self.characters_cut)


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """An example that is trained or asked, with its prompt and the completion that is trained."""

    example: Example
    prompt: EncodedPrompt
    completion: list[int]


@dataclass(frozen=True, slots=True)
class Sample:
    """A training sample: prompt ids, then completion ids with the stop token."""

    qid: str
    prompt_ids: list[int]
    completion_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    def features(self) -> dict[str, list[int]]:
        """`input_ids` and `labels`, the latter IGNORE but for the completion."""
        return {
            "input_ids": self.prompt_ids + self.completion_ids,
            "labels": [IGNORE] * len(self.prompt_ids) + self.completion_ids,
        }


class Encoder:
    """Encodes the examples of a recipe with its tokenizer.

    Args:
        tokenizer: with its chat template in place (`prepare_tokenizer`), which is added to where that
            makes its generation prompt the prompt that is trained.
        recipe: the prompt, the passages to show, the seed.
        context: the longest sequence that the model reads, in tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, context: int) -> None:
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.builder = PromptBuilder.of(recipe.prompt)
        self.form = find_form(tokenizer, system=bool(self.builder.system))
        short = self.builder.messages("?", [Passage("x")])
        self.turn = find_turn(tokenizer, short, self.form)
        long = self.builder.messages("どこ？\n\nWhere?", [Passage("one\n\ntwo"), Passage("三")])
        self.opening = find_opening(tokenizer, [short, long], self.form, self.turn)
        self.stop_id = self.turn.stop_id
        self.date = date_of(tokenizer.chat_template)
        """The date that the chat template writes, if it writes one."""
        self.context = context
        room = context - recipe.evaluate.max_new_tokens
        self.max_prompt = min(recipe.prompt.max_tokens or room, room)
        special = special_ids(tokenizer)
        self._specials = [*map(tokenizer.convert_ids_to_tokens, special | {self.stop_id})]
        prompt = self.turn.prompt(tokenizer, short, self.form)
        self._tails = [
            (tail, self._encode_plain([tail])[0]) for tail in (self._tail_of(prompt), "\n") if tail
        ]
        longest_first = sorted(map(re.escape, self._specials), key=len, reverse=True)
        self._special_text = re.compile("|".join(longest_first) or r"(?!)")

    def showing_all(self) -> Encoder:
        """The same encoder for examples of which every passage is shown, in its place."""
        data = {"max_passages": sys.maxsize, "shuffle_passages": False}
        other = copy.copy(self)
        other.recipe = self.recipe.model_copy(
            update={"data": self.recipe.data.model_copy(update=data)}
        )
        return other

    def prompt(self, example: Example) -> EncodedPrompt | None:
        """The prompt's ids, cut to `max_prompt`; None if the question alone is too long.

        Passages are dropped from the end, then the last one loses text from its end.
        """
        return self.prompts([example])[0]

    def prompts(self, examples: Sequence[Example]) -> list[EncodedPrompt | None]:
        """The prompts of several examples: as `prompt`, but encoded together."""
        shown = [shown_passages(e, self.recipe) for e in examples]
        kept = [len(passages) for passages in shown]
        ids: dict[int, list[int]] = {}
        todo = list(range(len(examples)))
        while todo:
            texts = [self._text(examples[i].question, shown[i][: kept[i]]) for i in todo]
            ids |= zip(todo, self._encode(texts), strict=True)
            todo = [i for i in todo if len(ids[i]) > self.max_prompt and kept[i] > 1]
            for i in todo:
                kept[i] -= 1
        return [
            self._cut_to_fit(e.question, shown[i], kept[i], ids[i]) for i, e in enumerate(examples)
        ]

    def messages(self, example: Example, prompt: EncodedPrompt) -> list[Message]:
        """The conversation that an example's encoded prompt holds, cut as the prompt is.

        It has the form that the chat template takes (`Form`).
        """
        passages = [_cut(example.passages[i], len(text)) for i, text in self.kept(example, prompt)]
        return self.form.of(self.builder.messages(example.question, passages))

    def kept(self, example: Example, prompt: EncodedPrompt) -> list[tuple[int, str]]:
        """Index and text of each passage as it stands in an example's encoded prompt."""
        order = shown_indices(example, self.recipe)
        kept = [(i, example.passages[i].text) for i in order[: prompt.passages_shown]]
        if prompt.characters_cut:
            index, text = kept[-1]
            kept[-1] = (index, text[: len(text) - prompt.characters_cut])
        return kept

    def _cut_to_fit(
        self, question: str, passages: Sequence[Passage], kept: int, ids: list[int]
    ) -> EncodedPrompt | None:
        """The prompt with `kept` passages, whose ids are `ids`; if too long, with less text."""
        cut = 0
        if len(ids) > self.max_prompt:
            if not passages:
                return None
            first = passages[0]
            length = self._longest(question, first)
            if length == 0:
                return None
            cut = len(first.text) - length
            ids = self._ids(question, [_cut(first, length)])
        return EncodedPrompt(ids, kept, len(passages) - kept, cut)

    def completion(self, answer: str) -> list[int]:
        """An answer's ids as they continue the prompt, and the stop token.

        With the blanks before it that the tokenizer joins to it, and with what the template writes between
        it and the stop token.

        The answer is encoded behind the text with which the prompt ends, so that a tokenizer that
        puts a space before every text (SentencePiece) does not put one between prompt and answer;
        or behind a line break, where that text ends in a special token or grows together with the
        answer.
        """
        return self._completions([answer])[0]

    def _completions(self, answers: Sequence[str]) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        todo = list(range(len(answers)))
        for tail, ids in [*self._tails, ("", [])]:
            texts = [tail + self.turn.completion(answers[i]) for i in todo]
            for i, both in zip(todo, self._encode_plain(texts), strict=True):
                if both[: len(ids)] == ids:
                    found[i] = [*both[len(ids) :], self.stop_id]
            todo = [i for i in todo if i not in found]
        return [found[i] for i in range(len(answers))]

    def holds_special_text(self, example: Example) -> bool:
        """Whether a question or a shown passage writes out a special token, which it then becomes."""
        shown = example.passages[: self.recipe.data.max_passages]
        texts = (example.question, *(p.text for p in shown), *(p.title for p in shown))
        return any(self._special_text.search(text) for text in texts)

    def target(self, example: Example) -> list[int]:
        """The completion that is trained for an example."""
        return self.targets([example])[0]

    def targets(self, examples: Sequence[Example]) -> list[list[int]]:
        """The completions of several examples: as `target`, but encoded together."""
        data, seed = self.recipe.data, self.recipe.seed
        return self._completions([target_answer(e, data, seed) for e in examples])

    def sample(self, example: Example) -> Sample | None:
        """A training sample, or None if it does not fit into the model's context."""
        return self.samples([example])[0]

    def samples(self, examples: Sequence[Example]) -> list[Sample | None]:
        """The samples of several examples: as `sample`, but encoded together."""
        prompts = self.prompts(examples)
        fitting = [i for i, prompt in enumerate(prompts) if prompt is not None]
        targets = dict(zip(fitting, self.targets([examples[i] for i in fitting]), strict=True))
        return [
            Sample(example.qid, prompt.ids, targets[i])
            if prompt is not None and len(prompt.ids) + len(targets[i]) <= self.context
            else None
            for i, (example, prompt) in enumerate(zip(examples, prompts, strict=True))
        ]

    def _text(self, question: str, passages: Sequence[Passage]) -> str:
        messages = self.builder.messages(question, passages)
        text = self.turn.prompt(self.tokenizer, messages, self.form)
        for message in messages:  # a short one came out whole before; a template may cut long ones
            if message["content"].strip() not in text:
                raise UsageError(
                    f"The chat template does not write the {message['role']}'s text whole: "
                    f"of {len(message['content']):,} characters something is cut off or changed.",
                    "Set prompt.chat_template to another one.",
                )
        return text

    def _ids(self, question: str, passages: Sequence[Passage]) -> list[int]:
        return self._encode([self._text(question, passages)])[0]

    def _encode(self, texts: list[str], **options: bool) -> list[list[int]]:
        if not texts:
            return []
        # The template wrote the special tokens; adding them again would double bos.
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, **options
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        """Text of the data alone: a special token that is written out in it stays text."""
        return self._encode(texts, split_special_tokens=True)

    def _longest(self, question: str, passage: Passage) -> int:
        """The most characters of a passage with which the prompt fits (0: none does)."""
        low, high = 0, len(passage.text)
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(self._ids(question, [_cut(passage, middle)])) <= self.max_prompt
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def _tail_of(self, prompt: str) -> str:
        """The prompt's last line, or what follows its last special token if that is less."""
        ends = [prompt.rfind(s) + len(s) for s in self._specials if s in prompt]
        return prompt[max([prompt.rstrip("\n").rfind("\n") + 1, *ends]) :]

    def answer_lengths(self, answers: Sequence[str]) -> list[int]:
        """The tokens of each answer as it is to be generated, without the stop token."""
        return [len(ids) - 1 for ids in self._completions(answers)]


def _cut(passage: Passage, length: int) -> Passage:
    return Passage(passage.text[:length], passage.title, passage.passage_id)
