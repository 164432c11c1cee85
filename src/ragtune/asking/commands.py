"""The commands `ragtune ask`, `demo` and `serve`: their arguments; they load the rest when they are called."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ragtune.base.errors import UsageError
from ragtune.base.screen.output import say
from ragtune.base.screen.usage import (
    AskedCorpus,
    AskedSource,
    AskedTexts,
    CheckServed,
    CompareBase,
    Endpoint,
    ForgetFeedback,
    GivenPassages,
    Overrides,
    PageHost,
    PagePort,
    PrintCommand,
    ServedBy,
    ServedName,
    ServedRun,
    ServeHost,
    ServeMerged,
    ServePort,
    WholePassages,
)

_CHANGE = re.compile(r"[a-z_]+(\.[a-z_]+)+=")
"""What is meant as a change to the recipe: a key that is mistyped is no question."""


def ask(
    source: AskedSource,
    texts: AskedTexts = None,
    passages: GivenPassages = None,
    corpus: AskedCorpus = None,
    compare: CompareBase = False,
    whole: WholePassages = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an object for each question, one a line.")
    ] = False,
) -> None:
    """Ask the tuned model, with passages that are found or given.

    Without a question: what is typed, one after the other, or the lines of standard input.
    """
    from ragtune.asking.answer import require_questions  # noqa: PLC0415 - pydantic
    from ragtune.asking.source import require_corpus, require_there  # noqa: PLC0415 - pydantic
    from ragtune.base.screen.console import note, to_stderr  # noqa: PLC0415 - rich
    from ragtune.base.screen.progress import busy  # noqa: PLC0415 - rich
    from ragtune.recipe.keys import field_of  # noqa: PLC0415 - pydantic

    changes = [
        one
        for one in texts or []
        if _CHANGE.match(one) or ("=" in one and field_of(one.partition("=")[0]))
    ]
    questions = [one for one in texts or [] if one not in changes]
    if not all(question.strip() for question in questions):
        raise UsageError("The question is empty.", "Ask something.")
    if corpus and passages:
        raise UsageError("--corpus and --passages don't go together.", "Give one of them.")
    require_questions(questions)
    require_there(source)
    if corpus is not None:
        require_corpus(corpus)
    if passages:
        from ragtune.asking.given import require_given  # noqa: PLC0415 - numpy

        require_given(passages)
    with to_stderr(wanted=True):
        note("Loading PyTorch and transformers …")  # which takes seconds
        with busy("loading PyTorch and transformers"):
            from ragtune.asking.reader import Reader  # noqa: PLC0415 - torch
            from ragtune.asking.session import Session, given_lines, is_typed  # noqa: PLC0415 - torch
        reader = Reader.open(source, *changes, corpus=corpus, documents=passages or ())
        # What can be wrong with the command is said before the model is loaded.
        reader.require("base" if compare else "tuned")
        session = Session(reader, compare=compare, whole=whole, json=as_json)
        if not questions and not is_typed():
            session.ask_lines(given_lines())
            return
        reader.start()
        if len(questions) == 1:
            session.ask_one(questions[0])
        elif questions:
            session.ask(questions)
        else:
            session.converse()


def demo(
    source: AskedSource,
    overrides: Overrides = None,
    corpus: AskedCorpus = None,
    host: PageHost = "127.0.0.1",
    port: PagePort = 7860,
    forget_feedback: ForgetFeedback = False,
) -> None:
    """Ask in a browser: a page with passages and answers.

    Other machines reach it only with --host, and then it has a password: RAGTUNE_DEMO_PASSWORD, or
    it is asked for. Thumbs are kept in feedback.jsonl, which `ragtune build` reads as questions.
    """
    if forget_feedback:
        from ragtune.asking.feedback import forgotten  # noqa: PLC0415 - pydantic

        say(forgotten(source, overrides or []))
        return
    from ragtune.asking.source import require_corpus, require_there  # noqa: PLC0415 - pydantic

    require_there(source)
    if corpus is not None:
        require_corpus(corpus)
    from ragtune.asking import page_server  # noqa: PLC0415 - torch

    page_server.demo(source, *(overrides or []), corpus=corpus, host=host, port=port)


def serve(
    source: ServedRun,
    overrides: Overrides = None,
    engine: ServedBy = None,
    name: ServedName = None,
    merged: ServeMerged = False,
    host: ServeHost = "127.0.0.1",
    port: ServePort = 8000,
    check: CheckServed = 0,
    endpoint: Endpoint = None,
    show: PrintCommand = False,
) -> None:
    """Serve the tuned model to whoever speaks OpenAI's interface.

    By the engine that is installed, until Ctrl-C; its exit code is that of the command.
    """
    from ragtune.asking.source import require_there  # noqa: PLC0415 - pydantic

    require_there(source)
    from ragtune.asking import serve as serving  # noqa: PLC0415 - torch
    from ragtune.base.screen.console import to_stderr  # noqa: PLC0415 - rich
    from ragtune.scoring.reasked import is_other  # noqa: PLC0415 - numpy

    if show and endpoint is not None:
        raise UsageError("--print and --endpoint don't go together.", "Give one of them.")
    if endpoint is not None and (engine or merged):
        raise UsageError(
            "--engine and --merged say what is started, and --endpoint asks what runs already.",
            "Leave them out, or --endpoint.",
        )
    changes = overrides or []
    wish: dict[str, Any] = {
        "engine": engine and engine.value,
        "name": name,
        "merged": merged,
        "address": (host, port),
    }
    if endpoint is not None:
        count = check or 50
        found = serving.ask_served(source, *changes, endpoint=endpoint, count=count, name=name)
        raise typer.Exit(int(is_other(found)))
    if show:
        with to_stderr(wanted=True):
            command = serving.serve_command(source, *changes, **wish)
        say(command)
        return
    raise typer.Exit(serving.serve(source, *changes, check=check, **wish))
