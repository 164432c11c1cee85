"""`ragtune sweep`: every point of a grid with several seeds, the hopeless ones stopped early, and a verdict.

What is chosen is chosen on questions held apart of the training data, by article. The evaluation set is
looked at once, in the end, with the best point's runs, or not at all. Everything is computed from the
answers that lie in the runs, so that the same command goes on after a break, and a wider grid takes over
what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_if_whole, write_json
from ragtune.base.lock import locked
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.notebook import one_output
from ragtune.base.screen.progress import busy, progress
from ragtune.base.text import one_or_many, shortened
from ragtune.recipe.load import save
from ragtune.reporting.sweep import write_page
from ragtune.scoring.seeds import halved, ranked
from ragtune.scoring.sweep import Results
from ragtune.stages.sweep.figures import END, RUNGS, Figures, name_of
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import Point, points_of
from ragtune.stages.sweep.jobs import Task, run_all
from ragtune.stages.sweep.machine import fitting, gpus_of, say_disk, say_left, settle_dtypes
from ragtune.stages.target import Target, find_recipe

_SEEDS = 2**32
_MOST = 100
"""Seeds of a sweep; a slip of the keys would train for a year."""
_WORKER = "ragtune.stages.sweep.worker"


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
    where.require_ours()
    with locked(where.path):
        counts = where.prepare(points[0].recipe)
        points = where.taken_over(points)
        # Now: if it can't be read, that is better known before everything is trained.
        questions = where.copy_evaluation(points[0].recipe)
        one = _Sweep(where, points, options, questions)
        note(
            f"{one_or_many(len(points), 'point')} with {one_or_many(options.seeds, 'seed')} each, in "
            f"{where.path}: {_held_apart(counts)}."
        )
        settle_dtypes(where, (point.recipe for point in points))
        one.say_disk()
        one.climb()
        results = one.figures.results(one.problems_of)
        if results["best"] is None:
            raise one.nothing()
        best = next(point for point in points if point.name == results["best"])
        if options.look:
            one.look(best)
            results = one.figures.results(one.problems_of)
        save(where.settled(best.recipe), where.best)
        write_json(where.results, results)
        write_page(where.report, results)
        stopped = {row["name"] for row in results["points"] if 0 < row["share"] < END}
        say_left(where, [p.run(s) for p in points if p.name in stopped for s in one.seeds])
    return results


def _held_apart(counts: Mapping[str, int]) -> str:
    """How many examples are trained, held apart and left out, in words."""
    train, held, out = (counts[key] for key in ("train", "held", "left_out"))
    return (
        f"{one_or_many(train, 'example is', 'examples are')} trained, "
        f"{one_or_many(held, 'of other articles is', 'of other articles are')} held apart to choose by, "
        f"{one_or_many(out, 'that shares', 'that share')} an article with those "
        f"{'is' if out == 1 else 'are'} left out"
    )


@dataclass
class _Sweep:
    where: SweepFolder
    points: Sequence[Point]
    options: _Options
    questions: Path
    """The evaluation set."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by the run; it is not tried again by this command."""

    @cached_property
    def seeds(self) -> list[int]:
        first = self.points[0].recipe.seed
        return list(range(first, first + self.options.seeds))

    def problems_of(self, point: Point) -> list[str]:
        runs = [point.run(seed) for seed in self.seeds]
        return [f"{run}: {self.failed[run]}" for run in runs if run in self.failed]

    @cached_property
    def figures(self) -> Figures:
        return Figures(self.where, self.points, self.seeds, self.questions.stem)

    @cached_property
    def gpus(self) -> list[int]:
        """On which the runs go on, one GPU each."""
        return gpus_of(self.points[0].recipe)

    def say_disk(self) -> None:
        """Say so if the runs that have not ended don't fit on the disk."""
        first, end = self.seeds[0], name_of(END)
        left = [[run for seed in self.seeds if not self.where.answers_of(run := point.run(seed), end)]
                for point in self.points]  # fmt: skip
        recipes = [self.where.recipe_of(point.run(first), point, first) for point in self.points]
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

        What was trained to the end without a stop has no part in that, but for the seeds that it lacks: more
        are wanted now, or the last command was stopped between them.
        """
        scores = self.figures.scores
        going = [p for p in self.points if scores(p, RUNGS[0]) or not scores(p, END)]
        ended = [p for p in self.points if p not in going]
        for share in () if self.options.whole else RUNGS:
            if len(going) <= 2:  # noqa: PLR2004 - two are compared in the end
                break
            self.advance(going, share)
            order = ranked({p.name: scores(p, share) for p in going}, self.seeds)
            left = halved(order)
            stopped = [p.label for p in going if p.name in order and p.name not in left]
            if stopped:
                note(f"At {share:.0%} of the steps the lower half stops: {'; '.join(stopped)}.")
            going = [p for p in going if p.name in left]
        self.advance([*ended, *going], END)

    def advance(self, points: Sequence[Point], share: float) -> None:
        """Have the answers of points at a share of their steps."""
        tasks = []
        for point in points:
            for seed in self.seeds:
                run = point.run(seed)
                if run in self.failed or self.where.answers_of(run, name_of(share)):
                    continue
                recipe = self.where.write_recipe(run, point, seed)
                tasks.append(self._task(run, recipe, str(share), name_of(share)))
        self._run(tasks, f"training to {share:.0%}")

    def look(self, point: Point) -> None:
        """Ask a point's runs the evaluation set, those that were trained to the end."""
        dev, answers_of = self.questions.stem, self.where.answers_of
        tasks = [
            self._task(run, self.where.recipe(run), str(self.questions), dev)
            for run in map(point.run, self.seeds)
            if answers_of(run, name_of(END)) and not answers_of(run, dev)
        ]
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
