"""A set of answers, scored: over the questions that can be answered, and over all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragtune.base.files import read_jsonl
from ragtune.data.example import Example
from ragtune.data.select import accepted, texts_shown
from ragtune.data.words import stands
from ragtune.recipe.schema import Recipe
from ragtune.scoring.metrics import METRICS, VERSIONS, refused, score
from ragtune.scoring.statistics import figures

Columns = dict[str, list[float]]
"""Values of each metric, one a question."""

CHOICES = ("first", "all", "all+alternatives")


@dataclass(frozen=True)
class Scored:
    """What the answers to an evaluation set score.

    `chosen` are the questions that the figures are over: selected (an answer stands among the passages
    that are shown, as far as prompt.max_tokens leaves them) and asked. `everywhere` is over all
    questions of the set: one that was not asked counts as wrong, one without any accepted answer as
    right if it was refused.
    """

    recipe: Recipe
    chosen: list[Example]
    texts: list[str]
    answered: list[float]
    """1 for each of the chosen that has a prediction; 0, and an empty text, for the others."""
    values: Columns
    everywhere: Columns
    asked: int
    ceiling: list[float]
    """1 for each of all questions with an answer among the passages that are shown, or an alternative
    where these are accepted."""
    reachable: float
    """The share of all questions that can be right: those, and with a refusal those without any answer."""
    by_choice: dict[str, list[float]]
    """The headline metric under each way to accept answers."""
    refusals: dict[str, list[float]]
    """`unanswerable` and `answerable`: 1 for each question of that kind that was refused; `crag`: 1 for a
    right answer, 0 for a refusal, -1 for a wrong answer (Yang et al. 2024, https://arxiv.org/abs/2406.04744),
    one an asked question. Empty without `data.refusal`."""
    cut: int | None = None
    """How many of the chosen questions' answers did not end by themselves; None if it is not known."""

    @property
    def lengths(self) -> list[float]:
        """Characters of each chosen question's answer."""
        return [float(len(text)) for text in self.texts]

    @property
    def total(self) -> int:
        return len(next(iter(self.everywhere.values())))


def load_predictions(folder: Path) -> dict[str, str]:
    """The answers of a finished evaluation, by qid."""
    return {row["qid"]: row["prediction"] for row in read_jsonl(folder / "predictions.jsonl")}


def load_cut(folder: Path) -> set[str]:
    """The qids of the answers of a finished evaluation that did not end by themselves."""
    return {r["qid"] for r in read_jsonl(folder / "predictions.jsonl") if not r["stopped"]}


def score_answers(
    recipe: Recipe,
    examples: Sequence[Example],
    predictions: Mapping[str, str],
    wanted: Collection[str] | None = None,
    cut: Collection[str] | None = None,
) -> Scored:
    """Score predictions by qid.

    Args:
        recipe: which answers are accepted, the headline, the refusal.
        examples: every question of the evaluation set, asked or not.
        predictions: the answers to those that were asked.
        wanted: qids of the questions that the figures are over, those without a prediction as wrong;
            by default the questions with one.
        cut: qids of the answers that did not end by themselves, if that is known.
    """
    asked = [e for e in examples if e.qid in predictions]
    wanted = predictions.keys() if wanted is None else wanted
    chosen = [e for e in examples if e.extra["selected"] and e.qid in wanted]
    texts = [predictions.get(e.qid, "") for e in chosen]
    headline = recipe.evaluate.metric
    answered = [float(e.qid in predictions) for e in chosen]

    def values_of(choice: str, names: Sequence[str] = ()) -> Columns:
        found = score(texts, [accepted(e, recipe, choice) for e in chosen], names)
        return {
            m: [v * there for v, there in zip(c, answered, strict=True)] for m, c in found.items()
        }

    values = values_of(recipe.evaluate.answers)
    by_choice = {
        choice: values[headline]
        if choice == recipe.evaluate.answers
        else values_of(choice, (headline,))[headline]
        for choice in CHOICES
    }
    there = {e.qid for e in chosen}
    others = [e for e in asked if e.qid not in there]
    each = _each(recipe, others, predictions)
    each |= {
        e.qid: {m: values[m][i] for m in METRICS} for i, e in enumerate(chosen)
    }  # fmt: skip
    in_reach = [_in_reach(recipe, e) for e in examples]
    return Scored(
        recipe=recipe,
        chosen=chosen,
        texts=texts,
        answered=answered,
        values=values,
        everywhere={m: [each[e.qid][m] if e.qid in each else 0.0 for e in examples] for m in METRICS},
        asked=len(asked),
        ceiling=[float(held) for held in in_reach],
        reachable=sum(
            held or bool(recipe.data.refusal and not e.answers)
            for held, e in zip(in_reach, examples, strict=True)
        )
        / len(examples),
        by_choice=by_choice,
        refusals=_refusals(
            recipe,
            [e for e in examples if e.qid in wanted or e.qid in predictions],
            predictions,
            {q: v[headline] for q, v in each.items()},
        ),
        cut=None if cut is None else sum(e.qid in cut for e in chosen),
    )  # fmt: skip


def _in_reach(recipe: Recipe, example: Example) -> bool:
    """Whether an accepted answer stands among the passages that are shown."""
    if example.extra["selected"]:
        return True
    more = set(accepted(example, recipe)) - set(example.answers)
    return any(stands(t, a) for t in texts_shown(example, recipe.data.max_passages) for a in more)


def _each(
    recipe: Recipe, examples: Sequence[Example], predictions: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The values of questions that are not selected."""
    answerable = [e for e in examples if e.answers]
    texts = [predictions[e.qid] for e in answerable]
    values = score(texts, [accepted(e, recipe) for e in answerable])
    found = {e.qid: {m: values[m][i] for m in METRICS} for i, e in enumerate(answerable)}
    refusal = recipe.data.refusal
    for e in examples:
        if not e.answers:
            right = float(refusal is not None and refused(predictions[e.qid], refusal))
            found[e.qid] = dict.fromkeys(METRICS, right)
    return found


def _refusals(
    recipe: Recipe,
    asked: Sequence[Example],
    predictions: Mapping[str, str],
    right: Mapping[str, float],
) -> dict[str, list[float]]:
    refusal = recipe.data.refusal
    if refusal is None:
        return {}
    found: dict[str, list[float]] = {"unanswerable": [], "answerable": [], "crag": []}
    for example in asked:
        # One without a prediction is wrong, and no refusal.
        text = predictions.get(example.qid)
        no = text is not None and refused(text, refusal)
        found["answerable" if example.extra["selected"] else "unanswerable"].append(float(no))
        found["crag"].append(0.0 if no else 1.0 if right.get(example.qid) == 1 else -1.0)
    return found


def metrics_of(scored: Scored) -> dict[str, Any]:
    """The figures of metrics.json."""
    seed = scored.recipe.seed
    every = figures({**scored.values, **scored.by_choice}, seed)
    given = [n for n, there in zip(scored.lengths, scored.answered, strict=True) if there]
    length = figures({"length": given}, seed).get("length")
    by_answers = {choice: every.pop(choice) for choice in CHOICES if choice in every}
    result: dict[str, Any] = {
        "n": len(scored.chosen),
        "metrics": {m: f["value"] for m, f in every.items()},
        "intervals": every,
        "answers": scored.recipe.evaluate.answers,
        "normalisers": VERSIONS,
        "length": length,
        "by_answers": by_answers,
        "all": whole_set(scored, figures(scored.everywhere, seed)),
    }
    if scored.refusals:
        result["refusals"] = refusal_figures(scored)
    return result


def whole_set(scored: Scored, figures_: Mapping[str, Any]) -> dict[str, Any]:
    """Figures over all questions, with how many of them were asked."""
    return {
        "n": scored.total,
        "asked": scored.asked,
        "lower_bound": scored.asked < scored.total,
        "ceiling": figures({"ceiling": scored.ceiling}, scored.recipe.seed)["ceiling"],
        "reachable": scored.reachable,
        "intervals": dict(figures_),
    }


def refusal_figures(scored: Scored) -> dict[str, Any]:
    """Refusals where there was no answer, where there was one, and CRAG's score, with intervals."""
    return {
        kind: {"n": len(values), **next(iter(figures({kind: values}, scored.recipe.seed).values()))}
        for kind, values in scored.refusals.items()
        if values
    }
