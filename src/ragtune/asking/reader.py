"""A tuned reader: retrieves, prompts as in training, and answers, through the code that evaluates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ragtune.answering.prediction import Prediction
from ragtune.asking.answer import Answer, Which, require_questions
from ragtune.asking.corpus import Corpus, cut_as, find_corpus
from ragtune.asking.given import Given, read_given
from ragtune.asking.model import Model
from ragtune.asking.opening import open_source
from ragtune.base.errors import UsageError
from ragtune.base.screen.console import warn
from ragtune.base.screen.notebook import one_output
from ragtune.base.text import shortened
from ragtune.data.chat import Message
from ragtune.data.citations import parse
from ragtune.data.example import Example, Passage, parse_example
from ragtune.data.quotes import is_verbatim
from ragtune.data.select import shown_indices
from ragtune.data.words import places, refused
from ragtune.recipe.corpus import Passages


class Reader:
    """Answers questions from passages.

    Make one with `Reader.load`. It may be asked from several threads: they take turns.
    """

    def __init__(self, model: Model, documents: Corpus | Given | UsageError) -> None:
        self._model = model
        self._documents = documents
        """What is searched; or why nothing is."""

    @classmethod
    def load(
        cls,
        source: str | Path,
        *overrides: str,
        corpus: str | Path | None = None,
        documents: Sequence[str | Path] = (),
    ) -> Reader:
        """The reader of a run directory, or of what was published.

        Args:
            source: a run directory, a folder or a Hub id of what `push` published.
            overrides: `section.key=value` changes to its recipe, such as model.dtype=float32.
            corpus: the folder that `ragtune build` wrote, whose index is searched; by default the one that
                the run's data came from, if it is there.
            documents: files to answer from instead, of every kind that `ragtune build` reads: cut as the
                corpus is, and searched if they have more passages than a prompt shows.

        Raises:
            UsageError: there is no such run, or nothing was tuned in it yet; a file can't be read.
        """
        with one_output():  # in a notebook what is said looks as everywhere
            reader = cls.open(source, *overrides, corpus=corpus, documents=documents)
            reader.start()
        return reader

    @classmethod
    def open(
        cls,
        source: str | Path,
        *overrides: str,
        corpus: str | Path | None = None,
        documents: Sequence[str | Path] = (),
    ) -> Reader:
        """As `load`, but the model is loaded by `start`, or with the first question."""
        model = open_source(source, overrides)
        found: Corpus | Given | UsageError
        if documents:
            own = cut_as(model.context)
            most = model.context.recipe.data.max_passages
            found = read_given(documents, own.passages if own else Passages(), most)
        else:
            found = find_corpus(model.context, corpus)
        return cls(model, found)

    def require(self, which: Which) -> None:
        """Require that this model can be asked with passages that are found. Raises UsageError if not."""
        if isinstance(self._documents, UsageError):
            raise self._documents
        self._model.require(which)

    def start(self) -> None:
        """Have the model in memory."""
        self._model.load()

    @property
    def sharers(self) -> int:
        """GPUs that can share many questions: one alone with an adapter that was published."""
        return self._model.sharers

    def sharing(self) -> AbstractContextManager[None]:
        """Within, all GPUs answer. It is entered before the model is in memory, so after `open`."""
        return self._model.sharing()

    @property
    def name(self) -> str:
        """What it is called: the run's name, or the Hub's id."""
        return self._model.name

    @property
    def retrieves(self) -> bool:
        """Whether there is an index to search, so that no passages need be given."""
        return not isinstance(self._documents, UsageError)

    @property
    def compares(self) -> bool:
        """Whether the untuned model can be asked, too (`which="base"`)."""
        return self._model.compares

    def ask(
        self,
        questions: Sequence[str],
        passages: Sequence[Passage | str] | None = None,
        *,
        which: Which = "tuned",
    ) -> list[Answer]:
        """The answers to questions, asked together.

        Args:
            questions: one or more.
            passages: to answer all of them from, best first; by default those that are retrieved. An empty
                list asks without any, which is said.
            which: the tuned model, or the base.

        Raises:
            UsageError: no passages are given and there is no index, or a question is empty or too long.
        """
        start = time.monotonic()
        examples = self.examples(questions, passages)
        return self.answer(examples, which=which, before=time.monotonic() - start)

    def answer(
        self, examples: Sequence[Example], *, which: Which = "tuned", before: float = 0.0
    ) -> list[Answer]:
        """The answers to examples: questions with the passages of each.

        Args:
            examples: their answers, and what else they say, is not looked at.
            which: the tuned model, or the base.
            before: seconds that finding the passages took.

        Raises:
            UsageError: as `ask`.
        """
        shown = self._shown(examples, which)
        found, seconds = self._model.answer(examples, which)
        share = (before + seconds) / max(1, len(examples))
        return [
            self._answer(example, passages, prediction, which, share)
            for example, passages, prediction in zip(examples, shown, found, strict=True)
        ]

    def stream(
        self,
        question: str,
        passages: Sequence[Passage | str] | None = None,
        *,
        which: Which = "tuned",
    ) -> Generator[str, None, Answer]:
        """The answer to one question piece by piece, as it is written; together they are `Answer.text`.

        With prompt.quote, its quote stands before it, with prompt.citations, its citations behind it.

        The generator returns the whole answer, as `yield from` has it. Raises as `ask` does.
        """
        start = time.monotonic()
        (example,) = self.examples([question], passages)
        (shown,) = self._shown([example], which)
        prediction = yield from self._model.stream(example, which)
        return self._answer(example, shown, prediction, which, time.monotonic() - start)

    def messages(
        self, question: str, passages: Sequence[Passage | str] | None = None
    ) -> list[Message]:
        """The conversation that a server with the tuned model is to be sent: the prompt as in training.

        It is cut as there, and a control token that a passage writes out is broken by a blank. Raises as
        `ask` does.
        """
        (example,) = self.examples([question], passages)
        self._shown([example], "tuned")
        encoder = self._model.context.encoder
        prompt = encoder.prompt(example)
        assert prompt is not None
        return encoder.messages(example, prompt)

    def retrieve(self, questions: Sequence[str]) -> list[list[Passage]]:
        """The passages that each question is answered from, best first.

        Raises:
            UsageError: there is no index.
        """
        questions = require_questions(questions)
        if isinstance(self._documents, UsageError):
            raise self._documents
        return self._documents.search(questions, self._model.context.recipe.data.max_passages)

    def examples(
        self, questions: Sequence[str], passages: Sequence[Passage | str] | None = None
    ) -> list[Example]:
        """The questions with their passages, for `answer`: both models then have the same. Raises as `ask`."""
        questions = require_questions(questions)
        if isinstance(passages, str | Passage):
            raise UsageError("The passages are a single one.", "Give a list: passages=[text].")
        if passages is None:
            each: Iterable[Sequence[Passage]] = self.retrieve(questions)
        else:
            if not passages:
                warn("The list of passages is empty: the model answers without any.")
            given = [p if isinstance(p, Passage) else Passage(p) for p in passages]
            each = [given] * len(questions)
        return [_example(*pair) for pair in zip(questions, each, strict=True)]

    def _shown(self, examples: Sequence[Example], which: Which) -> list[tuple[Passage, ...]]:
        """The passages of each, as they stand in its prompt."""
        self._model.require(which)
        encoder = self._model.context.encoder
        shown: list[tuple[Passage, ...]] = []
        for example, prompt in zip(examples, encoder.prompts(examples), strict=True):
            if prompt is None:
                raise UsageError(
                    f"This question is too long: {shortened(example.question)}",
                    f"With its prompt it may have {encoder.max_prompt:,} tokens. Ask it in fewer words.",
                )
            kept = encoder.kept(example, prompt)
            if not encoder.recipe.prompt.citations:
                kept.sort()
            shown.append(
                tuple(dataclasses.replace(example.passages[i], text=text) for i, text in kept)
            )
        return shown

    def _answer(
        self,
        example: Example,
        passages: tuple[Passage, ...],
        prediction: Prediction,
        which: Which,
        seconds: float,
    ) -> Answer:
        recipe, source = self._model.context.recipe, prediction.source
        written = parse(prediction.prediction, recipe.prompt)
        text, numbers = written.answer, written.numbers
        known = range(1, len(passages) + 1)
        if source is not None:  # of the example's passages some may not have been shown
            kept = sorted(shown_indices(example, recipe)[: len(passages)])
            source = dataclasses.replace(source, passage=kept.index(source.passage))
        return Answer(
            question=example.question,
            text=text,
            passages=passages,
            stands_at=tuple(places(p.text, text.strip()) for p in passages),
            finished=prediction.stopped,
            seconds=seconds,
            refused=refused(text, recipe.data.refusal),
            which=which,
            citations=tuple(n for n in numbers if n in known),
            malformed=tuple(n for n in numbers if n not in known),
            quote=written.quote,
            quote_found=any(is_verbatim(written.quote, p.text) for p in passages),
            probability=prediction.probability,
            source=source,
            unsure=prediction.unsure,
        )


def _example(question: str, passages: Sequence[Passage]) -> Example:
    """A question as evaluation has it; without a qid of its own."""
    record = {"question": question, "answers": [], "passages": [p.to_dict() for p in passages]}
    return parse_example(record, "The question")
