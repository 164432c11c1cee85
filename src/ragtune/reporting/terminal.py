"""What the terminal shows: tables of figures, and examples as the model gets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any, cast

from rich.text import Text

from ragtune.base.screen.console import STYLES, console, heading, note, show, warn
from ragtune.base.screen.visible import in_line
from ragtune.base.text import one_or_many, shortened
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.opening import Opening
from ragtune.data.tokenizer import pieces
from ragtune.recipe.yaml import dump_yaml
from ragtune.reporting.tables import FigureTable
from ragtune.reporting.wording import (
    CITATIONS,
    CUT,
    GRADED,
    QUOTES,
    REFUSALS,
    UNSURE,
    asked_again,
    not_asked,
    probability,
)
from ragtune.scoring.citations import CitationFigures
from ragtune.scoring.compare import Comparison, Runs
from ragtune.scoring.controls import ControlFigures
from ragtune.scoring.paired import General, PairedLogs, PairedTask
from ragtune.scoring.quotes import QuoteFigures
from ragtune.scoring.reasked import Reasked, is_other
from ragtune.scoring.score import Metrics, WholeSet
from ragtune.scoring.statistics import Figure, Figures

_REFUSED = {
    "unanswerable": "refused, no answer there",
    "answerable": "refused, an answer there",
    "crag": "CRAG's score, -100 to 100",
}
_CITED = {"malformed": "citations of no passage", "n": "answered, the citations' n"}
_QUOTED = {"unparsed": "answers without a quote", "n": "answered, the quotes' n"}
_WHICH = ("before", "after", "difference")
_SIGNS = ("", "", "+")
_SAVED = {
    "alike": "",
    "mended": "; the template that is saved asks so, too",
    "unlike": "; the template that is saved asks otherwise",
}


def comparison_table(comparison: Comparison) -> FigureTable:
    """Before, after and difference, each with its 95 % interval, in %."""
    metric, intervals, whole = comparison["metric"], comparison["intervals"], comparison["all"]
    up, down = _changes(metric)
    table = FigureTable(
        f"{one_or_many(comparison['n'], 'question')}, in % (95 % interval)",
        f"by {metric}, accepted answers: {comparison['answers']}; "
        f"{comparison['fixed']} {up}, {comparison['broken']} {down} "
        f"(McNemar's {probability(comparison['mcnemar_p'])}); "
        f"{one_or_many(comparison['changed'], 'answer')} changed{_unasked(whole, sides='before and after')}",
        ("metric", *_WHICH),
    )
    for name, difference in comparison["difference"].items():
        sides = [intervals["before"][name], intervals["after"][name], difference]
        table.add_row(name, *_cells(sides), style="bold" if name == metric else "")
    table.add_section()
    over_all = cast("dict[str, Figures]", whole["intervals"])
    sides = [over_all[which][metric] for which in _WHICH]
    table.add_row(f"{metric}, all {whole['n']:,}", *_cells(sides))
    before, after = (comparison["cut"][which] for which in ("before", "after"))
    if before is not None and after is not None:
        table.add_row(CUT, f"{before:,}", f"{after:,}", f"{after - before:+,}")
    unsure, refused = (comparison["unsure"][which] for which in ("before", "after"))
    if unsure or refused:
        table.add_row(UNSURE, f"{unsure:,}", f"{refused:,}", f"{refused - unsure:+,}")
    if found := comparison["refusals"]:
        _add_refusals(table, [found["before"], found["after"], found["difference"]])
    if cited := comparison["citations"]:
        _add_written(table, [cited["before"], cited["after"]], CITATIONS, _CITED)
    if quoted := comparison["quotes"]:
        _add_written(table, [quoted["before"], quoted["after"]], QUOTES, _QUOTED)
    return table


def metrics_table(metrics: Metrics) -> FigureTable:
    """Each metric over the answerable questions and over all, in %."""
    whole = metrics["all"]
    table = FigureTable(
        "in % (95 % interval)",
        f"accepted answers: {metrics['answers']}{_unasked(whole)}",
        ("metric", f"{metrics['n']:,} answerable", f"all {whole['n']:,}"),
    )
    over_all = cast("Figures", whole["intervals"])
    for metric, figure in metrics["intervals"].items():
        table.add_row(metric, *_cells([figure, over_all[metric]]))
    if metrics.get("cut") is not None:
        table.add_row(CUT, f"{metrics['cut']:,}", "")
    if "unsure" in metrics:
        table.add_row(UNSURE, "", f"{metrics['unsure']:,}")
    _add_refusals(table, [{}, metrics.get("refusals", {})])
    if cited := metrics.get("citations"):
        _add_written(table, [cited], CITATIONS, _CITED)
    if quoted := metrics.get("quotes"):
        _add_written(table, [quoted], QUOTES, _QUOTED)
    return table


def runs_table(result: Runs) -> FigureTable:
    """Runs against the first of them, by the headline metric, in %."""
    metric = result["metric"]
    table = FigureTable(
        f"{metric}, {one_or_many(result['n'], 'question')} in common, in % (95 % interval)",
        f"accepted answers: {result['answers']}",
        ("run", metric, "less the first", *_changes(metric), "p"),
    )
    for run, found in zip(result["runs"], [None, *result["comparisons"]], strict=True):
        cells = found and (
            rate_cell(found["difference"][metric], "+"),
            f"{found['fixed']:,}",
            f"{found['broken']:,}",
            f"{found['mcnemar_p']:.2g}",
        )
        table.add_row(
            in_line(run["name"]), rate_cell(run["intervals"][metric]), *(cells or [""] * 4)
        )
    return table


def differences_table(result: Runs) -> FigureTable | None:
    """The keys of the runs' recipes that differ; None where none does."""
    if not result["differs"]:
        return None
    names = (in_line(run["name"]) for run in result["runs"])
    table = FigureTable("what differs in their recipes", "", ("key", *names))
    for key, values in result["differs"].items():
        table.add_row(
            key, *(in_line(shortened(dump_yaml(value, in_line=True))) for value in values)
        )
    return table


def logs_table(logs: PairedLogs, task: PairedTask) -> FigureTable:
    """A task of a log of another tool against the first log; shares in %."""
    table = FigureTable(
        f"{in_line(task['task'])}: {in_line(logs['name'])} less {in_line(logs['against'])}",
        "in % (95 % interval), values that are no shares as they are; higher and lower: questions, where p "
        "(McNemar's) stands the fixed and the broken ones",
        ("metric", "n", "first", "second", "difference", "higher", "lower", "p"),
    )
    for one in task["metrics"]:
        cell = rate_cell if one["rate"] else _plain_cell
        p = one["mcnemar_p"]
        table.add_row(
            in_line(one["metric"]),
            f"{one['n']:,}",
            cell(one["first"]),
            cell(one["second"]),
            cell(one["difference"], "+"),
            f"{one['higher']:,}",
            f"{one['lower']:,}",
            "–" if p is None else f"{p:.2g}",
        )
    return table


def general_table(general: General) -> FigureTable:
    """General tasks before and after tuning; shares in %."""
    table = FigureTable(
        "General tasks, in % (95 % interval)",
        f"lm-evaluation-harness {', '.join(map(in_line, general['lm_eval']))}; values that are no shares as "
        "they are; below 0 is what was forgotten",
        ("task", "n", *_WHICH),
    )
    for task in general["tasks"]:
        for one in task["metrics"]:
            cell = rate_cell if one["rate"] else _plain_cell
            sides = (cell(one["first"]), cell(one["second"]), cell(one["difference"], "+"))
            table.add_row(in_line(f"{task['task']}, {one['metric']}"), f"{one['n']:,}", *sides)
    return table


def _plain_cell(figure: Figure, sign: str = "") -> str:
    value, low, high = (
        f"{part:{sign}.3g}" for part in (figure["value"], figure["low"], figure["high"])
    )
    return f"{value} ({low}…{high})"


def controls_table(controls: ControlFigures) -> FigureTable:
    """The headline metric of every control, before and after, in %."""
    metric = controls["metric"]
    table = FigureTable(
        f"{metric} with other passages, in % (95 % interval)",
        f"accepted answers: {controls['answers']}",
        ("passages", "n", *_WHICH),
    )
    for one in controls["conditions"]:
        sides = (one["before"], one["after"], one["difference"])
        cells = _cells([side[metric] if side else None for side in sides])
        table.add_row(one["title"], f"{one['n']:,}", *cells)
    table.add_section()
    for effect in controls["effects"]:
        cells = _cells([effect["before"], effect["after"]], "++")
        table.add_row(effect["title"], f"{effect['n']:,}", *cells, "")
    return table


def _changes(metric: str) -> tuple[str, str]:
    """What answers became, by a metric."""
    return ("better", "worse") if metric in GRADED else ("fixed", "broken")


def _unasked(whole: WholeSet, *, sides: str = "") -> str:
    """What a table's last words say of the questions that were not asked, if there are any."""
    left = whole["n"] - whole["asked"]
    return f"; of all {whole['n']:,} {not_asked(left, sides=sides)}" if left else ""


def _add_refusals(table: FigureTable, sides: Sequence[Mapping[str, Any]]) -> None:
    """Refusals where there was no answer, and where there was one, and CRAG's score, side by side."""
    kinds = [kind for kind in REFUSALS if any(kind in side for side in sides)]
    if kinds:
        table.add_section()
    for kind in kinds:
        figures = [side.get(kind) for side in sides]
        n = next(figure["n"] for figure in figures if figure and "n" in figure)
        signs = "+++" if kind == "crag" else _SIGNS
        table.add_row(f"{_REFUSED[kind]}, n {n:,}", *_cells(figures, signs))


def _add_written(
    table: FigureTable,
    sides: Sequence[CitationFigures | QuoteFigures | None],
    kinds: Mapping[str, tuple[str, str]],
    counts: Mapping[str, str],
) -> None:
    """What the answered questions' answers cite or quote, side by side: figures, then counts."""
    table.add_section()
    rest = [""] * (len(table.columns) - 1 - len(sides))
    every = [cast("Mapping[str, Any] | None", side) for side in sides]
    for kind, (name, _) in kinds.items():
        table.add_row(name, *_cells([side[kind] if side else None for side in every]), *rest)
    for key, name in counts.items():
        table.add_row(name, *(f"{side[key]:,}" if side else "–" for side in every), *rest)


def _cells(figures: Sequence[Figure | None], signs: Sequence[str] = _SIGNS) -> list[str]:
    return [rate_cell(figure, sign) for figure, sign in zip(figures, signs, strict=False)]


def rate_cell(figure: Figure | None, sign: str = "") -> str:
    """43.8 (40.1…47.5), or a dash where there is nothing."""
    if not figure:
        return "–"
    parts = (figure["value"], figure["low"], figure["high"])
    value, low, high = (f"{100 * part:{sign}.1f}" for part in parts)
    return f"{value} ({low}…{high})"


def say_asked_again(who: str, found: Reasked) -> None:
    """Print what changed where questions were asked again; a warning unless that is what was measured."""
    (warn if is_other(found) or found.get("confined") else note)(asked_again(who, found))


def show_examples(encoder: Encoder, examples: Sequence[Example]) -> None:
    """Print examples: the record, the prompt, and every token.

    The trained ones are green; yellow is what a finished turn has before the answer and the template's
    generation prompt doesn't.
    """
    for example in examples:
        sample = encoder.sample(example)
        if sample is None:
            continue
        heading(f"Example {example.qid}")
        note(f"question: {example.question}")
        note(f"answers: {' | '.join(example.answers)}")
        for index, passage in enumerate(example.passages):
            mark = "+" if index in example.positive_passage_indices else " "
            note(f"  {mark} {index} {passage.title}: {shortened(passage.text, 71)}")
            if passage.place:
                note(f"      {passage.place.in_words()}")
        # Indented: a line of the data is not taken for one of ours.
        show(f"\n{indent(encoder.tokenizer.decode(sample.prompt_ids), '  ')}\n")
        if encoder.opening.generation != encoder.opening.trained:
            note(f"The chat template: {opening_words(encoder.opening)}.")
        note(
            f"{len(sample.prompt_ids)} prompt tokens, {len(sample.completion_ids)} trained tokens:"
        )
        console.print(_coloured(encoder, sample.prompt_ids, sample.completion_ids), soft_wrap=True)


def opening_words(opening: Opening) -> str:
    """What stands between the turns before and the answer, and what was chosen."""
    asked, trained = (
        f"“{text}”".replace("\n", "⏎") if text else "nothing"
        for text in (opening.generation, opening.trained)
    )
    return (
        f"its generation prompt ends with {asked}, a finished turn has {trained} there, which is "
        f"trained and asked{_SAVED[opening.saved]}"
    )


def opening_tokens(encoder: Encoder, prompt: list[int]) -> tuple[list[int], list[int]]:
    """A prompt's tokens, without and of what the template's generation prompt doesn't have."""
    added = len(encoder.opening.added)
    start = len(prompt)
    while start and len(encoder.tokenizer.decode(prompt[start:])) < added:
        start -= 1
    return prompt[:start], prompt[start:]


def _coloured(encoder: Encoder, prompt: list[int], completion: list[int]) -> Text:
    read, opening = opening_tokens(encoder, prompt)
    text = Text()
    for ids, kind in ((read, "prompt"), (opening, "opening"), (completion, "trained")):
        for piece in pieces(encoder.tokenizer, ids):
            text.append(in_line(piece), style=STYLES[kind])
            text.append("|", style="dim blue")
    return text
