"""From passages to questions with answers, written by a model that the user names.

A question is kept only if its answer stands in the passage, it is asked once, the model gives the same
answer when it is asked with the passage, and another one without: else it would test no reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note, warn
from ragtune.base.text import one_or_many, shortened
from ragtune.building.questions import Question
from ragtune.building.synthesis.answers import Answers
from ragtune.building.synthesis.assess import Asked, Assessment, Reason, assess
from ragtune.building.synthesis.choose import SHORTEST, SHORTEST_CJK, Chosen, choose
from ragtune.building.synthesis.prompts import VERSION
from ragtune.building.synthesis.reply import Reply, without_thought
from ragtune.building.synthesis.server import Server
from ragtune.building.synthesis.writer import SECTION, Writer
from ragtune.data.example import Passage
from ragtune.recipe.corpus import Generate

ANSWERS = "synthetic.answers.jsonl"
"""In the work folder: what the model answered, request by request."""
_TITLES = ("writing questions", "asking with the passage", "asking without")
_SHOWN = 200
"""Characters of a reply that can't be read."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the passages, and what it cost."""

    offered: int
    too_short: int
    tables: int
    chosen: int
    kept: int
    dropped: Mapping[Reason, int]
    requests: int
    """That the questions rest on, whenever they were asked."""
    asked: int
    """Of these, those that were asked in this run."""
    prompt_tokens: int
    completion_tokens: int
    untold: int
    """Requests of which the server doesn't say what they took: the tokens are those of the others."""


@dataclass(frozen=True, slots=True)
class Generated:
    """The questions that were kept, in the order in which their passages were drawn."""

    questions: list[Question]
    counts: Counts


def generate(
    passages: Sequence[Passage],
    settings: Generate,
    language: str,
    seed: int,
    work: Path,
    *,
    others: Sequence[str] = (),
) -> Generated:
    """Let a model write questions.

    Args:
        passages: each with its place and an id of its own, in the order of their documents.
        settings: who writes them, and for how many passages.
        language: of the passages: ja, en, de, …
        seed: chooses the passages.
        work: the folder in which the answers are kept, so that nothing is asked twice.
        others: questions that are there already; none of them is written once more.

    Raises:
        UsageError: there is no passage that could be asked for; the server doesn't know the model, refuses
            the key or leads elsewhere; there is no such model here.
        RagtuneError: the server can't be reached, or fails again and again. What is answered is kept.
    """
    chosen = choose(passages, settings.count, seed)
    _require_some(chosen)
    work.mkdir(parents=True, exist_ok=True)
    answers, writer = Answers(work / ANSWERS), _writer(settings, work)
    asked = Asked(chosen.passages, others, language, writer.name)
    found, before = assess(asked, answers.known), set(answers.known)
    if before and found.used:
        kept = one_or_many(len(found.used), "answer")
        note(
            f"Going on: {kept} of {settings.model} {'is' if len(found.used) == 1 else 'are'} kept."
        )
    if found.undecided:
        writer.announce(found.undecided)
    while found.wanted:
        writer.ask(found.wanted, answers, _TITLES[found.turn])
        found = assess(asked, answers.known)
    counts = _count(chosen, found, before)
    _tell(settings, counts, found)
    return Generated([_question(settings, *one) for one in found.kept], counts)


def _writer(settings: Generate, work: Path) -> Writer:
    if settings.endpoint is not None:
        return Server(settings, settings.endpoint)
    from ragtune.building.synthesis.local import Local  # noqa: PLC0415 - it loads torch

    return Local(settings, work)


def _require_some(chosen: Chosen) -> None:
    if chosen.passages:
        return
    raise UsageError(
        f"None of the {one_or_many(chosen.offered, 'passage')} can be asked for: "
        f"{one_or_many(chosen.too_short, 'is', 'are')} too short "
        f"(a passage needs {SHORTEST} letters, Japanese {SHORTEST_CJK}), "
        f"{one_or_many(chosen.tables, 'is a table', 'are tables')}.",
        "Set passages.size higher, or add documents with running text.",
    )


def _count(chosen: Chosen, found: Assessment, before: set[str]) -> Counts:
    told = [one for one in found.used if one.prompt_tokens is not None]
    return Counts(
        offered=chosen.offered,
        too_short=chosen.too_short,
        tables=chosen.tables,
        chosen=len(chosen.passages),
        kept=len(found.kept),
        dropped=found.dropped,
        requests=len(found.used),
        asked=sum(one.key not in before for one in found.used),
        prompt_tokens=sum(one.prompt_tokens or 0 for one in told),
        completion_tokens=sum(one.completion_tokens or 0 for one in told),
        untold=len(found.used) - len(told),
    )


def _tell(settings: Generate, counts: Counts, found: Assessment) -> None:
    """Say what was kept, what was dropped and why, and what it cost."""
    if counts.chosen < settings.count:
        note(
            f"{SECTION}.count asks for {one_or_many(settings.count, 'passage')}, and {counts.chosen:,} can be "
            f"asked for: of {counts.offered:,}, {one_or_many(counts.too_short, 'is', 'are')} too short and "
            f"{one_or_many(counts.tables, 'is a table', 'are tables')}."
        )
    say = note if counts.kept else warn
    say(
        f"{counts.kept:,} of {counts.chosen:,} questions {'is' if counts.kept == 1 else 'are'} kept"
        + ":" * bool(found.dropped)
    )
    for reason, count in sorted(found.dropped.items(), key=lambda one: -one[1]):
        note(f"  {count:,} {reason.words}")
    if found.unreadable is not None:
        shown = shortened(found.unreadable, _SHOWN) or "(it is empty)"
        note(f"  One that can't be read: {shown}")
        if not without_thought(found.unreadable).strip():
            warn(
                f"A model that thinks before it answers needs more {SECTION}.max_new_tokens, or "
                "template_arguments that keep it from thinking ({enable_thinking: false}, for some)."
            )
    if counts.untold == counts.requests:
        cost = "The server doesn't say what that took in tokens"
    else:
        cost = f"{settings.model} read {counts.prompt_tokens:,} and wrote {counts.completion_tokens:,} tokens"
        cost += (
            f" ({one_or_many(counts.untold, 'request')}, of which it isn't said, left out)"
            * bool(counts.untold)
        )
    note(
        f"{cost}: {one_or_many(counts.requests, 'request')}, {counts.asked:,} of them in this run."
    )


def _question(settings: Generate, passage: Passage, reply: Reply) -> Question:
    digest = hashlib.sha256(f"{reply.question}\n{passage.text}".encode()).hexdigest()[:16]
    assert passage.place is not None
    return Question(
        qid=f"synthetic-{digest}",
        question=reply.question,
        answers=(reply.answer,),
        documents=(str(passage.passage_id),),
        passages=(),
        extra={"synthetic": {"model": settings.model, "prompt": VERSION}},
        where=passage.place.in_words(),
    )
