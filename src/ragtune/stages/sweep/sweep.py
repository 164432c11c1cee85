"""`ragtune sweep`: every point of a grid with several seeds, the hopeless ones stopped early, and a verdict.

What is chosen is chosen on questions held apart of the training data, by article. The evaluation set is
looked at once, in the end, with the best point's runs, or not at all. Everything is computed from the
answers that lie in the runs, so that the same command goes on after a break, and a wider grid takes over
what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ragtune.answering.prediction import read_predictions
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_if_whole, write_json
from ragtune.base.lock import locked
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.notebook import one_output
from ragtune.base.screen.progress import busy, progress
from ragtune.base.text import shortened
from ragtune.data.prepare import load_examples
from ragtune.recipe.load import save
from ragtune.recipe.schema import Recipe
from ragtune.reporting.sweep import verdict, write_page
from ragtune.scoring.score import Answers, score_answers
from ragtune.scoring.seeds import (
    BySeed,
    halved,
    is_better,
    less,
    missing,
    on_shared,
    ranked,
    spread_of,
)
from ragtune.scoring.sweep import Dev, PointRow, Results
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import Point, points_of
from ragtune.stages.sweep.jobs import Task, run_all
from ragtune.stages.sweep.machine import fitting, gpus_of, say_disk, say_left, settle_dtypes
from ragtune.stages.target import Target, find_recipe

RUNGS = (0.25, 0.5)
"""Shares of the steps after which the better half of the points goes on."""
END = 1.0
_SEEDS = 2**32
_MOST = 100
"""Seeds of a sweep; a slip of the keys would train for a year."""
_WORKER = "ragtune.stages.sweep.worker"
_DEV = "dev"


def sweep(
    target: Target,
    *overrides: str,
    seeds: int = 3,
    jobs: int | None = None,
    whole: bool = False,
    look: bool = True,
    folder: str | Path | None = None,
) -> Results:
    """Train every combination of some values with several seeds, and say which is better, if one is.

    Args:
        target: a recipe (path, mapping or Recipe).
        overrides: `section.key=value`, or `section.key=value,value` for what is tried.
        seeds: with how many each is trained: the recipe's, and those after it.
        jobs: runs at a time; by default one on a CPU, and on a GPU as many as fit.
        whole: train all to the end, instead of the better half at 25 % and at 50 % of the steps.
        look: ask the best point's runs the evaluation set, in the end; False leaves it to a later sweep.
        folder: where it lies; sweeps/NAME by default.

    Returns:
        As results.json.

    Raises:
        UsageError: the grid or the folder is not right, or another sweep is at work there.
        RagtuneError: every run failed.
    """
    with one_output(), busy("ragtune sweep"):
        points = points_of(find_recipe(target)[0], overrides)
        where = SweepFolder(Path(folder or Path("sweeps") / points[0].recipe.name).absolute())
        return _swept(where, points, _Options(seeds, jobs, whole, look))


@dataclass(frozen=True)
class _Options:
    seeds: int
    jobs: int | None
    whole: bool
    look: bool = True


def _swept(where: SweepFolder, points: Sequence[Point], options: _Options) -> Results:
    if any(point.recipe.evaluate.engine != "local" for point in points):
        raise UsageError(
            "A sweep asks the models that it trains, and evaluate.engine is openai.",
            "Set evaluate.engine=local.",
        )
    if not 1 <= options.seeds <= _MOST:
        raise UsageError(
            f"A sweep has 1 to {_MOST} seeds, and not {options.seeds:,}.",
            "Set --seeds: 3 are the default.",
        )
    if (first := points[0].recipe.seed) + options.seeds > _SEEDS:
        raise UsageError(
            f"The recipe's seed is {first}, and {options.seeds} seeds from there on go beyond the last, "
            f"{_SEEDS - 1}.",
            f"Set seed to {_SEEDS - options.seeds} at most.",
        )
    one = _Sweep(where, points, options)
    where.require_ours()
    with locked(where.path):
        counts = where.prepare(points[0].recipe)
        note(
            f"{len(points)} points with {options.seeds} seeds each, in {where.path}: "
            f"{counts['train']:,} examples are trained, {counts['held']:,} of other articles are held apart "
            f"to choose by, {counts['left_out']:,} that share an article with those are left out."
        )
        settle_dtypes(where, (point.recipe for point in points))
        one.say_disk()
        one.climb()
        results = one.results()
        if results["best"] is None:
            raise one.nothing()
        best = next(point for point in points if point.name == results["best"])
        if options.look:
            one.look(best)
            results = one.results()
        save(where.settled(best.recipe), where.best)
        write_json(where.results, results)
        write_page(where.report, results)
        stopped = {row["name"] for row in results["points"] if 0 < row["share"] < END}
        say_left(where, [one.run_of(p, s) for p in points if p.name in stopped for s in one.seeds])
    return results


@dataclass
class _Sweep:
    where: SweepFolder
    points: Sequence[Point]
    options: _Options
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by the run; it is not tried again by this command."""

    @cached_property
    def seeds(self) -> list[int]:
        first = self.points[0].recipe.seed
        return list(range(first, first + self.options.seeds))

    def run_of(self, point: Point, seed: int) -> str:
        return f"{point.name}_seed-{seed}"

    def problems_of(self, point: Point) -> list[str]:
        runs = [self.run_of(point, seed) for seed in self.seeds]
        return [f"{run}: {self.failed[run]}" for run in runs if run in self.failed]

    @cached_property
    def gpus(self) -> list[int]:
        """On which the runs go on, one GPU each."""
        return gpus_of(self.points[0].recipe)

    def say_disk(self) -> None:
        """Say so if the runs that have not ended don't fit on the disk."""
        first, end = self.seeds[0], _name(END)
        left = [[run for seed in self.seeds if not self.where.answers_of(run := self.run_of(point, seed), end)]
                for point in self.points]  # fmt: skip
        recipes = [
            self.where.recipe_of(self.run_of(point, first), point, first) for point in self.points
        ]
        say_disk(self.where, zip(recipes, left, strict=True))

    def nothing(self) -> RagtuneError:
        """Why no point is the best."""
        problems = [problem for point in self.points for problem in self.problems_of(point)]
        if not problems:
            return UsageError(
                "No held question was asked by every point: figures of other questions can't be compared.",
                "Give the keys that select questions (data.max_passages, prompt.max_tokens) one value.",
            )
        return RagtuneError(
            f"No run came to its end; the first that failed: {problems[0]}",
            f"Their logs lie in {self.where.path / 'logs'}. The same command tries again.",
        )

    def climb(self) -> None:
        """Train all points a part of the way, the better half of them further, and what is left to the end.

        What was trained to the end without a stop has no part in that.
        """
        going = [p for p in self.points if self.scores(p, RUNGS[0]) or not self.scores(p, END)]
        for share in () if self.options.whole else RUNGS:
            if len(going) <= 2:  # noqa: PLR2004 - two are compared in the end
                break
            self.advance(going, share)
            order = ranked({p.name: self.scores(p, share) for p in going}, self.seeds)
            left = halved(order)
            stopped = [p.label for p in going if p.name in order and p.name not in left]
            if stopped:
                note(f"At {share:.0%} of the steps the lower half stops: {'; '.join(stopped)}.")
            going = [p for p in going if p.name in left]
        self.advance(going, END)

    def advance(self, points: Sequence[Point], share: float) -> None:
        """Have the answers of points at a share of their steps."""
        tasks = []
        for point in points:
            for seed in self.seeds:
                run = self.run_of(point, seed)
                if run in self.failed or self.where.answers_of(run, _name(share)):
                    continue
                recipe = self.where.write_recipe(run, point, seed)
                tasks.append(self._task(run, recipe, str(share), _name(share)))
        self._run(tasks, f"training to {share:.0%}")

    def look(self, point: Point) -> None:
        """Ask a point's runs the evaluation set, those that were trained to the end."""
        tasks = []
        for seed in self.seeds:
            run = self.run_of(point, seed)
            if self.where.answers_of(run, _name(END)) and not self.where.answers_of(run, _DEV):
                questions = self.where.copy_evaluation(self.points[0].recipe)
                tasks.append(self._task(run, self.where.recipe(run), str(questions), _DEV))
        self._run(tasks, "asking the evaluation set")

    def _task(self, run: str, recipe: Path, what: str, reached: str) -> Task:
        words = (_WORKER, recipe, self.where.runs / run, what, self.where.reached(run, reached))
        self.where.reached(run, reached).parent.mkdir(parents=True, exist_ok=True)
        return Task(run, tuple(map(str, words)), self.where.log(run))

    def _run(self, tasks: Sequence[Task], what: str) -> None:
        if not tasks:
            return
        with progress(what, len(tasks), unit="runs") as update:
            count = 0

            def done(task: Task, problem: str) -> None:
                nonlocal count
                count += 1
                if problem:
                    self.failed[task.name] = shortened(problem, 200)
                    warn(
                        f"{task.name} failed, the others go on: {shortened(problem, 200)} ({task.log})"
                    )
                update(count, task.name)

            run_all(tasks, self._at_a_time, done, self.gpus)

    def _at_a_time(self) -> int:
        """Runs that may go on together: on each GPU as many as fit by the peaks that were measured."""
        if self.options.jobs is not None:
            return self.options.jobs
        found = [read_if_whole(path) for path in sorted(self.where.runs.glob("*/run.json"))]
        return fitting(found) * max(1, len(self.gpus))

    def scores(self, point: Point, share: float) -> BySeed:
        """The headline metric of a point's held questions, by seed, of those runs that came so far."""
        runs = {seed: self.run_of(point, seed) for seed in self.seeds}
        return {
            seed: self._values(run, point.recipe, str(found["questions"]), str(found["answers"]))
            for seed, run in runs.items()
            if (found := self.where.answers_of(run, _name(share)))
        }

    def _values(self, run: str, recipe: Recipe, questions: str, answers: str) -> dict[str, float]:
        folder = self.where.runs / run
        examples = load_examples(folder / questions / "eval.jsonl")
        found = Answers.of(read_predictions(folder / answers / "predictions.jsonl"), run)
        scored = score_answers(recipe, examples, found)
        qids = [example.qid for example in scored.chosen]
        return dict(zip(qids, scored.values[recipe.evaluate.metric], strict=True))

    def results(self) -> Results:
        """What is known by now."""
        draw = self.seeds[0]
        reached = {p.name: self._reached(p) for p in self.points}
        shared = on_shared({name: scores for name, (_, scores) in reached.items()})
        at_end = {name: one for name, one in shared.items() if reached[name][0] == END}
        order = ranked(at_end, self.seeds)
        best = order[0] if order else None
        rows = []
        for point in self.points:
            share, scores = reached[point.name][0], shared.get(point.name, {})
            compared = best is not None and share == END and point.name != best
            behind = less(at_end[best], scores, draw) if best and compared else None
            rows.append(PointRow(
                name=point.name, changes=list(point.changes), share=share, spread=spread_of(scores, draw),
                missing=missing(scores, self.seeds), behind=behind, apart=is_better(behind),
                problems=self.problems_of(point),
            ))  # fmt: skip
        rows.sort(key=_place)
        evaluate = self.points[0].recipe.evaluate
        sure = len(order) > 1 and rows[1]["apart"] and not rows[0]["missing"]
        return {
            "name": self.points[0].recipe.name,
            "metric": evaluate.metric,
            "answers": evaluate.answers,
            "seeds": self.seeds,
            "data": {
                k: int(v) for k, v in read_if_whole(self.where.about).items() if isinstance(v, int)
            },
            "questions": max((row["spread"]["n"] for row in rows if row["spread"]), default=0),
            "points": rows,
            "best": best,
            "winner": best if sure else None,
            "verdict": verdict(rows, len(self.seeds)),
            "looks": [look for point in self.points if (look := self._looked(point))],
        }

    def _reached(self, point: Point) -> tuple[float, BySeed]:
        """How far a point came, and its scores there."""
        for share in (END, *reversed(RUNGS)):
            if scores := self.scores(point, share):
                return share, scores
        return 0.0, {}

    def _looked(self, point: Point) -> Dev | None:
        sides: dict[str, dict[int, dict[str, float]]] = {"before": {}, "answers": {}}
        for seed in self.seeds:
            run = self.run_of(point, seed)
            if found := self.where.answers_of(run, _DEV):
                for side, values in sides.items():
                    values[seed] = self._values(
                        run, point.recipe, str(found["questions"]), str(found[side])
                    )
        if not sides["answers"]:
            return None
        draw, (before, after) = self.seeds[0], sides.values()
        return {
            "point": point.name,
            "before": spread_of(before, draw),
            "after": spread_of(after, draw),
            "difference": less(after, before, draw),
        }


def _place(row: PointRow) -> tuple[float, bool, float]:
    """In the table: as `ranked` has them, those that were stopped early behind."""
    value = row["spread"]["figure"]["value"] if row["spread"] else -1
    return -row["share"], bool(row["missing"]), -value


def _name(share: float) -> str:
    return f"{share:g}"
