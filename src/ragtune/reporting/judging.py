"""What a judge made of a run's answers, as a table."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic wants this one, before Python 3.12

from ragtune.base.screen.visible import in_line
from ragtune.base.text import one_or_many
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.terminal import rate_cell
from ragtune.scoring.judging import Agreement, Judged


class Cost(TypedDict):
    """What judging took."""

    requests: int
    kept: int
    """Of these, answered at an earlier time."""
    prompt_tokens: int | None
    """Of the others, as the server counts; None where it doesn't say."""
    completion_tokens: int | None


class JudgedRun(Judged, Cost):
    """judge/after.json: who judged which answers."""

    which: str
    endpoint: str
    model: str
    prompt: str
    """The version of the prompts."""
    metric: str
    sha256: str
    """Of the predictions.jsonl that was judged."""


ROWS = (
    ("correct", "says what an accepted answer says"),
    ("supported", "claims that a passage supports"),
    ("citation_recall", "citation recall"),
    ("citation_precision", "citation precision"),
)


def judged_table(found: JudgedRun) -> FigureTable:
    """The judge's figures, and how far it agrees with the headline and with itself, in %."""
    table = FigureTable(
        f"{one_or_many(found['n'], 'answer')} {found['which']} tuning, judged by {in_line(found['model'])}, "
        "in % (95 % interval)",
        cost_of(found),
        ("of the answers", "", "Cohen's kappa"),
    )
    for key, words in ROWS:
        if (figure := found[key]) is not None:  # type: ignore[literal-required]
            table.add_row(words, rate_cell(figure), "")
    table.add_section()
    for agreement, words in (
        (found["with_metric"], f"agrees with {found['metric']}"),
        (found["again"], "agrees with itself, passages turned round"),
    ):
        if agreement is not None:
            table.add_row(
                f"{words}, n {agreement['n']:,}", rate_cell(agreement["agree"]), _kappa(agreement)
            )
    return table


def cost_of(found: JudgedRun) -> str:
    """What failed, what was left out, and what it took."""
    refused = one_or_many(found["refused"], "refusal isn't", "refusals aren't")
    words = (
        f"prompt {found['prompt']}; {one_or_many(found['failed'], 'verdict')} failed, {refused} judged; "
        f"{one_or_many(found['requests'] - found['kept'], 'request')}, {one_or_many(found['kept'], 'kept one')}"
        f"{_tokens(found)}"
    )
    if found["again"] is None:
        words += "; none was judged twice: the judge's own doubt is not in the intervals"
    return words


def _kappa(agreement: Agreement) -> str:
    return "–" if agreement["kappa"] is None else f"{agreement['kappa']:.2f}"


def _tokens(found: JudgedRun) -> str:
    if found["prompt_tokens"] is None or found["completion_tokens"] is None:
        return ""
    return f" ({found['prompt_tokens']:,} + {found['completion_tokens']:,} tokens)"
