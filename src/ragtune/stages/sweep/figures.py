"""What a sweep's points reached, computed from the answers that lie in their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ragtune.answering.prediction import read_predictions
from ragtune.data.prepare import load_examples
from ragtune.reporting.sweep import verdict
from ragtune.scoring.score import REFUSALS, Answers, score_answers
from ragtune.scoring.seeds import (
    BySeed,
    is_better,
    less,
    missing,
    on_shared,
    ranked,
    spread_of,
)
from ragtune.scoring.statistics import RATE
from ragtune.scoring.sweep import CRAG, Dev, PointRow, Results, Sides
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import Point

RUNGS = (0.25, 0.5)
"""Shares of the steps after which the better half of the points goes on."""
END = 1.0


@dataclass
class Figures:
    """The figures of a sweep's points."""

    where: SweepFolder
    points: Sequence[Point]
    seeds: Sequence[int]
    dev: str
    """What answers to the evaluation set are called."""
    known: dict[tuple[str, str], dict[str, dict[str, float]]] = field(default_factory=dict)
    """What was scored already, by the run and where its answers lie: each question's values, by the figure."""

    @cached_property
    def metric(self) -> str:
        """The headline, over the questions that can be answered."""
        return self.points[0].recipe.evaluate.metric

    @cached_property
    def by(self) -> str:
        """What points are ranked by: readers that may refuse by a figure in which a wrong answer costs."""
        refusing = any(point.recipe.data.refusal is not None for point in self.points)
        return CRAG if refusing else self.metric

    def scores(self, point: Point, share: float, figure: str | None = None) -> BySeed:
        """A figure of a point's held questions, by seed, of those runs that came so far.

        Args:
            point: of the sweep.
            share: of the steps.
            figure: `by` or `metric`; by default `by`.
        """
        return self._answered(point, name_of(share), "answers", figure or self.by)

    def _answered(self, point: Point, what: str, side: str, figure: str) -> BySeed:
        return {
            seed: self._values(run, point, str(found["questions"]), str(found[side]))[figure]
            for seed in self.seeds
            if (found := self.where.answers_of(run := point.run(seed), what))
        }

    def _values(
        self, run: str, point: Point, questions: str, answers: str
    ) -> dict[str, dict[str, float]]:
        if (run, answers) not in self.known:
            folder = self.where.runs / run
            examples = load_examples(folder / questions / "eval.jsonl")
            found = Answers.of(read_predictions(folder / answers / "predictions.jsonl"), run)
            scored = score_answers(point.recipe, examples, found)
            qids = [example.qid for example in scored.chosen]
            headline = dict(zip(qids, scored.values[self.metric], strict=True))
            self.known[run, answers] = {self.metric: headline, CRAG: scored.crag}
        return self.known[run, answers]

    def results(self, problems_of: Callable[[Point], list[str]]) -> Results:
        """What is known by now.

        Args:
            problems_of: why runs of a point failed.
        """
        shares = {point.name: self._share(point) for point in self.points}
        shared = self._on_shared(shares, self.by)
        answerable = self._on_shared(shares, self.metric) if self.by == CRAG else {}
        order = ranked({n: one for n, one in shared.items() if shares[n] == END}, self.seeds)
        best = order[0] if order else None
        draw, bounds = self.seeds[0], REFUSALS.get(self.by, RATE)
        rows = []
        for point in self.points:
            share, scores = shares[point.name], shared.get(point.name, {})
            compared = best is not None and share == END and point.name != best
            behind = less(shared[best], scores, draw, bounds) if best and compared else None
            rows.append(PointRow(
                name=point.name, changes=list(point.changes), share=share,
                spread=spread_of(scores, draw, bounds),
                answerable=spread_of(answerable.get(point.name, {}), draw),
                missing=missing(scores, self.seeds), behind=behind, apart=is_better(behind),
                problems=problems_of(point),
            ))  # fmt: skip
        rows.sort(key=_place)
        sure = len(order) > 1 and rows[1]["apart"] and not rows[0]["missing"]
        recipe = self.points[0].recipe
        return {
            "name": recipe.name,
            "by": self.by,
            "metric": self.metric,
            "answers": recipe.evaluate.answers,
            "seeds": list(self.seeds),
            "data": self.where.counts(),
            "questions": max((row["spread"]["n"] for row in rows if row["spread"]), default=0),
            "points": rows,
            "best": best,
            "winner": best if sure else None,
            "verdict": verdict(rows, len(self.seeds)),
            "looks": [look for point in self.points if (look := self._looked(point))],
        }

    def _share(self, point: Point) -> float:
        """How far a point came."""
        return next((s for s in (END, *reversed(RUNGS)) if self.scores(point, s)), 0.0)

    def _on_shared(self, shares: dict[str, float], figure: str) -> dict[str, BySeed]:
        """A figure of the points where they came to, over the questions that all of them were asked."""
        return on_shared({p.name: self.scores(p, shares[p.name], figure) for p in self.points})

    def _looked(self, point: Point) -> Dev | None:
        found = self._sides(point, self.by)
        if found["after"] is None:
            return None
        answerable = self._sides(point, self.metric) if self.by == CRAG else None
        return {"point": point.name, **found, "answerable": answerable}

    def _sides(self, point: Point, figure: str) -> Sides:
        draw, bounds = self.seeds[0], REFUSALS.get(figure, RATE)
        before = self._answered(point, self.dev, "before", figure)
        after = self._answered(point, self.dev, "answers", figure)
        return {
            "before": spread_of(before, draw, bounds),
            "after": spread_of(after, draw, bounds),
            "difference": less(after, before, draw, bounds),
        }


def name_of(share: float) -> str:
    """What answers at a share of the steps are called."""
    return f"{share:g}"


def _place(row: PointRow) -> tuple[float, bool, float]:
    """In the table: as `ranked` has them, those that were stopped early behind."""
    value = row["spread"]["figure"]["value"] if row["spread"] else -float("inf")
    return -row["share"], bool(row["missing"]), -value
