"""What the functions return: plain values, which a notebook shows as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, TypeVar, cast

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ragtune.base.screen import notebook
from ragtune.base.screen.visible import in_line, visible
from ragtune.base.text import one_or_many
from ragtune.reporting.answers import AnswerRow

T = TypeVar("T", bound=Mapping[str, Any])
_MARKS = {True: ("✓", "green"), False: ("✗", "red")}


class AnsweredQuestion(TypedDict):
    """A question with its answers, as far as there are any."""

    qid: str
    question: str
    answers: list[str]
    """Those that are accepted."""
    passages: list[str]
    """The texts in its prompt, in their order."""
    before: str | None
    after: str | None
    before_right: bool | None
    """By the headline metric; None without an answer."""
    after_right: bool | None


class AnsweredQuestions(list[AnsweredQuestion]):
    """Questions with the answers before and after tuning side by side, as plain values.

    A notebook shows them as a table, and Python's prompt as lines.
    """

    def __init__(self, rows: Iterable[AnswerRow], metric: str) -> None:
        super().__init__(map(_values, rows))
        self._metric = metric

    def __repr__(self) -> str:
        lines = []
        for one in self:
            lines += [in_line(one["question"]), f"  accepted: {in_line(_accepted(one))}"]
            lines += [f"    {which}: {side.plain}" for which, side in _sides(one).items()]
        return "\n".join([*lines, self._summary()])

    def _repr_html_(self) -> str:
        table = Table(caption=Text(self._summary()))
        for column in ("question", "accepted", *(_sides(self[0]) if self else ())):
            table.add_column(column)
        for one in self:
            cells = (Text(visible(text)) for text in (one["question"], _accepted(one)))
            table.add_row(*cells, *_sides(one).values())
        return notebook.wrapped(notebook.as_html(table))

    def _summary(self) -> str:
        right = {
            which: sum(one[f"{which}_right"] is True for one in self)  # type: ignore[literal-required]
            for which in (_sides(self[0]) if self else ())
        }
        said = ", ".join(f"{count} {which}" for which, count in right.items())
        asked = one_or_many(len(self), "question", "questions")
        return f"{asked}; right by {self._metric}: {said or 'none'}"


def _values(row: AnswerRow) -> AnsweredQuestion:
    return {
        "qid": row.qid,
        "question": row.question,
        "answers": [*row.answers],
        "passages": [passage.text for passage in row.passages],
        "before": row.before,
        "after": row.after,
        "before_right": None if row.before is None else row.before_right,
        "after_right": None if row.after is None else row.after_right,
    }


def _accepted(one: AnsweredQuestion) -> str:
    return " | ".join(one["answers"]) or "–"


def _sides(one: AnsweredQuestion) -> dict[str, Text]:
    """The answers that there are, with a mark and in its colour."""
    sides = {
        "before": (one["before"], one["before_right"]),
        "after": (one["after"], one["after_right"]),
    }
    return {
        which: Text(f"{_MARKS[right][0]} {in_line(text)}", _MARKS[right][1])
        for which, (text, right) in sides.items()
        if text is not None and right is not None
    }


class _Figures(dict[str, Any]):
    def __init__(self, figures: Mapping[str, Any], table: RenderableType) -> None:
        super().__init__(figures)
        self._table = table

    def _repr_html_(self) -> str:
        return notebook.wrapped(notebook.as_html(self._table))


def as_table(figures: T, table: RenderableType) -> T:
    """The same mapping, which a notebook shows as a table."""
    return cast("T", _Figures(figures, table))
