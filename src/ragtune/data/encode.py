"""From messages to token ids and the loss mask, by construction.

A prompt is a finished turn's text up to the answer, in training and in answering: what the chat template
writes there belongs to it. The completion is encoded as it continues the prompt's tail, and the stop
token follows: nothing is searched for in token ids.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.data.chat import Message, find_form, require_end
from ragtune.data.citations import trained
from ragtune.data.control import ControlTokens
from ragtune.data.example import Example, Passage
from ragtune.data.opening import find_opening
from ragtune.data.prompt import PromptBuilder
from ragtune.data.select import shown_indices, shown_passages
from ragtune.data.tokenizer import all_encoded, date_of, special_ids
from ragtune.data.turn import answered, find_turn
from ragtune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100
"""The label of a position that is not trained (PyTorch's convention)."""
_PLAIN = {"split_special_tokens": True}


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
    number: int = 0
    """Its place in the step, by which what is drawn for it is its own."""

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
        self._tried = 0
        """The most characters of an example on which the templates were tried."""
        room = context - recipe.evaluate.max_new_tokens
        self.max_prompt = min(recipe.prompt.max_tokens or room, room)
        special = special_ids(tokenizer) | {self.stop_id}
        self._specials = [*map(tokenizer.convert_ids_to_tokens, special)]
        prompt = self.turn.prompt(tokenizer, short, self.form)
        self._tails = [
            (tail, self._encode_plain([tail])[0]) for tail in (self._tail_of(prompt), "\n") if tail
        ]
        self.control = ControlTokens(tokenizer, self._encode([prompt])[0], self.stop_id)

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
        self._require_end(examples, shown)
        kept = [len(passages) for passages in shown]
        fewest, ids = [min(1, count) for count in kept], dict[int, list[int]]()
        most, todo = [*kept], [*range(len(examples))]
        while todo:  # of many passages the half is tried next: each time all of them are encoded
            asked = [(examples[i].question, shown[i][: kept[i]]) for i in todo]
            for i, found in zip(todo, self._ids(asked), strict=True):
                if len(found) <= self.max_prompt or kept[i] == fewest[i]:
                    fewest[i], ids[i] = kept[i], found
                else:
                    most[i] = kept[i] - 1
            kept = [(low + high + 1) // 2 for low, high in zip(fewest, most, strict=True)]
            todo = [i for i in todo if fewest[i] < most[i] or i not in ids]
        return [
            self._cut_to_fit(e.question, shown[i], kept[i], ids[i]) for i, e in enumerate(examples)
        ]

    def _require_end(
        self, examples: Sequence[Example], shown: Sequence[tuple[Passage, ...]]
    ) -> None:
        """Try the templates on the longest of some examples where they can be stopped.

        That is done once more for an example that is twice as long as any that was tried.
        """
        sizes = [
            len(e.question) + sum(len(p.title) + len(p.text) for p in passages)
            for e, passages in zip(examples, shown, strict=True)
        ]
        longest = max(sizes, default=0)
        if longest <= 2 * self._tried:
            return
        example, passages = examples[sizes.index(longest)], shown[sizes.index(longest)]
        self.builder.require_end(example.question, passages)
        messages = self.builder.messages(example.question, passages)
        require_end(self.tokenizer, [answered(messages, self.form, "x")])
        self._tried = longest

    def messages(self, example: Example, prompt: EncodedPrompt) -> list[Message]:
        """The conversation that an example's encoded prompt holds, cut as the prompt is.

        It has the form that the chat template takes (`Form`). Control tokens that the data write out are
        broken by a blank: whoever gets it encodes it by a tokenizer of its own.
        """
        passages = [_cut(example.passages[i], len(text)) for i, text in self.kept(example, prompt)]
        messages, mark = self._marked(example.question, passages)
        content = messages[-1]["content"].replace(mark, " ")
        return self.form.of([*messages[:-1], {**messages[-1], "content": content}])

    def kept(self, example: Example, prompt: EncodedPrompt | None) -> list[tuple[int, str]]:
        """Index and text of each passage as it stands in an example's encoded prompt; uncut without one."""
        order = shown_indices(example, self.recipe)
        shown = order[: prompt.passages_shown] if prompt else order
        kept = [(i, example.passages[i].text) for i in shown]
        if prompt and prompt.characters_cut:
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
            ids = self._ids([(question, [_cut(first, length)])])[0]
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
        found = self.behind_prompt([*map(self.turn.completion, answers)])
        return [
            [*(self._answer_as_text(answer, ids) if self.control.among(ids) else ids), self.stop_id]
            for answer, ids in zip(answers, found, strict=True)
        ]

    def behind_prompt(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts as they continue the prompt's end."""
        found: dict[int, list[int]] = {}
        todo = list(range(len(texts)))
        for tail, ids in [*self._tails, ("", [])]:
            both = self._encode_plain([tail + texts[i] for i in todo])
            for i, one in zip(todo, both, strict=True):
                if one[: len(ids)] == ids:
                    found[i] = one[len(ids) :]
            todo = [i for i in todo if i not in found]
        return [found[i] for i in range(len(texts))]

    def _answer_as_text(self, answer: str, ids: list[int]) -> list[int]:
        """The ids of a completion of which `ids` hold control tokens that the answer may write out."""
        marked, mark = self.control.cut(answer, **_PLAIN)
        first, *rest = self.turn.completion(marked).split(mark)
        if not rest:  # they are what the template writes before the stop token
            return ids
        begin, harmless = self.behind_prompt([first, "x".join([first, *rest])])
        return self.control.joined(begin, rest, harmless, **_PLAIN)

    def target(self, example: Example, prompt: EncodedPrompt | None = None) -> list[int]:
        """The completion that is trained for an example, behind this prompt."""
        return self.targets([example], [prompt])[0]

    def targets(
        self, examples: Sequence[Example], prompts: Sequence[EncodedPrompt | None] = ()
    ) -> list[list[int]]:
        """The completions of several examples, encoded together; without prompts behind uncut ones."""
        pairs = zip(examples, prompts or [None] * len(examples), strict=True)
        return self._completions([trained(e, self.recipe, self.kept(e, p)) for e, p in pairs])

    def sample(self, example: Example) -> Sample | None:
        """A training sample, or None if it does not fit into the model's context."""
        return self.samples([example])[0]

    def samples(
        self, examples: Sequence[Example], prompts: Sequence[EncodedPrompt | None] | None = None
    ) -> list[Sample | None]:
        """The samples of several examples: as `sample`, but encoded together; of prompts that are given."""
        prompts = self.prompts(examples) if prompts is None else prompts
        fitting = [i for i, prompt in enumerate(prompts) if prompt is not None]
        both = [examples[i] for i in fitting], [prompts[i] for i in fitting]
        targets = dict(zip(fitting, self.targets(*both), strict=True))
        return [
            Sample(example.qid, prompt.ids, targets[i])
            if prompt is not None and len(prompt.ids) + len(targets[i]) <= self.context
            else None
            for i, (example, prompt) in enumerate(zip(examples, prompts, strict=True))
        ]

    def _ids(self, asked: Sequence[tuple[str, Sequence[Passage]]]) -> list[list[int]]:
        """The ids of questions with passages, in which the control tokens are the template's alone."""
        texts = [self._text(self.builder.messages(*one)) for one in asked]
        return [
            self._as_text(*one, ids) if self.control.may_be_forged(text, ids) else ids
            for one, text, ids in zip(asked, texts, self._encode(texts), strict=True)
        ]

    def _as_text(self, question: str, passages: Sequence[Passage], ids: list[int]) -> list[int]:
        """The ids of a prompt of which `ids` may hold control tokens that the data write out."""
        messages, mark = self._marked(question, passages)
        first, *rest = self._text(messages).split(mark)
        if not rest:
            return ids
        begin, harmless = self._encode([first, "x".join([first, *rest])])
        return self.control.joined(begin, rest, harmless)

    def _marked(self, question: str, passages: Sequence[Passage]) -> tuple[list[Message], str]:
        """The conversation with a mark in every control token that the data write out, and the mark."""
        content, mark = self.control.marked(self.builder, question, passages)
        *before, user = self.builder.messages(question, passages)
        return [*before, {**user, "content": content}], mark

    def _text(self, messages: Sequence[Message]) -> str:
        text = self.turn.prompt(self.tokenizer, messages, self.form)
        for message in messages:  # a short one came out whole before; a template may cut long ones
            if message["content"].strip() not in text:
                raise UsageError(
                    f"The chat template does not write the {message['role']}'s text whole: "
                    f"of {len(message['content']):,} characters something is cut off or changed.",
                    "Set prompt.chat_template to another one.",
                )
        return text

    def _encode(self, texts: Sequence[str], **options: bool) -> list[list[int]]:
        # The template wrote the special tokens; adding them again would double bos.
        return all_encoded(self.tokenizer, texts, **options)

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        """Text of the data alone: a special token that is written out in it stays text."""
        return self._encode(texts, **_PLAIN)

    def _longest(self, question: str, passage: Passage) -> int:
        """The most characters of a passage with which the prompt fits (0: none does)."""
        low, high = 0, len(passage.text)
        if len(self._ids([(question, [_cut(passage, 1)])])[0]) > self.max_prompt:
            return 0  # the question alone: it is not encoded again for each half of the passage
        while low < high:
            middle = (low + high + 1) // 2
            fits = len(self._ids([(question, [_cut(passage, middle)])])[0]) <= self.max_prompt
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
    return replace(passage, text=passage.text[:length])
