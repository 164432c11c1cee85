"""A retriever of the user's own: a Python callable, or a retriever of LangChain or LlamaIndex."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.base.text import first_line, one_or_many, shortened
from ragtune.building.retrieval.found import read_found
from ragtune.building.retrieval.known import Known
from ragtune.building.retrieval.pieces import pieces
from ragtune.building.retrieval.retriever import Hit, Retriever

Call = Callable[[list[str], int], object]
"""Of questions and k; one list of what was found for each question, in whatever form."""

_PIECE = 64
"""Questions between two signs of life of what is asked one at a time."""
_MANY = re.compile(r"\b(list|List|Sequence|Iterable)\[")
_NAMES_OF_MANY = ("questions", "queries")
_FORMS = (
    "A function of question, (question, k), questions or (questions, k); a retriever of LangChain (invoke) or "
    "of LlamaIndex (retrieve); or an object with search(questions, k)."
)


def as_retriever(own: object, known: Known) -> Retriever:
    """Make a retriever of whatever finds passages.

    Which form it has is found by looking, and said:

    - an object with `search(questions, k)`;
    - a retriever of LangChain: `batch(questions)`, or `invoke(question)`;
    - a retriever of LlamaIndex: `retrieve(question)`;
    - a function of questions, if its first argument is called so (or `queries`, or is annotated as a
      list), else of one question; with `k`, if it takes one.

    What it returns for a question is a list, best first, of ids, (id, score), {passage_id, …}, texts,
    Documents or NodeWithScores: `found.py`.

    Args:
        own: the retriever.
        known: the passages of the corpus.

    Raises:
        UsageError: it has none of these forms.
    """
    name = getattr(own, "__name__", type(own).__name__)
    if isinstance(own, type):
        raise UsageError(f"retriever: {name} is a class.", f"Give an object of it: {name}(…).")
    form = _form_of(own, name)
    note(f"retriever: {name} is asked as {form.words}.")
    return _Own(name, form, known)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a retriever is called."""

    call: Call
    words: str
    one_by_one: bool = False


@dataclass
class _Own:
    """Asks it, and makes hits of what it returns."""

    name: str
    form: _Form
    known: Known
    found: bool = False
    """Whether anything that it returned was a passage of the corpus."""
    told: set[str] = field(default_factory=set)
    """What was said once."""

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k passages for each question, in the order in which they were returned.

        Raises:
            UsageError: what was returned can't be read, or no passage of this corpus is among it.
            RagtuneError: it raised something.
        """
        found: list[list[Hit]] = []
        unknown: list[str] = []
        with busy(f"asking {self.name}", len(questions), unit="questions") as update:
            for piece in pieces(questions, _PIECE if self.form.one_by_one else len(questions) or 1):
                for question, items in zip(piece, self._ask(piece, k), strict=True):
                    where = f"{self.name}({_said(question)})"
                    try:
                        hits, strange = read_found(items, self.known, where)
                    except RagtuneError:
                        raise
                    except Exception as error:  # what it returned has a mind of its own
                        raise RagtuneError(
                            f"retriever: {where} returned what can't be read: {_words(error)}.",
                            _FORMS,
                        ) from error
                    found.append(hits[:k])
                    unknown += strange
                update(len(found))
        self._tell(found, unknown, k)
        return found

    def _ask(self, questions: list[str], k: int) -> list[object]:
        try:
            answer = self.form.call(questions, k)
        except RagtuneError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise RagtuneError(
                f"retriever: {self.name} raised {_words(error)} (asked: "
                f"{_said(questions[0])}{' and others' if len(questions) > 1 else ''}).",
                "--debug shows where.",
            ) from error
        if inspect.isawaitable(answer):
            raise _asynchronous(self.name)
        if not isinstance(answer, list | tuple) or len(answer) != len(questions):
            got = f"{len(answer)}" if isinstance(answer, list | tuple) else type(answer).__name__
            raise UsageError(
                f"retriever: {self.name} returned {got} for {one_or_many(len(questions), 'question')}.",
                "Return a list with one list of passages for each question, in their order.",
            )
        return list(answer)

    def _tell(self, found: list[list[Hit]], unknown: list[str], k: int) -> None:
        self.found = self.found or any(found)
        if unknown and not self.found:
            raise UsageError(
                f"retriever: of what {self.name} found ({len(unknown):,}), nothing is a passage of this "
                f"corpus; the first: {_said(unknown[0])}.",
                "Let it return the ids that passages have here (for a Document or a node: as "
                "metadata['passage_id']), or the texts as they were cut here.",
            )
        if unknown and "unknown" not in self.told:
            self.told.add("unknown")
            of = f"of what {self.name} found "
            warn(
                f"retriever: {one_or_many(len(unknown), of + 'is no passage', of + 'are no passages')} of this "
                f"corpus, and {'is' if len(unknown) == 1 else 'are'} left out; the first: {_said(unknown[0])}."
            )
        most = max(map(len, found), default=0)
        if 0 < most < k and "few" not in self.told:
            self.told.add("few")
            note(
                f"retriever: {self.name} found at most {one_or_many(most, 'passage')} for a question; {k} were "
                "asked for."
            )


def _form_of(own: object, name: str) -> _Form:
    search, batch = getattr(own, "search", None), getattr(own, "batch", None)
    invoke, retrieve = getattr(own, "invoke", None), getattr(own, "retrieve", None)
    if callable(search) and {"questions", "k"} <= set(_parameters(search)):
        return _Form(search, "search(questions, k)")
    if callable(invoke) and callable(batch):
        return _Form(
            lambda questions, _: batch(questions), "a retriever of LangChain: batch(questions)"
        )
    if callable(invoke):
        return _each(lambda question, _: invoke(question), "LangChain's: invoke(question)")
    if callable(retrieve):
        return _each(
            lambda question, _: retrieve(question), "a retriever of LlamaIndex: retrieve(question)"
        )
    if callable(getattr(own, "as_retriever", None)):
        raise UsageError(
            f"retriever: {name} is no retriever, but can make one.",
            "Give what its as_retriever() returns.",
        )
    if not callable(own):
        raise UsageError(f"retriever: {name} can't be asked for passages.", _FORMS)
    return _of_function(own, name)


def _of_function(function: Callable[..., object], name: str) -> _Form:
    """How a function is called, by its arguments."""
    parameters = _parameters(function)
    if inspect.iscoroutinefunction(function):
        raise _asynchronous(name)
    required = [p for p in parameters.values() if p.default is p.empty and p.kind in _PLACED]
    placed = required or list(parameters.values())[:1]
    first, others = (placed[0] if placed else None), placed[1:]
    second = others[0].name if others else "k" if "k" in parameters else None
    strange = [p.name for p in others[1:]]
    strange += [
        p.name
        for p in parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name != "k"
    ]
    if first is None or strange:
        raise UsageError(
            f"retriever: {name} takes "
            + (f"{', '.join(strange)}, which nobody gives it." if strange else "no question."),
            _FORMS,
        )
    many = first.name in _NAMES_OF_MANY or _MANY.search(str(first.annotation)) is not None
    by_name = second is not None and parameters[second].kind is inspect.Parameter.KEYWORD_ONLY

    def call(asked: str | list[str], k: int) -> object:
        if second is None:
            return function(asked)
        return function(asked, **{second: k}) if by_name else function(asked, k)

    form = f"{name}({'questions' if many else 'question'}{'' if second is None else ', k'})"
    return _Form(call, form) if many else _each(call, form)


_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """A function's arguments; those of one in C may be unknown, and then it is one question."""
    try:
        return dict(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return {"question": inspect.Parameter("question", inspect.Parameter.POSITIONAL_ONLY)}


def _each(ask: Callable[[str, int], object], words: str) -> _Form:
    def call(questions: list[str], k: int) -> list[object]:
        return [ask(question, k) for question in questions]

    return _Form(call, words, one_by_one=True)


def _asynchronous(name: str) -> UsageError:
    return UsageError(
        f"retriever: {name} is asynchronous.",
        "Give a plain function that waits for it, as by asyncio.run.",
    )


def _words(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {first_line(error)}"
    except Exception:  # noqa: BLE001 - it is the user's class
        return type(error).__name__


def _said(text: str) -> str:
    return repr(shortened(text))
