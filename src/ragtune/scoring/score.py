"""A set of answers, scored: over the questions that can be answered, and over all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NotRequired, Protocol, TypedDict

from ragtune.data.citations import said
from ragtune.data.example import Example
from ragtune.data.select import accepted, texts_shown
from ragtune.data.words import refused, stands
from ragtune.recipe.schema import Recipe
from ragtune.scoring.citations import CitationFigures, Citations, citation_figures, citations
from ragtune.scoring.confidence import Confidence, confidence_of
from ragtune.scoring.metrics import VERSIONS, Columns, score
from ragtune.scoring.quotes import QuoteFigures, Quotes, quote_figures, quotes
from ragtune.scoring.statistics import RATE, Bounds, Figure, Figures, figures

CHOICES = ("first", "all", "all+alternatives")
"""Ways to accept answers (evaluate.answers)."""
REFUSALS: dict[str, Bounds] = {"unanswerable": RATE, "answerable": RATE, "crag": (-1.0, 1.0)}
"""What a question's value can be, by the kinds of `Scored.refusals`."""


class Answer(Protocol):
    """What an engine answered to a question."""

    @property
    def qid(self) -> str: ...
    @property
    def prediction(self) -> str: ...
    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def stopped(self) -> bool: ...
    @property
    def probability(self) -> float | None: ...
    @property
    def unsure(self) -> bool: ...


@dataclass(frozen=True)
class Answers:
    """One set of answers to the questions of an evaluation set, by qid."""

    texts: Mapping[str, str]
    cut: Collection[str] | None = None
    """Those that did not end by themselves, if that is known."""
    tokens: Mapping[str, int] | None = None
    """How many tokens were generated for each, if that is known: a server doesn't say."""
    name: str = ""
    """What messages call the set."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """The model's own of each, as far as they are known."""
    unsure: Collection[str] = ()
    """Those that `evaluate.refuse_below` refused, which have no probability."""

    @staticmethod
    def of(answers: Iterable[Answer], name: str = "") -> Answers:
        """What is scored of an engine's answers."""
        every = list(answers)
        texts = {one.qid: one.prediction for one in every}
        cut = {one.qid for one in every if not one.stopped}
        tokens = {one.qid: len(one.token_ids) + one.stopped for one in every}
        sure = {one.qid: one.probability for one in every if one.probability is not None}
        unsure = {one.qid for one in every if one.unsure}
        tokens_known = tokens if any(one.token_ids for one in every) else None
        return Answers(texts, cut, tokens_known, name, sure, unsure)


@dataclass(frozen=True)
class Scored:
    """What the answers to an evaluation set score.

    `chosen` are the questions that the figures are over: selected (an answer stands among the passages
    that are shown, as far as prompt.max_tokens leaves them) and asked. `everywhere` is over all
    questions of the set: one that was not asked counts as wrong, one without any accepted answer as
    right if it was refused.
    """

    recipe: Recipe
    answers: Answers
    chosen: list[Example]
    texts: list[str | None]
    """Of the chosen, without quotes and citations; None where one has no prediction, which is wrong."""
    values: Columns
    everywhere: Columns
    ceiling: list[float]
    """1 for each question with an answer (or an accepted alternative) among the passages that are shown."""
    reachable: float
    """The share of all questions that can be right: those, and with a refusal those without any answer."""
    by_choice: dict[str, list[float]]
    """The headline metric under each way to accept answers."""
    refusals: dict[str, list[float]]
    """`unanswerable` and `answerable`: 1 for each question of that kind that was refused; the values of
    `crag`. Empty without `data.refusal`."""
    crag: dict[str, float]
    """Of each asked question, by qid: 1 for a right answer, 0 for a refusal, -1 for a wrong answer (Yang et
    al. 2024, https://arxiv.org/abs/2406.04744). Without `data.refusal` nothing is a refusal."""
    citations: Citations | None
    """What the answers to the chosen cite, but for refusals; None without prompt.citations."""
    quotes: Quotes | None
    """What they quote, likewise; None without prompt.quote."""
    sure: list[tuple[float, float, float]]
    """Of each asked question whose answer's probability is known that, the headline and the part of `crag`."""

    @property
    def confidence(self) -> Confidence | None:
        """What the probabilities say of all answers that were given, to unanswerable questions, too.

        But for those that `evaluate.refuse_below` refused. A threshold is suggested where that is 0: else the
        model, or another threshold, refused questions of which it isn't known what would be answered.
        """
        sure, right, crag = ([one[k] for one in self.sure] for k in range(3))
        recipe, left_out = self.recipe, len(self.answers.unsure)
        suggests = recipe.data.refusal is not None and recipe.evaluate.refuse_below == 0
        return confidence_of(sure, right, recipe.seed, crag if suggests else (), left_out)

    @property
    def lengths(self) -> list[float]:
        """Characters of each answer to one of the chosen."""
        return [float(len(text)) for text in self.texts if text is not None]

    @property
    def total(self) -> int:
        return len(self.ceiling)

    @property
    def asked(self) -> int:
        """How many of all questions have a prediction."""
        return len(self.answers.texts)

    @property
    def cut(self) -> int | None:
        """How many of the chosen questions' answers did not end by themselves, if that is known."""
        cut = self.answers.cut
        return None if cut is None else sum(e.qid in cut for e in self.chosen)


def score_answers(
    recipe: Recipe,
    examples: Sequence[Example],
    answers: Answers,
    wanted: Collection[str] | None = None,
) -> Scored:
    """Score a set of answers.

    Args:
        recipe: which answers are accepted, the headline, the refusal.
        examples: every question of the evaluation set, asked or not.
        answers: to those that were asked.
        wanted: qids of the questions that the figures are over, those without a prediction as wrong;
            by default the questions with one.
    """
    written = [answers.texts.get(e.qid) for e in examples]
    texts = [text if text is None else said(recipe, text) for text in written]
    wanted = answers.texts.keys() if wanted is None else wanted
    places = [i for i, e in enumerate(examples) if e.extra["selected"] and e.qid in wanted]
    chosen = [examples[i] for i in places]
    everywhere = score(recipe, examples, texts)
    headline = recipe.evaluate.metric
    in_reach = [_in_reach(recipe, e) for e in examples]
    refusable = [bool(recipe.data.refusal and not e.answers) for e in examples]
    asked = [
        (example, text, _crag(recipe, text, value))
        for example, text, value in zip(examples, texts, everywhere[headline], strict=True)
        if text is not None or example.qid in wanted
    ]
    return Scored(
        recipe=recipe,
        answers=answers,
        chosen=chosen,
        texts=[texts[i] for i in places],
        values={metric: [column[i] for i in places] for metric, column in everywhere.items()},
        everywhere=everywhere,
        ceiling=[float(held) for held in in_reach],
        reachable=sum(a or b for a, b in zip(in_reach, refusable, strict=True)) / len(examples),
        by_choice={
            choice: score(recipe, chosen, [texts[i] for i in places], (headline,), choice)[headline]
            for choice in CHOICES
        },
        refusals=_refusals(recipe, asked),
        crag={example.qid: part for example, _, part in asked},
        citations=citations(
            recipe, [(examples[i], written[i], everywhere["contains"][i]) for i in places]
        ),
        quotes=quotes(recipe, [(examples[i], written[i]) for i in places]),
        sure=[
            (answers.probabilities[e.qid], value, _crag(recipe, text, value))
            for e, text, value in zip(examples, texts, everywhere[headline], strict=True)
            if e.qid in answers.texts and e.qid in answers.probabilities
        ],
    )


def _in_reach(recipe: Recipe, example: Example) -> bool:
    """Whether an accepted answer stands among the passages that are shown."""
    if example.extra["selected"]:
        return True
    more = set(accepted(example, recipe)) - set(example.answers)
    return any(stands(t, a) for t in texts_shown(example, recipe.data.max_passages) for a in more)


def _refusals(
    recipe: Recipe, asked: Sequence[tuple[Example, str | None, float]]
) -> dict[str, list[float]]:
    if recipe.data.refusal is None:
        return {}
    found: dict[str, list[float]] = {kind: [] for kind in REFUSALS}
    for example, text, part in asked:
        # One without a prediction is wrong, and no refusal.
        no = text is not None and refused(text, recipe.data.refusal)
        found["answerable" if example.extra["selected"] else "unanswerable"].append(float(no))
        found["crag"].append(part)
    return found


def _crag(recipe: Recipe, text: str | None, value: float) -> float:
    """An answer's part of CRAG's score."""
    if text is not None and refused(text, recipe.data.refusal):
        return 0.0
    return 1.0 if value == 1 else -1.0


class WholeSet(TypedDict):
    """Figures over all questions; those that were not asked count as wrong, in the intervals as well.

    `lower_bound` says whether there are such: then each side's rates are lower bounds, and a difference of
    two sides is no bound.
    """

    n: int
    asked: int
    lower_bound: bool
    ceiling: Figure
    reachable: float
    intervals: Figures | dict[str, Figures]
    """Of each metric; in a comparison of `before`, `after` and `difference`."""


class RefusalFigure(Figure):
    """A share of `n` questions; see `Scored.refusals`."""

    n: int


class Metrics(TypedDict):
    """metrics.json, over the `n` chosen questions, but what stands in `all` and `refusals`."""

    n: int
    metrics: dict[str, float]
    intervals: Figures
    answers: str
    normalisers: dict[str, str]
    """The version of each rule."""
    length: Figure | None
    """Characters of an answer."""
    by_answers: Figures
    """The headline metric under each way to accept answers."""
    all: WholeSet
    refusals: NotRequired[dict[str, RefusalFigure]]
    citations: NotRequired[CitationFigures]
    quotes: NotRequired[QuoteFigures]
    asked: NotRequired[int]
    """This and what follows: of an engine's answers, not of those from elsewhere."""
    stopped: NotRequired[int]
    cut: NotRequired[int]
    new_tokens: NotRequired[int | None]
    unsure: NotRequired[int]
    """Of all answers, those that `evaluate.refuse_below` refused; left out where there is none."""
    confidence: NotRequired[Confidence]
    """Where the engine says how likely its answers are; over all that were asked."""


def metrics_of(scored: Scored) -> Metrics:
    """The figures of metrics.json."""
    seed = scored.recipe.seed
    every = figures({**scored.values, **scored.by_choice}, seed)
    by_answers = {choice: every.pop(choice) for choice in CHOICES if choice in every}
    result: Metrics = {
        "n": len(scored.chosen),
        "metrics": {m: f["value"] for m, f in every.items()},
        "intervals": every,
        "answers": scored.recipe.evaluate.answers,
        "normalisers": VERSIONS,
        "length": figures({"length": scored.lengths}, seed, None).get("length"),
        "by_answers": by_answers,
        "all": whole_set(scored, figures(scored.everywhere, seed)),
    }
    if scored.refusals:
        result["refusals"] = refusal_figures(scored)
    if cited := citation_figures(scored.citations, seed):
        result["citations"] = cited
    if found := quote_figures(scored.quotes, seed):
        result["quotes"] = found
    if (cut := scored.cut) is not None:
        tokens = scored.answers.tokens
        result["asked"] = scored.asked
        result["stopped"] = len(scored.chosen) - cut
        result["cut"] = cut
        result["new_tokens"] = sum(tokens[e.qid] for e in scored.chosen) if tokens else None
    if unsure := len(scored.answers.unsure):
        result["unsure"] = unsure
    if (confidence := scored.confidence) is not None:
        result["confidence"] = confidence
    return result


def whole_set(scored: Scored, intervals: Figures | dict[str, Figures]) -> WholeSet:
    """Figures over all questions, with how many of them were asked."""
    return {
        "n": scored.total,
        "asked": scored.asked,
        "lower_bound": scored.asked < scored.total,
        "ceiling": figures({"ceiling": scored.ceiling}, scored.recipe.seed)["ceiling"],
        "reachable": scored.reachable,
        "intervals": intervals,
    }


def refusal_figures(scored: Scored) -> dict[str, RefusalFigure]:
    """Refusals where there was no answer, where there was one, and CRAG's score, with intervals."""
    return {
        kind: {
            "n": len(values),
            **figures({kind: values}, scored.recipe.seed, REFUSALS[kind])[kind],
        }
        for kind, values in scored.refusals.items()
        if values
    }
