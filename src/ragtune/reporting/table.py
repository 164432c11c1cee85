"""The figures for the terminal, and the rows of answers for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ragtune.data.example import Example
from ragtune.data.select import shown_passages
from ragtune.evaluation.metrics import accepted, refused, score
from ragtune.evaluation.score import load_predictions
from ragtune.recipe import Recipe
from ragtune.reporting.html import AnswerRow


def comparison_table(comparison: dict[str, Any]) -> Table:
    """Before, after and difference, each with its 95 % interval, in %."""
    table = Table(
        title=f"{comparison['n']} questions, in % (95 % interval)",
        caption=(
            f"by {comparison['metric']}: {comparison['fixed']} fixed, {comparison['broken']} broken; "
            f"{comparison['changed']} answers changed"
        ),
    )
    for name in ("metric", "before", "after", "difference"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric, difference in comparison["difference"].items():
        mark = "bold" if metric == comparison["metric"] else ""
        cells = [_with_interval(comparison["intervals"][w][metric]) for w in ("before", "after")]
        table.add_row(metric, *cells, _with_interval(difference, sign="+"), style=mark)
    return table


def runs_table(result: dict[str, Any]) -> Table:
    """Runs against the first of them, by the headline metric, in %."""
    metric = result["metric"]
    table = Table(title=f"{metric}, {result['n']} questions in common, in % (95 % interval)")
    for name in ("run", metric, "less the first", "fixed", "broken", "p"):
        table.add_column(name, justify="left" if name == "run" else "right")
    first, *others = result["runs"]
    table.add_row(first["name"], _with_interval(first["intervals"][metric]), "", "", "", "")
    for one, found in zip(others, result["comparisons"], strict=True):
        table.add_row(
            one["name"],
            _with_interval(one["intervals"][metric]),
            _with_interval(found["difference"][metric], sign="+"),
            str(found["fixed"]),
            str(found["broken"]),
            f"{found['mcnemar_p']:.2g}",
        )
    return table


def controls_table(controls: dict[str, Any]) -> Table:
    """The headline metric of every control, before and after, in %."""
    metric = controls["metric"]
    table = Table(title=f"{metric} with other passages, in % (95 % interval)")
    for name in ("passages", "n", "before", "after", "difference"):
        table.add_column(name, justify="left" if name == "passages" else "right")
    rows = [
        (one["title"], one["n"], *(one[w] and one[w][metric] for w in _WHICH))
        for one in controls["conditions"]
    ]
    for title, n, before, after, difference in rows:
        table.add_row(title, str(n), *map(_or_dash, (before, after)), _or_dash(difference, "+"))
    table.add_section()
    for one in controls["effects"]:
        cells = (_or_dash(one[w], "+") for w in ("before", "after"))
        table.add_row(one["title"], str(one["n"]), *cells, "")
    return table


_WHICH = ("before", "after", "difference")


def _or_dash(figure: dict[str, float] | None, sign: str = "") -> str:
    return _with_interval(figure, sign) if figure else "–"


def _with_interval(figure: dict[str, float], sign: str = "") -> str:
    value, low, high = (f"{100 * figure[k]:{sign}.1f}" for k in ("value", "low", "high"))
    return f"{value} ({low} … {high})"


def answer_rows(
    recipe: Recipe, examples: Sequence[Example], before: Path, after: Path
) -> list[AnswerRow]:
    """Each asked question with its passages and its answers, as far as there are any."""
    old, new = (
        load_predictions(f) if (f / "metrics.json").exists() else {} for f in (before, after)
    )
    rows = []
    for example in examples:
        first, second = old.get(example.qid), new.get(example.qid)
        passages = shown_passages(
            example,
            recipe.data.max_passages,
            shuffle=recipe.data.shuffle_passages,
            seed=recipe.seed,
        )
        rows.append(
            AnswerRow(
                example.qid,
                example.question,
                example.answers,
                passages,
                before=first,
                after=second,
                before_right=_right(recipe, first, example),
                after_right=_right(recipe, second, example),
            )
        )
    return rows


def _right(recipe: Recipe, text: str | None, example: Example) -> bool:
    if text is None:
        return False
    if not example.answers:
        return recipe.data.refusal is not None and refused(text, recipe.data.refusal)
    metric = recipe.evaluate.metric
    return score([text], [accepted(example, recipe)], (metric,))[metric][0] == 1
