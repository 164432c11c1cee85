"""Asking in a terminal or a pipe: some questions, lines of standard input, or one after the other."""

from __future__ import annotations

import contextlib
import io
import itertools
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from ragtune.asking.answer import Answer
from ragtune.asking.history import history
from ragtune.asking.reader import Reader
from ragtune.asking.shown import as_json, show_answer, show_rest
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import Door, console, note, show_error
from ragtune.base.screen.output import complain, say_json
from ragtune.base.screen.visible import visible
from ragtune.base.stopping import stop_if_asked
from ragtune.building.retrieval.pieces import pieces

_AT_ONCE = 256
"""Lines of standard input that a GPU is asked together."""
_LONGEST = 1 << 20
"""Characters of a line: far more than any model reads."""


@dataclass(frozen=True)
class Session:
    """Asks a reader, and writes answers to standard output; whatever else is said goes elsewhere."""

    reader: Reader
    compare: bool = False
    """Whether the base is asked, too."""
    whole: bool = False
    """Whether passages are shown whole."""
    json: bool = False
    out: Door = field(default_factory=Door)

    def ask(self, questions: Sequence[str]) -> None:
        """Ask questions together, and show the answers in their order."""
        start = time.monotonic()
        examples = self.reader.examples(questions)
        spent = time.monotonic() - start
        answers = self.reader.answer(examples, before=spent)
        bases: Iterable[Answer | None] = [None] * len(answers)
        if self.compare:
            bases = self.reader.answer(examples, which="base", before=spent)
        for answer, base in zip(answers, bases, strict=True):
            if self.json:
                say_json(as_json(answer, base))
                continue
            if len(questions) > 1:
                self.out.print(Text(f"> {visible(answer.question)}", "bold cyan"))
            show_answer(self.out, answer, base, whole=self.whole)
            if len(questions) > 1:
                self.out.print()

    def ask_one(self, question: str) -> None:
        """Ask one question; in a terminal its answer appears while it is written."""
        if self.json or self.compare or not self.out.is_terminal:
            self.ask([question])
            return
        with contextlib.closing(self.reader.stream(question)) as stream:
            begun = False
            while True:
                try:
                    piece = next(stream)
                except StopIteration as end:
                    answer: Answer = end.value
                    break
                piece = piece if begun else piece.lstrip()
                begun = begun or bool(piece)
                self.out.print(Text(visible(piece), "bold"), end="", soft_wrap=True)
        self.out.print("" if begun else "(nothing)")
        show_rest(self.out, answer, None, whole=self.whole)

    def ask_lines(self, lines: Iterable[str]) -> None:
        """Ask every line that is not empty, many at a time; all GPUs do, if there are more than one is asked.

        Raises:
            UsageError: there is none.
        """
        # Some programs begin a file with a mark.
        typed = (line.lstrip("\ufeff").strip() for line in lines)
        every = pieces(filter(None, typed), self.reader.sharers * _AT_ONCE)
        first = next(every, None)
        if first is None:
            raise UsageError(
                "There is no question.",
                "Write it behind the run, or one a line to standard input.",
            )
        # Of fewer, one GPU has answered most before another has the model in memory.
        with self.reader.sharing() if len(first) > _AT_ONCE else contextlib.nullcontext():
            self.reader.start()
            for some in itertools.chain([first], every):
                self.ask(some)

    def converse(self) -> None:
        """Ask what is typed, one question after the other, until Ctrl-D, or Ctrl-C at the prompt."""
        note("A question a line. Ctrl-C stops an answer; Ctrl-D ends.")
        if isinstance(
            sys.stdin, io.TextIOWrapper
        ):  # what no text is typed as is told of its question
            sys.stdin.reconfigure(errors="surrogateescape")
        with _own_interrupt(), history():
            while True:
                try:
                    question = self._typed().strip()
                except (EOFError, KeyboardInterrupt):
                    stop_if_asked()
                    console.print()
                    return
                if question:
                    self._answered(question)

    def _typed(self) -> str:
        console.print()
        if self.out.is_terminal:
            return input("> ")
        complain("> ")  # answers go to a file, and nothing else does
        return input()

    def _answered(self, question: str) -> None:
        try:
            self.ask_one(question)
        except KeyboardInterrupt:
            stop_if_asked()  # SIGTERM, or a lost output: not only this answer is to end
            console.print()
            note("Stopped.")
        except RagtuneError as error:  # of this question: the next one may be a better one
            show_error(error.message, error.advice)


def is_typed() -> bool:
    """Whether somebody types at standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def given_lines() -> Iterator[str]:
    """The lines of standard input in UTF-8, whatever encoding this system takes pipes to be in.

    Raises:
        UsageError: one has no end.
    """
    if sys.stdin is None:
        return
    if isinstance(sys.stdin, io.TextIOWrapper):  # what is no UTF-8 is told of its question
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    for line in iter(lambda: sys.stdin.readline(_LONGEST + 1), ""):
        if len(line) > _LONGEST:
            raise UsageError(
                f"A line of standard input has more than {_LONGEST:,} characters.",
                "Write a question a line.",
            )
        yield line


@contextlib.contextmanager
def _own_interrupt() -> Iterator[None]:
    """Let Ctrl-C stop what is under way, and not the command."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
