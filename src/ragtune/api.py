"""Every command as a function of a recipe (a path, a mapping, a Recipe) or of a run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import JsonValue

from ragtune.base.errors import RagtuneError
from ragtune.base.screen.notebook import Shown, one_output, page
from ragtune.base.screen.progress import busy
from ragtune.building.figures import Built
from ragtune.data.prepare import DataReport
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.load import load_corpus
from ragtune.reporting.frame import framed
from ragtune.reporting.shown import AnsweredQuestions, as_table
from ragtune.reporting.terminal import (
    comparison_table,
    controls_table,
    metrics_table,
    show_examples,
)
from ragtune.scoring.compare import Comparison, Runs
from ragtune.scoring.controls import ControlFigures
from ragtune.scoring.paired import Logs
from ragtune.scoring.reasked import Reasked
from ragtune.scoring.score import Metrics
from ragtune.stages import logs, runs, views
from ragtune.stages import predictions as elsewhere
from ragtune.stages import push as pushing
from ragtune.stages import run as stages
from ragtune.stages.check.checks import look
from ragtune.stages.check.findings import Findings, no_recipe
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.stages.target import Target, find_recipe, names_set
from ragtune.stages.terminal import logs_tables, runs_tables, show_built
from ragtune.store.folder import RunFolder
from ragtune.store.sets import find_set
from ragtune.training.arguments import require_arguments
from ragtune.training.trackers import require_trackers

P = ParamSpec("P")
T = TypeVar("T")


def _seen(act: Callable[P, T]) -> Callable[P, T]:
    """Let a function give signs of life, and in a notebook have outputs that are updated."""

    @wraps(act)
    def seen(*arguments: P.args, **named: P.kwargs) -> T:
        with one_output(), busy(f"ragtune {act.__name__}"):
            return act(*arguments, **named)

    return seen


@contextmanager
def _work(
    target: Target,
    overrides: tuple[str, ...],
    run_dir: str | Path | None,
    *,
    redo: bool,
    keeping: bool = True,
) -> Iterator[Context]:
    context = Context(target, overrides, run_dir, redo=redo)
    with working(context, keeping=keeping):
        yield context


@_seen
def build(
    corpus: str | Path | dict[str, object] | Corpus,
    *overrides: str,
    folder: str | Path | None = None,
    retriever: object | None = None,
    compare: Sequence[str] = (),
    strict: bool = False,
) -> Built:
    """Make examples of documents and questions, and an index that stays.

    Args:
        corpus: a corpus (path, mapping or Corpus).
        overrides: `section.key=value` changes to it.
        folder: where it lies; corpora/NAME by default.
        retriever: one of your own, instead of the corpus's: a callable of a question, or a retriever of
            LangChain or LlamaIndex.
        compare: retrievers to be compared on the questions, such as lexical and dense.
        strict: fail where a single file can't be read.

    Returns:
        What was found, as in build.json (a notebook shows it); train.jsonl and eval.jsonl lie beside it.

    Raises:
        UsageError: the corpus, a file or a question must be changed.
        RagtuneError: something failed; its message says what to do.
    """
    from ragtune.building import build as building  # noqa: PLC0415 - a tenth of a second, which no run needs

    whole = load_corpus(corpus, list(overrides))
    built = building.build(
        whole,
        Path(folder or Path("corpora") / whole.name),
        retriever=retriever,
        compare=compare,
        strict=strict,
    )
    if page() is not None:
        show_built(built)
    return built


@_seen
def run(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> Comparison | None:
    """Do everything, from data to report and, if the recipe names a repository, to the Hub.

    Args:
        target: a recipe (path, mapping or Recipe) or a run directory.
        overrides: `section.key=value` changes to it.
        run_dir: where the run lies; runs/NAME by default.
        redo: set aside what a changed recipe or file makes invalid, and make it again.

    Returns:
        The comparison, as in comparison.json; a notebook shows it as a table.

    Raises:
        UsageError: the recipe or the data must be changed.
        RagtuneError: something failed; its message says what to do.
    """
    with _work(target, overrides, run_dir, redo=redo) as context:
        compared = stages.run(context)
    return compared and as_table(compared, comparison_table(compared))


@_seen
def check(target: Target, *overrides: str, run_dir: str | Path | None = None) -> Findings:
    """Find out, before anything costs time, whether a run would work.

    Returns:
        The findings, {name, level, message, advice, excerpt}; with a `level` of `fail` the run would
        fail. `excerpt` has (kind, text) pairs: `prompt`, `opening` and `trained`. A notebook shows
        them as a table.
    """
    try:
        return Findings(look(Context(target, overrides, run_dir)).findings)
    except RagtuneError as error:
        return no_recipe(error)


@_seen
def prepare(
    target: Target,
    *overrides: str,
    run_dir: str | Path | None = None,
    redo: bool = False,
    show: int = 0,
) -> DataReport:
    """Read and select the data, and print `show` training examples; returns what was read and dropped.

    Raises as `run` does.
    """
    with _work(target, overrides, run_dir, redo=redo) as context:
        make(context, "data")
        make(context, "questions")
        if show:
            show_examples(context.encoder, context.training_examples[:show])
        return views.data_report(context)


@_seen
def train(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> dict[str, JsonValue]:
    """Train the adapter; returns what it took. Raises as `run` does."""
    with _work(target, overrides, run_dir, redo=redo) as context:
        require_trackers(
            context.recipe.train.report_to
        )  # before data are read and a model is loaded
        require_arguments(context.recipe)
        make(context, "data")
        return make(context, "adapter").facts["train"]


@_seen
def evaluate(
    target: Target,
    *overrides: str,
    run_dir: str | Path | None = None,
    base: bool = False,
    checkpoint: int | None = None,
    predictions: str | Path | None = None,
    tuned: bool = False,
    redo: bool = False,
) -> Metrics:
    """Answer and score the questions: with the adapter if there is one, else (or with `base`) without.

    Args:
        target: a recipe or a run directory.
        overrides: changes to the recipe.
        run_dir: where the run lies.
        base: without the adapter.
        checkpoint: with the adapter of this step instead.
        predictions: a file of {qid, prediction} lines: it is scored, and nothing is asked.
        tuned: refuse where there is no adapter, instead of asking the base.
        redo: as for `run`.

    Returns:
        As metrics.json; a notebook shows it as a table. Raises as `run` does.
    """
    if predictions is not None:
        recipe, folder = find_recipe(target, overrides, run_dir)
        found = elsewhere.score_file(recipe, str(predictions), folder)
    else:
        with _work(target, overrides, run_dir, redo=redo, keeping=False) as context:
            found = stages.evaluate(context, base=base, checkpoint=checkpoint, tuned=tuned)
    return as_table(found, metrics_table(found))


@_seen
def controls(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> ControlFigures:
    """Ask the questions with other passages, before and after tuning; returns controls.json.

    Raises as `run` does.
    """
    with _work(target, overrides, run_dir, redo=redo, keeping=False) as context:
        found = stages.controls(context)
    return as_table(found, controls_table(found))


@_seen
def compare_runs(*paths: str | Path, data_eval: str | None = None) -> Runs:
    """Compare the answers of runs, or of folders of answers in them, with those of the first.

    `data_eval` names the evaluation set of run directories; by default each one's own.

    Raises:
        UsageError: a folder without answers, or different questions.
    """
    found = runs.compare_runs([Path(path) for path in paths], data_eval)
    return as_table(found, runs_tables(found))


@_seen
def compare_logs(*paths: str | Path) -> Logs:
    """Compare sample logs of lm-evaluation-harness or flexeval, or folders of them, with the first.

    Raises:
        RagtuneError: a damaged line, or logs that answer different questions.
    """
    found = logs.compare_logs([Path(path) for path in paths])
    return as_table(found, logs_tables(found))


@_seen
def compare(target: Target, *overrides: str, run_dir: str | Path | None = None) -> Comparison:
    """Compare before with after; returns comparison.json. Raises as `run` does."""
    context = Context(target, overrides, run_dir)
    # Damaged answers are noticed, and set aside, only by the report.
    there = all(context.folder.answers(which).is_dir() for which in ("before", "after"))
    # A notebook shows the table as the value.
    found = _report(context, printing=page() is None) if there else None
    if not found:
        raise stages.no_answers(context)
    return as_table(found, comparison_table(found))


@_seen
def answers(
    target: Target, *overrides: str, run_dir: str | Path | None = None, n: int = 20
) -> AnsweredQuestions:
    """The first `n` questions with the answers before and after tuning, side by side.

    Returns:
        {qid, question, answers, passages, before, after, before_right, after_right} for each; a notebook
        shows them as a table. Raises as `run` does.
    """
    return stages.answers(Context(target, overrides, run_dir), n)


@_seen
def report(target: Target, *overrides: str, run_dir: str | Path | None = None) -> Path:
    """Write the report of what there is; returns its path. Raises as `run` does."""
    context = Context(target, overrides, run_dir)
    _report(context)
    if context.read_only:
        raise RagtuneError(
            f"{context.folder.report} is not written. {context.read_only.message}",
            "`ragtune report RUN --format md` prints a summary. Or copy the run to where you may write.",
        )
    return context.folder.report


def show(target: Target, *overrides: str, run_dir: str | Path | None = None) -> Shown:
    """The report that was written last, for a notebook: as the value of a cell it is shown.

    Raises:
        UsageError: there is none.
    """
    recipe, folder = find_recipe(target, overrides, run_dir)
    return framed(RunFolder(folder, find_set(folder, recipe, named=names_set(overrides))).report)


def _report(context: Context, *, printing: bool = True) -> Comparison | None:
    with working(context, making=False, keeping=False):
        return stages.report(context, printing=printing)


@_seen
def summary(target: Target, *overrides: str, run_dir: str | Path | None = None) -> str:
    """The comparison in Markdown, for a pull request. Raises as `run` does."""
    return stages.markdown_summary(Context(target, overrides, run_dir))


@_seen
def merge(
    target: Target, *overrides: str, run_dir: str | Path | None = None, redo: bool = False
) -> Reasked | None:
    """Merge the adapter into the base; returns how many answers that changed, and what it did to the score."""
    with _work(target, overrides, run_dir, redo=redo) as context:
        return stages.merge_alone(context)


@_seen
def push(
    target: Target,
    *overrides: str,
    run_dir: str | Path | None = None,
    dry_run: bool = False,
) -> str:
    """Publish the result on the Hub; returns the repository's address. Raises as `run` does.

    With `dry_run` it is only shown what would go: nobody is asked, nothing is written.
    """
    context = Context(target, overrides, run_dir)
    return pushing.preview(context) if dry_run else pushing.push_alone(context)
