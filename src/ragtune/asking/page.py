"""A page for asking in a browser: type, see passages and answers, press a thumb. Made with Gradio.

Text of strangers is shown by HTML components alone, from page_text, which escapes it: whatever else Gradio has
for text takes it as Markdown, or may do so in its next version.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ragtune.asking import page_text
from ragtune.asking.answer import Answer, Which
from ragtune.asking.feedback import Feedback, Thumb, append, pasted
from ragtune.asking.page_line import Line
from ragtune.asking.page_text import Card
from ragtune.asking.reader import Reader
from ragtune.base import stopping
from ragtune.base.commands import install
from ragtune.base.errors import RagtuneError, UsageError, in_words
from ragtune.data.example import Passage, is_text
from ragtune.reporting.wording import package_text

if TYPE_CHECKING:
    import gradio as gr

MAX_QUESTION, MAX_PASSAGES, MAX_ANSWER = 2_000, 200_000, 1_000
"""Characters that a user may type or paste."""
MAX_WAITING = 20
"""Questions that may be there at a time; who comes then is told to come back."""
_LOOK = 0.25
"""Seconds between two looks whether it is a question's turn."""

Shown = tuple[Any, ...]
"""What becomes of the page's parts, in the order of `_shown`."""


@dataclass(frozen=True)
class Asked:
    """What a thumb is about: kept for one user, in memory."""

    question: str
    answer: Answer
    pasted: tuple[Passage, ...]


class Page:
    """The page of a reader.

    Args:
        reader: who answers.
        feedback: the file of the thumbs.
    """

    def __init__(self, reader: Reader, feedback: Path) -> None:
        self._reader = reader
        self._feedback = feedback
        self._line = Line(MAX_WAITING)

    def blocks(self) -> gr.Blocks:
        """The page as Gradio has it. Raises RagtuneError: Gradio is not installed."""
        gr, reader = library(), self._reader
        whose = "tuned " if reader.compares else ""
        with gr.Blocks(title=f"{reader.name} · ragtune", analytics_enabled=False) as blocks:
            gr.HTML(page_text.head(reader.name, retrieves=reader.retrieves), **_PLAIN)
            question = gr.Textbox(
                label="Question", lines=1, max_lines=6, max_length=MAX_QUESTION, autofocus=True,
                elem_id="question",
            )  # fmt: skip
            with gr.Accordion("Passages of your own", open=not reader.retrieves, elem_id="own"):
                own = gr.Textbox(
                    show_label=False, lines=5, max_lines=16, max_length=MAX_PASSAGES, elem_id="pasted",
                    placeholder="Paste them here, with an empty line between two.",
                )  # fmt: skip
            with gr.Row(elem_id="asking"):
                ask = gr.Button("Ask", variant="primary", elem_id="ask")
                both = gr.Checkbox(
                    label="Ask the base model, too", value=True, visible=reader.compares,
                    container=False, elem_id="both",
                )  # fmt: skip
            answers = gr.HTML(elem_id="answers", **_PLAIN)
            with gr.Row(visible=False, elem_id="thumbs") as thumbs:
                up = gr.Button(f"The {whose}answer is right", elem_id="up", size="sm")
                down = gr.Button("It is wrong", elem_id="down", size="sm")
            with gr.Row(visible=False, elem_id="correction") as correction:
                right = gr.Textbox(
                    label="The right answer, if you know it",
                    lines=1,
                    max_length=MAX_ANSWER,
                    elem_id="right",
                )
                keep = gr.Button("Keep", elem_id="keep", size="sm")
                none = gr.Button("The passages don’t say it", elem_id="none", size="sm")
            said = gr.HTML(self._promise(), elem_id="said", **_PLAIN)
            passages = gr.HTML(elem_id="passages", **_PLAIN)
            asked = gr.State(None)

            shown = [answers, passages, thumbs, correction, right, said, asked]
            gr.on([ask.click, question.submit], self.ask, [question, own, both], shown, **_EVENT)
            up.click(self.accept, [asked], shown, **_EVENT)
            down.click(self.doubt, None, shown, **_EVENT)
            gr.on([keep.click, right.submit], self.correct, [asked, right], shown, **_EVENT)
            none.click(self.miss, [asked], shown, **_EVENT)
        return blocks

    def ask(self, question: object, own: object, both: object) -> Iterator[Shown]:
        """Answer a question; yields what the page shows meanwhile."""
        cleared = _shown(answers="", passages="", thumbs=False, correction=False, right="",
                         said=self._promise(), asked=None)  # fmt: skip
        yield cleared
        try:
            text, found = self._wanted(question, own)
            with self._line.place() as ahead:
                while (waiting := ahead()) and not stopping.asked():
                    yield _shown(answers=page_text.waiting(waiting))
                    time.sleep(_LOOK)
                yield from self._answered(text, found, compare=both is True)
        except stopping.Stopped:
            return  # the main thread has its own; this one would cut off the server's end
        except Exception as error:  # noqa: BLE001 - whatever it is ends in a message on the page
            yield _shown(answers=page_text.told(in_words(error)))

    def _answered(
        self, question: str, own: tuple[Passage, ...], *, compare: bool
    ) -> Iterator[Shown]:
        """Ask the tuned model and, if it is wanted, the base, both with the same passages."""
        start = time.monotonic()
        found: Sequence[Passage] = own or self._reader.retrieve([question])[0]
        spent = time.monotonic() - start
        wanted: list[Which] = ["tuned"]
        if compare and self._reader.compares:
            wanted.append("base")
        cards = [Card(which) for which in wanted]
        cards[0] = Card("tuned", writing=True)
        yield _shown(answers=page_text.answers(question, cards), passages=page_text.passages(found))
        for place, which in enumerate(wanted):
            cards[place] = Card(which, writing=True)
            writing = self._reader.stream(question, found, which=which)
            try:
                while not stopping.asked():
                    cards[place] = replace(cards[place], text=cards[place].text + next(writing))
                    yield _shown(answers=page_text.answers(question, cards))
                return
            except StopIteration as end:
                answer: Answer = end.value
            cards[place] = page_text.card(answer, answer.seconds + spent)
            if which == "tuned":
                asked = Asked(question, answer, own)
                marked = page_text.passages(answer.passages, answer)
            yield _shown(answers=page_text.answers(question, cards), passages=marked)
        yield _shown(thumbs=True, asked=asked)

    def _wanted(self, question: object, own: object) -> tuple[str, tuple[Passage, ...]]:
        """What was typed, checked: whoever reaches the page can send whatever they like.

        Raises:
            UsageError: something is missing, or too long.
        """
        text = _typed(question, "The question", MAX_QUESTION)
        found = tuple(pasted(_typed(own, "The passages of your own", MAX_PASSAGES)))
        if not text:
            raise UsageError("There is no question.", "Type one.")
        if not found and not self._reader.retrieves:
            raise UsageError(
                "There are no passages to answer from.",
                "Paste some: this model comes without an index that could be searched.",
            )
        return text, found

    def accept(self, asked: Asked | None) -> Shown:
        """Thumbs up: the answer is an accepted one, or there is rightly none."""
        return self._keep(asked, "up")

    def doubt(self) -> Shown:
        """Thumbs down: ask for the right answer."""
        return _shown(thumbs=False, correction=True)

    def correct(self, asked: Asked | None, right: object) -> Shown:
        """Thumbs down, with the right answer or without."""
        return self._keep(asked, "down", right)

    def miss(self, asked: Asked | None) -> Shown:
        """Thumbs down: the model should have said that the passages hold no answer."""
        return self._keep(asked, "down", unanswerable=True)

    def _keep(
        self, asked: Asked | None, thumb: Thumb, right: object = "", *, unanswerable: bool = False
    ) -> Shown:
        try:
            feedback = self._judged(asked, thumb, _typed(right, "The right answer", MAX_ANSWER))
            append(
                self._feedback,
                replace(feedback, unanswerable=feedback.unanswerable or unanswerable),
            )
        except Exception as error:  # noqa: BLE001 - whatever it is ends in a message on the page
            return _shown(said=page_text.told(in_words(error)))
        kept = page_text.kept("Kept in", str(self._feedback), ". Thank you.")
        return _shown(thumbs=False, correction=False, right="", said=kept, asked=None)

    def _judged(self, asked: Asked | None, thumb: Thumb, right: str) -> Feedback:
        if asked is None:
            raise UsageError("There is no answer to judge.", "Ask a question first.")
        answer = asked.answer
        said = answer.text.strip()
        if thumb == "up" and not said:
            raise UsageError("The model wrote nothing, and that can't be right.")
        refused = thumb == "up" and answer.refused
        accepted = said if thumb == "up" and not refused else right
        return Feedback(
            asked.question,
            said,
            thumb,
            (accepted,) if accepted else (),
            self._reader.name,
            asked.pasted,
            unanswerable=refused,
        )

    def _promise(self) -> str:
        return page_text.kept(
            "What is typed here is kept only if a thumb is pressed, and then in",
            str(self._feedback),
            ".",
        )


_PLAIN: dict[str, Any] = {"js_on_load": None, "apply_default_css": False, "padding": False}
"""Of every HTML component: no script runs when it is shown."""
_EVENT: dict[str, Any] = {
    "api_visibility": "private",  # nothing is to be called but by the page
    "show_progress": "hidden",
    "concurrency_limit": None,  # the line is ours: a thumb doesn't wait for an answer
}


def _shown(**parts: object) -> Shown:
    """What becomes of the page's parts: those that aren't named stay as they are."""
    order = ("answers", "passages", "thumbs", "correction", "right", "said", "asked")
    gr = library()
    changed = {
        name: gr.update(visible=value) if name in ("thumbs", "correction") else value
        for name, value in parts.items()
    }
    return tuple(changed.get(name, gr.skip()) for name in order)


def _typed(value: object, what: str, longest: int) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if len(text) > longest:
        raise UsageError(
            f"{what} has {len(text):,} characters; at most {longest:,} are taken.", "Shorten it."
        )
    if not is_text(text):
        raise UsageError(
            f"{what} holds half of a surrogate pair, which is no text.", "Type it again."
        )
    return text


def library() -> ModuleType:
    """Gradio. Raises RagtuneError: it is not installed."""
    try:
        return importlib.import_module("gradio")  # an extra, which loads for seconds
    except ImportError as error:
        raise RagtuneError(
            f"The page needs Gradio ({error}).", f"Run: {install('gradio>=6.31,<7')}"
        ) from error


def look() -> dict[str, Any]:
    """How the page looks: nothing is fetched from elsewhere."""
    fonts = (
        "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "Hiragino Sans",
        "Yu Gothic UI", "Meiryo", "Noto Sans CJK JP", "Noto Sans JP", "sans-serif",
    )  # fmt: skip
    mono = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
    theme = library().themes.Base(font=fonts, font_mono=mono)
    return {"theme": theme, "css": package_text("page.css")}
