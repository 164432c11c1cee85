"""The report: one HTML file that shows what was asked, what changed and how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ragtune.data.example import Passage
from ragtune.data.select import REASONS
from ragtune.files import writing
from ragtune.recipe import Recipe
from ragtune.reporting.plots import loss_curve

METRICS = {
    "strict_em": (
        "Exact match, strict",
        "The answer is the first accepted answer, character for character.",
    ),
    "squad_em": (
        "Exact match, SQuAD’s rule",
        "The answer equals an accepted answer but for case, punctuation and articles (SQuAD v1.1).",
    ),
    "aio_em": (
        "Exact match, AI王’s rule",
        "The answer after NFKC equals an accepted one but for case, spaces, ・=- and 「」『』.",
    ),
    "contains": (
        "Contains an answer",
        "Any accepted answer stands somewhere in the answer, both by AI王’s rule.",
    ),
}
STAGES = {
    "prepare": "reading and selecting the data",
    "before": "answers before tuning",
    "train": "training",
    "after": "answers after tuning",
    "merge": "merging, and answers of the merged model",
    "report": "report",
    "push": "publishing",
}
_WIDE, _NARROW = 9.0, 3.7  # inches: a page, a phone
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """A question with the passages that were shown, and its answers, as far as there are any."""

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[Passage, ...]
    before: str | None
    after: str | None
    before_right: bool
    after_right: bool

    @property
    def outcome(self) -> str | None:
        """What tuning did to the answer; None without an answer before and one after."""
        if self.before is None or self.after is None:
            return None
        if self.before_right:
            return "right" if self.after_right else "broken"
        return "fixed" if self.after_right else "wrong"

    @property
    def language(self) -> str | None:
        """`ja` where there is kana: Chinese characters are then drawn and broken as in Japan."""
        text = self.question + "".join(p.text for p in self.passages)
        return "ja" if re.search(r"[\u3041-\u30ff]", text) else None


def write_report(
    path: Path,
    *,
    recipe: Recipe,
    state: dict[str, Any],
    data_report: dict[str, Any],
    comparison: dict[str, Any] | None,
    log: list[dict[str, Any]],
    answers: list[AnswerRow],
) -> None:
    """Write the report as one file that fetches nothing and runs no script.

    The same values give the same bytes.

    Args:
        path: the file, which appears when it is whole.
        recipe: of the run.
        state: run.json; any key may be missing.
        data_report: data/report.json.
        comparison: comparison.json, or None while there are not both evaluations.
        log: the rows of train_log.jsonl.
        answers: the questions that were asked.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "rate": rate, "points": points, "count": count, "duration": duration, "pieces": pieces,
    }  # fmt: skip
    curves = (
        (name, loss_curve(log, window=recipe.train.log_every, width=width))
        for name, width in (("wide", _WIDE), ("narrow", _NARROW))
    )
    template = resources.files("ragtune.reporting").joinpath("report.html.j2").read_text("utf-8")
    page = environment.from_string(template).render(
        recipe=recipe,
        recipe_yaml=yaml.safe_dump(
            recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
        ),
        plan=state.get("plan") or state.get("hardware") or {},
        train=state.get("train") or {},
        merge=state.get("merge") or {},
        times=state.get("times") or {},
        versions=state.get("versions") or {},
        data=data_report,
        comparison=comparison,
        outcomes=outcomes(comparison) if comparison else {},
        # Drawn by Matplotlib from numbers alone: the only markup that is taken as it is.
        curves={name: Markup(svg) for name, svg in curves if svg},  # noqa: S704
        has_eval_loss=any(row.get("eval_loss") is not None for row in log),
        answers=answers,
        metrics=METRICS,
        reasons=REASONS,
        stages=STAGES,
    )
    with writing(path) as file:
        file.write(page)


def outcomes(comparison: dict[str, Any]) -> dict[str, int]:
    """The questions by what became of their answers, by the headline metric; the sum is n."""
    n, fixed, broken = comparison["n"], comparison["fixed"], comparison["broken"]
    right = round(comparison["before"][comparison["metric"]] * n) - broken
    return {"right": right, "fixed": fixed, "broken": broken, "wrong": n - right - fixed - broken}


def rate(value: float) -> str:
    """0.4375 as 43.8 (percent)."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of rates in percentage points, with its sign: -0.02 as −2.0."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def count(value: float) -> str:
    """12345 as 12,345; a fraction keeps at most one digit."""
    return f"{value:,.1f}".removesuffix(".0")


def duration(seconds: float) -> str:
    """83 as 1 min 23 s."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def pieces(text: str, answers: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """A passage's text in pieces, each with whether it is an accepted answer."""
    longest_first = sorted({a for a in answers if a.strip()}, key=lambda a: (-len(a), a))
    if not longest_first:
        yield text, False
        return
    found = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    for index, piece in enumerate(found):
        if piece:
            yield piece, index % 2 == 1
