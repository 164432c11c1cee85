"""A run from end to end, and what its commands make of the road."""

from __future__ import annotations

from ragtune.answering.llama_process import INSTALL, installed
from ragtune.base.commands import command_line
from ragtune.base.errors import UsageError
from ragtune.base.files import read_if_whole
from ragtune.base.screen.console import console, heading, note, warn
from ragtune.base.sparing import import_ahead
from ragtune.base.stopping import stop_if_asked
from ragtune.base.web.network import hub_is_offline
from ragtune.model.to_gguf.modelfile import MODELFILE
from ragtune.model.to_gguf.write import FILES
from ragtune.reporting.answers import answer_rows
from ragtune.reporting.markdown import summary as markdown
from ragtune.reporting.shown import AnsweredQuestions
from ragtune.reporting.terminal import comparison_table, general_table, say_asked_again
from ragtune.scoring.compare import Comparison
from ragtune.scoring.controls import ControlFigures
from ragtune.scoring.reasked import Reasked
from ragtune.scoring.score import Metrics
from ragtune.stages import general, views
from ragtune.stages.answer import require_checkpoint
from ragtune.stages.built import builds_of
from ragtune.stages.check.checks import look
from ragtune.stages.check.findings import show
from ragtune.stages.context import Context
from ragtune.stages.early import needs_bitsandbytes
from ragtune.stages.holds import require_unchanged, require_whole
from ragtune.stages.order import place_of, stage_named
from ragtune.stages.push import may_publish, publish
from ragtune.stages.road import make
from ragtune.stages.summary import reasked_of, summary_of


def run(context: Context) -> Comparison | None:
    """Everything, in order; what is finished is not repeated. Within `working`."""
    if finished := _finished(context):
        note(f"The run in {context.folder.path} is finished: no stage is repeated.")
    elif context.ranks:
        context.ranks.start()  # while the check looks
    if not finished and (titles := _titles_there(context)):
        note(f"Finished before, and kept: {', '.join(titles)}.")
    check(context)
    if not finished and needs_bitsandbytes(context.recipe):
        import_ahead()  # while the data are prepared
    for stage in _stages(context):
        make(context, stage)
    compared = report(context)
    if context.recipe.publish.format != "adapter":
        merge(context)
        views.report(context)  # with what merging changed
    repo = context.recipe.publish.repo
    if repo and hub_is_offline():
        note(
            f"Not published: offline. Later: {command_line('ragtune', 'push', context.folder.path)}"
        )
    elif repo:
        publish(context, may_publish(context))
    stop_if_asked()
    _where(context)
    return compared


def _stages(context: Context) -> tuple[str, ...]:
    """What a run makes before the report; its general tasks while their model is in memory."""
    if not context.recipe.evaluate.general:
        return ("data", "questions", "before", "adapter", "after")
    return ("data", "questions", "before", "general before", "adapter", "after", "general after")


def check(context: Context) -> None:
    """Print what can be found out before anything costs time.

    Raises:
        RagtuneError: the first of the findings with which the run would fail.
    """
    heading("Check")
    found = look(context)
    show(found.findings)
    if found.error:
        raise found.error


def evaluate(
    context: Context, *, base: bool = False, checkpoint: int | None = None, tuned: bool = False
) -> Metrics:
    """The figures of the answers of the newest model that there is, of the base, or of a checkpoint.

    Raises:
        UsageError: `tuned` was asked for, and there is no adapter.
    """
    folder = context.folder
    make(context, "questions")
    if checkpoint is not None:
        stage = stage_named("checkpoint", checkpoint)
        if not place_of(folder, stage).is_dir():
            require_checkpoint(context, checkpoint)  # before a model is loaded for it
    else:
        there = folder.adapter.is_dir() or folder.answers("after").is_dir()
        if not (there or base):
            if tuned:
                command = command_line("ragtune", "train", folder.path)
                raise UsageError(
                    f"{folder.path} has no adapter whose figures could be judged.",
                    f"Train it: {command}. To judge the base model, add --base.",
                )
            note(f"{folder.path} has no adapter: the base model is asked.")
        stage = stage_named("after" if there and not base else "before")
    make(context, stage)
    return views.metrics(context, place_of(folder, stage))


def controls(context: Context) -> ControlFigures:
    """The figures of the same questions with other passages, before and, with an adapter, after tuning."""
    make(context, "controls before")
    if context.folder.adapter.is_dir():
        make(context, "controls after")
    views.report(context)
    found = views.controls(context)
    assert found is not None  # they were asked just now
    return found


def report(context: Context, *, printing: bool = True) -> Comparison | None:
    """The report of what there is, and the comparison as a table, which need not be printed."""
    stop_if_asked()
    context.say("Report")
    compared = views.report(context)
    if compared and printing:
        console.print(comparison_table(compared))
    if printing and (asked := general.figures(context)):
        console.print(general_table(asked))
    if context.read_only is None:
        note(f"Report: {context.folder.report}")
    return compared


def markdown_summary(context: Context) -> str:
    """The comparison in Markdown, for a pull request; nothing is written."""
    context.folder.require_ours()
    require_whole(context)
    require_unchanged(context, making=False)
    compared = views.comparison(context)
    if compared is None:
        raise no_answers(context)
    built = builds_of(context).get("eval")
    controls, asked = views.controls(context), general.figures(context)
    return markdown(context.recipe.name, compared, controls, built, asked)


def answers(context: Context, n: int) -> AnsweredQuestions:
    """The first of the questions, with their answers side by side; nothing is written.

    Raises:
        UsageError: there are none.
    """
    folder, recipe = context.folder, context.recipe
    folder.require_ours()
    require_whole(context)
    require_unchanged(context, making=False)
    before, after = (views.texts_of(folder.answers(which)) for which in ("before", "after"))
    if not (before or after):
        raise no_answers(context)
    rows = answer_rows(recipe, context.asked[:n], before, after, prompts={})
    return AnsweredQuestions(rows, recipe.evaluate.metric)


def no_answers(context: Context) -> UsageError:
    """What is said where there is nothing to compare, and how that comes about."""
    folder = context.folder
    advice = "Run `ragtune run` first."
    if not folder.is_own:  # of another set a run would be too much
        sides = {"before": ["--base"], "after": []}
        command = ("ragtune", "evaluate", folder.path, f"data.eval={context.recipe.data.eval}")
        missing = [more for which, more in sides.items() if not folder.answers(which).is_dir()]
        advice = f"Ask them: {' && '.join(command_line(*command, *more) for more in missing)}"
    return UsageError(f"{folder.path} has no answers before and after tuning to compare.", advice)


def merge(context: Context) -> Reasked | None:
    """Merge the adapter into the base, and count the answers that this changed; then as GGUF, if it is to be.

    Where a server answered, neither is asked: its answers after tuning are perhaps of this very model.
    """
    make(context, "merged")
    result = None if context.remote else _ask_merged(context)
    if context.recipe.publish.format == "gguf":
        make(context, "gguf")
        if not context.remote:
            _ask_gguf(context)
    return result


def merge_alone(context: Context) -> Reasked | None:
    """Merge as `ragtune merge` does, which says where the result lies, also if it was there already."""
    result = merge(context)
    folder = context.folder
    note(f"The merged model: {folder.merged}")
    if context.recipe.publish.format == "gguf":
        note(f"For llama.cpp: {', '.join(str(folder.gguf / name) for name in FILES.values())}")
        command = command_line("ollama", "create", "NAME", "-f", folder.gguf / MODELFILE)
        # In one line, however narrow the terminal: it is there to be copied.
        console.print(f"For Ollama: {command}", soft_wrap=True)
    return result


def _ask_merged(context: Context) -> Reasked | None:
    new = not context.folder.answers("merged").is_dir()
    make(context, "merged answers")
    found = reasked_of(context, "merged")
    if new and found:
        say_asked_again("The merged model", found)
    return found


def _ask_gguf(context: Context) -> None:
    """Ask the GGUF file the questions, and say what its answers are against the adapter's."""
    new = not context.folder.answers("gguf").is_dir()
    if new and not installed():
        warn(f"The GGUF file was not asked the questions: xllamacpp is not installed. {INSTALL}")
        return
    make(context, "gguf answers")
    found = reasked_of(context, "gguf")
    if new and found:
        say_asked_again("The GGUF file", found)


def _finished(context: Context) -> bool:
    """Whether nothing is left to be made."""
    pushed = read_if_whole(context.folder.published).get("repo")
    there = all(_is_there(context, name) for name in _every_stage(context))
    return there and pushed == context.recipe.publish.repo


def _titles_there(context: Context) -> list[str]:
    """The headings under which nothing is left to be made; two stages have the same."""
    left: dict[str, bool] = {}
    for name in _every_stage(context):
        title = stage_named(name).title
        left[title] = left.get(title, False) or not _is_there(context, name)
    return [title for title, something in left.items() if not something]


def _every_stage(context: Context) -> tuple[str, ...]:
    """What a run makes; of what it merged also the answers, if it can be asked here."""
    form, asks = context.recipe.publish.format, not context.remote
    merged = ("merged", "merged answers")[: 1 + asks] if form != "adapter" else ()
    gguf = ("gguf", "gguf answers")[: 1 + (asks and installed())] if form == "gguf" else ()
    return (*_stages(context), *merged, *gguf)


def _is_there(context: Context, name: str) -> bool:
    return place_of(context.folder, stage_named(name)).is_dir()


def _where(context: Context) -> None:
    heading("Where everything lies")
    folder = context.folder
    for path, what in (
        (folder.report, "the report, for a browser"),
        (folder.comparison, "the figures"),
        (folder.answers("after") / "predictions.jsonl", "every answer after tuning"),
        (folder.adapter, "what was trained, and the tokenizer"),
        (folder.merged, "the merged model"),
        (folder.gguf, "the merged model for llama.cpp, and a Modelfile for Ollama"),
        (folder.logs, "what the trackers wrote"),
        (folder.recipe, "the recipe with every value: runs again"),
    ):
        if path.exists():
            note(f"  {path}  {what}")
    took = sum(summary_of(context)["times"].values())  # not what the signs of life count
    note(f"The stages alone took {took:.0f} s, those of earlier commands included.")
    if not context.recipe.publish.repo:
        command = command_line("ragtune", "push", folder.path)
        # In one line, however narrow the terminal: it is there to be copied.
        console.print(f"To publish: {command} publish.repo=YOUR-NAME/MODEL", soft_wrap=True)
