"""What `ragtune build` shows: its figures, retrievers against each other, and questions with their passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragtune.base.screen.console import heading, note
from ragtune.base.screen.visible import in_line
from ragtune.base.text import one_or_many, shortened
from ragtune.building.figures import BuildFigures, where
from ragtune.building.retrieval.compare import DEPTHS, Comparison
from ragtune.data.example import Example
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.terminal import rate_cell
from ragtune.reporting.wording import RECALL

_FILES = 3
"""Files that could not be read, by their names."""
_TEXT = 71
"""Characters of a passage that are shown."""


def figures_table(figures: BuildFigures) -> FigureTable:
    """Recall among the first passages, in %; below it everything else that was counted, in words."""
    ranks = list(figures.recall[0].at) if figures.recall else []
    table = FigureTable(
        "a right passage among the first, in % (95 % interval)",
        "",
        ("a passage is right if", "questions", *map(str, ranks)),
    )
    for one in figures.recall:
        whose = ", synthetic questions" if one.asked == "synthetic" else ""
        cells = (rate_cell(one.at.get(rank)) for rank in ranks)
        table.add_row(RECALL[one.of][0] + whose, f"{one.n:,}", *cells)
    return table


def show_figures(figures: BuildFigures) -> None:
    """Say in lines what was read, cut, left out and found odd."""
    for line in _lines(figures):
        note(line)


def _lines(figures: BuildFigures) -> list[str]:
    documents, passages, questions = figures.documents, figures.passages, figures.questions
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in documents.kinds.items())
    long = passages.length
    lengths = (
        f" of {long.min:,} to {long.max:,} characters, median {long.median:,.0f}" if long else ""
    )
    read = one_or_many(documents.read, "document", "documents") + f" ({kinds})" * bool(kinds)
    cut = one_or_many(passages.n, "passage", "passages") + lengths
    trained_ones = one_or_many(questions.train, "question", "questions")
    lines = [
        f"{read}, {cut}",
        f"{trained_ones} for training, {questions.eval:,} for evaluation",
    ]
    if (made := questions.synthetic) is not None:
        lines.append(
            f"  {made.train:,} and {made.eval:,} of them are synthetic, written by {made.model}"
        )
    lines += [f"  left out: {n:,} {why}" for why, n in questions.dropped.items()]
    if documents.unread:
        files = one_or_many(documents.unread, "file", "files")
        first = ", ".join(one.file for one in documents.unread_files[:_FILES])
        more = ", …" if documents.unread > _FILES else ""
        lines.append(f"  {files} could not be read: {first}{more}")
    twins, trained, be = passages.twins, figures.trained, ("is", "are")
    odd = (
        (documents.empty, "of the documents", ("holds", "hold"), "no text"),
        (documents.unasked, "of the documents", ("answers", "answer"), "no question"),
        (
            questions.unfound,
            f"of {figures.answerable:,} questions with an answer",
            be,
            "answered by no passage that was retrieved",
        ),
        (twins.exact, f"of {twins.of:,} passages", be, "there again"),
        (twins.near, f"of {twins.of:,} passages", be, "there again, nearly the same"),
        (trained.exact, f"of {trained.of:,} passages that evaluation asks for", be, "trained"),
        (
            trained.near,
            f"of {trained.of:,} passages that evaluation asks for",
            be,
            "trained, nearly the same",
        ),
    )
    return lines + [f"  {n:,} {of} {verb[n != 1]} {what}" for n, of, verb, what in odd if n]


def comparison_table(compared: Comparison) -> FigureTable:
    """Retrievers side by side, in %, and the paired differences between them, in points."""
    that = "that no passage answers"
    lost = f"; {one_or_many(compared.unanswered, f'{that} is', f'{that} are')} left out"
    table = FigureTable(
        f"{one_or_many(compared.questions, 'question')} with a right passage among the first, in % (95 % "
        "interval)",
        f"differences are paired{lost * bool(compared.unanswered)}",
        ("retriever", *map(str, DEPTHS)),
    )
    columns = [f"recall_at_{depth}" for depth in DEPTHS]
    for name, figures in compared.recall.items():
        table.add_row(in_line(name), *(rate_cell(figures.get(column)) for column in columns))
    table.add_section()
    for pair, figures in compared.differences.items():
        table.add_row(in_line(pair), *(rate_cell(figures.get(column), "+") for column in columns))
    return table


def show_question(example: Example, why: Mapping[int, Sequence[str]]) -> None:
    """Print a question, what was retrieved for it, and which passages are positive.

    Args:
        example: as it is written.
        why: for each positive, by its index, in words: `an answer stands in it`, `the question names it`.
    """
    heading(f"Question {example.qid}")
    note(f"question: {example.question}")
    note(f"answers: {' | '.join(example.answers) or 'none'}")
    if not example.passages:
        note("retrieved: nothing")
    for index, passage in enumerate(example.passages):
        positive = index in example.positive_passage_indices
        title = f"{passage.title}: " if passage.title else ""
        note(f"  {'+' if positive else ' '} {index + 1} {title}{shortened(passage.text, _TEXT)}")
        reasons = f": {', '.join(why.get(index, ()))}" if why.get(index) else ""
        note(f"      {where(passage)}{f' – positive{reasons}' if positive else ''}")
